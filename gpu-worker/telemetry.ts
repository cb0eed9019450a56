import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Pool } from './admission/pool.ts'
import type { Provider } from './providers/provider.ts'
import type { Recommender } from './recommender/service.ts'
import type { Registry } from './metrics.ts'
import { createRegistry } from './metrics.ts'

const operationSeconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
const firstTokenSeconds = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
const perTokenSeconds = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
const recallShares = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1]
const tokenCounts = Array.from({ length: 14 }, (_, power) => 4 ** power)

/** What is counted: OpenTelemetry's names for generative AI (semantic conventions 1.40), and the worker's own. */
export type Telemetry = ReturnType<typeof createTelemetry>

/** What is counted of searches for films. */
export type VectorTelemetry = Pick<Telemetry, 'admission' | 'queue' | 'search' | 'recall' | 'short'>

export function createTelemetry(chain: readonly Provider[], open: () => number) {
  const registry: Registry = createRegistry()
  const loop = monitorEventLoopDelay({ resolution: 10 })
  loop.enable()
  const lines: { name: string; pool: Pool }[] = [...chain]
  const perLane = (read: (lane: Pool['lanes'][number]) => number) => () =>
    lines.flatMap(({ name, pool }) =>
      pool.lanes.map((lane) => ({ labels: { provider: name, server: lane.name }, value: read(lane) })),
    )

  registry.gauge('worker_open_requests', 'Requests being served.', () => [{ labels: {}, value: open() }])
  registry.gauge(
    'worker_running_requests',
    'Slots taken, by server.',
    perLane(({ requests }) => requests),
  )
  registry.gauge(
    'worker_reserved_tokens',
    'Tokens promised, by server.',
    perLane(({ tokens }) => tokens),
  )
  registry.gauge(
    'worker_server_ready',
    'Whether a server can be asked.',
    perLane(({ usable }) => Number(usable)),
  )
  registry.gauge('worker_waiting_requests', 'Requests that wait for a slot.', () =>
    lines.map(({ name, pool }) => ({ labels: { provider: name }, value: pool.waiting().requests })),
  )
  registry.gauge('worker_eventloop_delay_seconds', 'How late timers are, since the last look.', () => {
    const values = [0.5, 0.99].map((share) => ({
      labels: { quantile: String(share) },
      value: loop.percentile(share * 100) / 1e9,
    }))
    loop.reset()
    return values
  })

  return {
    toText: () => registry.toText(),
    stop: () => void loop.disable(),
    /** Counts what waits and runs in a line that is no provider's. */
    watchLine(name: string, pool: Pool): void {
      lines.push({ name, pool })
    },
    watchRecommender(state: Recommender['state']): void {
      registry.gauge('recommender_films', 'Films that can be recommended.', () => [
        { labels: {}, value: state().films },
      ])
      registry.gauge('recommender_model_version', 'Version of the model that serves; 0 before the first.', () => [
        { labels: {}, value: state().version ?? 0 },
      ])
    },
    duration: registry.histogram(
      'gen_ai_server_request_duration_seconds',
      'From the request to the end of its answer.',
      operationSeconds,
    ),
    clientDuration: registry.histogram(
      'gen_ai_client_operation_duration_seconds',
      'From a slot to the end of the answer.',
      operationSeconds,
    ),
    firstToken: registry.histogram(
      'gen_ai_server_time_to_first_token_seconds',
      'From the request to the first token.',
      firstTokenSeconds,
    ),
    perToken: registry.histogram(
      'gen_ai_server_time_per_output_token_seconds',
      'Between two tokens, on the mean of an answer.',
      perTokenSeconds,
    ),
    tokens: registry.histogram('gen_ai_client_token_usage', 'Tokens of an answer, by type.', tokenCounts),
    queue: registry.histogram('worker_queue_seconds', 'Waited for a slot.', firstTokenSeconds),
    recommendation: registry.histogram(
      'recommender_request_duration_seconds',
      'From the request to its tracks or film, by how much was known of the viewer.',
      firstTokenSeconds,
    ),
    search: registry.histogram(
      'worker_vector_search_seconds',
      'A search for films in its slot, by how it was done.',
      firstTokenSeconds,
    ),
    recall: registry.histogram(
      'worker_vector_recall_at_10',
      'Of the ten nearest films the share that the index finds, of some searches.',
      recallShares,
    ),
    short: registry.counter('worker_vector_short_total', 'Searches for which the index found too few.'),
    admission: registry.counter('worker_admission_total', 'What became of requests at the door.'),
    attempts: registry.counter('worker_upstream_attempts_total', 'Attempts, by provider and how they ended.'),
    resumed: registry.counter('worker_resumed_total', 'Streams that went on at another server.'),
    abortAs200: registry.counter('worker_abort_as_200_total', 'Answers of status 200 that were none.'),
    doneMissing: registry.counter('worker_done_missing_total', 'Streams that ended without [DONE].'),
    partialTokens: registry.counter(
      'worker_partial_settle_tokens_total',
      'Tokens of answers whose client left, as the server counted them or by estimate.',
    ),
    waste: registry.counter('worker_gpu_waste_tokens_total', 'Tokens that nobody pays for, by why.'),
    stalls: registry.counter('worker_itl_stall_total', 'Streams given up because nothing more came.'),
  }
}
