import { createPool } from '../admission/pool.ts'
import { createPredictor } from '../admission/predict.ts'
import { createRetryBudget } from '../relay/retry-budget.ts'
import { toAnthropicRequest } from './anthropic-messages.ts'
import { AnthropicTranslator } from './anthropic-translator.ts'
import { createExternalLane } from './external-lane.ts'
import { createHttpUpstream } from './http-upstream.ts'
import type { ExternalOptions } from './openai.ts'
import type { Provider } from './provider.ts'

/** Anthropic's Messages API, asked and told in OpenAI's words. */
export function createAnthropic({ url, key, model, bounds, limits, now }: ExternalOptions): Provider {
  const external = createExternalLane(new URL(url).host, limits, () => pool.schedule())
  const pool = createPool({ name: 'anthropic', lanes: [external.lane], bounds, limits, now })
  const http = createHttpUpstream(url, limits)
  const upstream = {
    ...http,
    open: (order: Parameters<typeof http.open>[0], sink: Parameters<typeof http.open>[1]) =>
      http.open(order, new AnthropicTranslator(sink, order.stream, limits.eventBytesMax)),
  }
  const headers = ['content-type', 'application/json', 'x-api-key', key, 'anthropic-version', '2023-06-01']
  return {
    name: 'anthropic',
    external: true,
    kinds: ['chat'],
    pool,
    predictor: createPredictor(),
    retries: createRetryBudget(limits, now),
    toModel: (asked) => (['', 'default', model].includes(asked) ? model : undefined),
    models: () => [{ id: model, ownedBy: 'anthropic' }],
    upstreamOf: () => upstream,
    toOrder: (generation, context) => ({
      kind: generation.kind,
      path: '/v1/messages',
      body: Buffer.from(JSON.stringify(toAnthropicRequest(generation, context.model))),
      headers,
      stream: generation.stream,
      addsIds: false,
    }),
    succeeded: () => external.succeeded(),
    failed: (_, failure) => external.failed(failure),
    readiness: () => (external.lane.usable ? undefined : 'anthropic has failed again and again'),
    async start() {},
    async close() {
      external.close()
      await upstream.close()
    },
  }
}
