import { createHmac } from 'node:crypto'
import type { Lane } from '../admission/pool.ts'
import { createPool } from '../admission/pool.ts'
import { createPredictor } from '../admission/predict.ts'
import type { QueueBounds } from '../admission/queue.ts'
import type { Limits } from '../limits.ts'
import { findSeenIds } from '../relay/resume.ts'
import { createRetryBudget } from '../relay/retry-budget.ts'
import type { Generation, Kind } from '../requests/generation.ts'
import { samplingWords } from '../requests/generation.ts'
import { createHttpUpstream } from './http-upstream.ts'
import type { Provider } from './provider.ts'
import { pathOf, withMembers } from './provider.ts'
import type { Upstream } from './upstream.ts'
import type { VllmReplica } from './vllm-replica.ts'
import { createVllmReplica } from './vllm-replica.ts'

export interface VllmOptions {
  name: 'vllm' | 'embeddings'
  urls: readonly string[]
  apiKey: string | undefined
  sequencesMax: number
  /** Undefined: as many as each server says. */
  cacheTokens: number | undefined
  /** What the model is for; whatever it is, it has to show that it can. */
  kinds: readonly Kind[]
  /** What cache salts are made with. */
  secret: string
  bounds: QueueBounds
  limits: Limits
  now: () => number
  log: (entry: Record<string, unknown>) => void
}

/** vLLM servers of one model, each with slots and a cache that are promised here, so that none queues inside it. */
export function createVllm(options: VllmOptions): Provider {
  const { name, kinds, urls, apiKey, sequencesMax, cacheTokens, secret, bounds, limits, now, log } = options
  const replicas = new Map<Lane, VllmReplica & { upstream: Upstream }>()
  for (const url of urls) {
    const lane: Lane = {
      name: new URL(url).host,
      requestsMax: sequencesMax,
      tokensMax: (cacheTokens ?? limits.cacheTokensDefault) * limits.cacheShare,
      requests: 0,
      tokens: 0,
      usable: false,
      saturated: false,
    }
    const onChange = (state: string): void => {
      log({ event: 'replica', provider: name, replica: lane.name, state })
      pool.schedule()
    }
    const replica = createVllmReplica({
      url,
      apiKey,
      lane,
      embeds: !kinds.includes('text'),
      ownsCacheTokens: cacheTokens !== undefined,
      limits,
      now,
      onChange,
    })
    replicas.set(lane, { ...replica, upstream: createHttpUpstream(url, limits) })
  }
  const pool = createPool({ name, lanes: [...replicas.keys()], bounds, limits, now })
  const salts = createSalts(secret, limits)
  const all = [...replicas.values()]
  const headers = [
    'content-type',
    'application/json',
    ...(apiKey === undefined ? [] : ['authorization', `Bearer ${apiKey}`]),
  ]

  return {
    name,
    external: false,
    kinds,
    pool,
    predictor: createPredictor(),
    retries: createRetryBudget(limits, now),
    // Its own 404 says best which models it has; without a name it takes its own.
    toModel: (model) =>
      model === '' || model === 'default' ? (all.find((one) => one.model())?.model()?.id ?? '') : model,
    models: () =>
      all
        .flatMap((one) => one.model() ?? [])
        .filter(({ id }, at, list) => list.findIndex((other) => other.id === id) === at),
    upstreamOf: (lane) => (replicas.get(lane) as { upstream: Upstream }).upstream,
    toOrder(generation, { requestId, model, trace }) {
      // Only where another server could go on.
      const addsIds = generation.resumable && !generation.returnIds && urls.length > 1
      return {
        kind: generation.kind,
        path: pathOf[generation.kind],
        body: toBody(generation, { model, salt: salts(generation), addsIds }),
        headers: [...headers, 'x-request-id', requestId, ...trace],
        stream: generation.stream,
        addsIds,
      }
    },
    async toResumeOrder(lane, point, generation, { requestId, model, trace }) {
      const replica = replicas.get(lane) as VllmReplica
      const seen = await findSeenIds(point, (ids) => replica.detokenize(ids))
      const left = generation.outputTokensMax - (seen?.length ?? 0)
      if (!seen || left < 1) return undefined
      const salt = salts(generation)
      const members = {
        model,
        prompt: [...point.promptIds, ...seen],
        max_tokens: left,
        stream: true,
        stream_options: { include_usage: true, continuous_usage_stats: true },
        ...(salt !== undefined && { cache_salt: salt }),
        ...Object.fromEntries(
          samplingWords().flatMap((word) =>
            generation.body[word] === undefined ? [] : [[word, generation.body[word]]],
          ),
        ),
      }
      const order = {
        kind: generation.kind,
        path: pathOf.text,
        body: Buffer.from(JSON.stringify(members)),
        headers: [...headers, 'x-request-id', `${requestId}-resumed`, ...trace],
        stream: true,
        addsIds: false,
      }
      return { order, tokens: seen.length }
    },
    succeeded: (lane) => replicas.get(lane)?.succeeded(),
    failed: (lane, failure) => replicas.get(lane)?.failed(failure),
    readiness: () => (all.some((one) => one.reason() === undefined) ? undefined : all[0]?.reason()),
    async start() {
      await Promise.all(all.map((replica) => replica.start()))
    },
    async close() {
      await Promise.all(all.map(async (replica) => Promise.all([replica.stop(), replica.upstream.close()])))
    },
  }
}

interface Additions {
  model: string
  salt: string | undefined
  addsIds: boolean
}

function toBody(generation: Generation, { model, salt, addsIds }: Additions): Buffer {
  const { kind, stream, body } = generation
  const own = Object.hasOwn(body, 'priority') ? { priority: 0 } : {}
  if (kind === 'embeddings') return model === generation.model ? generation.bytes : withMembers(generation, { model })
  return withMembers(generation, {
    ...own,
    ...(model !== generation.model && { model }),
    ...boundOf(generation),
    ...(salt !== undefined && { cache_salt: salt }),
    ...(stream && {
      stream_options: { ...(body['stream_options'] as object), include_usage: true, continuous_usage_stats: true },
    }),
    ...(addsIds && { return_token_ids: true }),
  })
}

/** What was promised to it is what it may use. */
const boundOf = ({ body, outputTokensMax }: Generation): Record<string, number> =>
  (body['max_tokens'] ?? body['max_completion_tokens'] ?? undefined) === undefined
    ? { max_tokens: outputTokensMax }
    : {}

/**
 * A tenant's prefixes are its own: without a salt, the time to the first token tells whether somebody else has sent the
 * same prompt.
 */
function createSalts(secret: string, { tenantsMax }: Limits): (generation: Generation) => string | undefined {
  const known = new Map<string, string>()
  return ({ caller: { tenant, sharedPrefix }, body }) => {
    if (sharedPrefix) return undefined
    const given = typeof body['cache_salt'] === 'string' ? body['cache_salt'] : ''
    const key = `${tenant}\n${given}`
    const salt = known.get(key) ?? createHmac('sha256', secret).update(`cache salt\n${key}`).digest('base64url')
    if (known.size >= tenantsMax) known.clear()
    known.set(key, salt)
    return salt
  }
}
