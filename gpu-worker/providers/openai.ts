import { createPool } from '../admission/pool.ts'
import { createPredictor } from '../admission/predict.ts'
import type { QueueBounds } from '../admission/queue.ts'
import type { Limits } from '../limits.ts'
import { createRetryBudget } from '../relay/retry-budget.ts'
import type { Generation } from '../requests/generation.ts'
import { createExternalLane } from './external-lane.ts'
import { createHttpUpstream } from './http-upstream.ts'
import type { Provider } from './provider.ts'
import { pathOf } from './provider.ts'

export interface ExternalOptions {
  url: string
  key: string
  model: string
  bounds: QueueBounds
  limits: Limits
  now: () => number
}

/** OpenAI, or who speaks its language: the same wire, another's bill. */
export function createOpenAi({ url, key, model, bounds, limits, now }: ExternalOptions): Provider {
  const external = createExternalLane(new URL(url).host, limits, () => pool.schedule())
  const pool = createPool({ name: 'openai', lanes: [external.lane], bounds, limits, now })
  const upstream = createHttpUpstream(url, limits)
  const headers = ['content-type', 'application/json', 'authorization', `Bearer ${key}`]
  return {
    name: 'openai',
    external: true,
    kinds: ['chat', 'text'],
    pool,
    predictor: createPredictor(),
    retries: createRetryBudget(limits, now),
    toModel: (asked) => (['', 'default', model].includes(asked) ? model : undefined),
    models: () => [{ id: model, ownedBy: 'openai' }],
    upstreamOf: () => upstream,
    toOrder: (generation, context) => ({
      kind: generation.kind,
      path: pathOf[generation.kind],
      body: toBody(generation, context.model),
      headers: [...headers, 'x-client-request-id', context.requestId],
      stream: generation.stream,
      addsIds: false,
    }),
    succeeded: () => external.succeeded(),
    failed: (_, failure) => external.failed(failure),
    readiness: () => (external.lane.usable ? undefined : 'openai has failed again and again'),
    async start() {},
    async close() {
      external.close()
      await upstream.close()
    },
  }
}

/** Members that OpenAI knows: it refuses a request with any other, such as those of vLLM. */
const known = [
  'messages',
  'prompt',
  'frequency_penalty',
  'logit_bias',
  'logprobs',
  'top_logprobs',
  'n',
  'presence_penalty',
  'response_format',
  'seed',
  'stop',
  'stream',
  'suffix',
  'temperature',
  'top_p',
  'tools',
  'tool_choice',
  'parallel_tool_calls',
  'reasoning_effort',
]

function toBody({ kind, body, stream, outputTokensMax }: Generation, model: string): Buffer {
  const members = Object.fromEntries(known.flatMap((name) => (body[name] === undefined ? [] : [[name, body[name]]])))
  return Buffer.from(
    JSON.stringify({
      ...members,
      model,
      [kind === 'chat' ? 'max_completion_tokens' : 'max_tokens']: outputTokensMax,
      ...(stream && { stream_options: { include_usage: true } }),
    }),
  )
}
