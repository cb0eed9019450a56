import type { Log } from '#origin/kit/api.ts'
import type { QueueBounds } from '../admission/queue.ts'
import type { GpuWorkerConfig } from '../config.ts'
import type { Limits } from '../limits.ts'
import { createAnthropic } from './anthropic.ts'
import { createDemo } from './demo.ts'
import { createOpenAi } from './openai.ts'
import type { Provider, ProviderName } from './provider.ts'
import { createVllm } from './vllm.ts'

interface ChainOptions {
  config: GpuWorkerConfig
  limits: Limits
  now: () => number
  log: Log
}

/** The providers in the order in which they are asked. */
export function createChain({ config, limits, now, log }: ChainOptions): Provider[] {
  const bounds = toQueueBounds(config)
  const create: Record<ProviderName, () => Provider> = {
    vllm: () =>
      createVllm({
        urls: config.vllmUrls,
        apiKey: config.vllmApiKey,
        sequencesMax: config.vllmSequencesMax,
        cacheTokens: config.vllmCacheTokens,
        kinds: ['chat', 'text', 'embeddings'],
        secret: config.secret,
        bounds,
        limits,
        now,
        log,
      }),
    openai: () =>
      createOpenAi({
        url: config.openaiUrl,
        key: config.openaiKey ?? '',
        model: config.openaiModel ?? '',
        bounds,
        limits,
        now,
      }),
    anthropic: () =>
      createAnthropic({
        url: config.anthropicUrl,
        key: config.anthropicKey ?? '',
        model: config.anthropicModel ?? '',
        bounds,
        limits,
        now,
      }),
    demo: () => createDemo({ bounds, limits, now }),
  }
  return config.providers.map((name) => create[name]())
}

/** What may wait in a line. */
export const toQueueBounds = ({ queueRequests, queueTokens, queueBytes }: GpuWorkerConfig): QueueBounds => ({
  requestsMax: queueRequests,
  tokensMax: queueTokens,
  bytesMax: queueBytes,
})
