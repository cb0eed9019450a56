import type { Log } from '#origin/kit/api.ts'
import type { QueueBounds } from '../admission/queue.ts'
import type { GpuWorkerConfig } from '../config.ts'
import type { Limits } from '../limits.ts'
import type { Kind } from '../requests/generation.ts'
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
  // Of two models only one gives vectors that can be compared: no other stands in for it.
  const hasOwn = config.embeddingUrls.length > 0
  const kinds: Kind[] = hasOwn ? ['chat', 'text'] : ['chat', 'text', 'embeddings']
  const line = { bounds, limits, now }
  const vllm = {
    apiKey: config.vllmApiKey,
    sequencesMax: config.vllmSequencesMax,
    cacheTokens: config.vllmCacheTokens,
    secret: config.secret,
    log,
    ...line,
  }
  const create: Record<ProviderName, () => Provider> = {
    vllm: () => createVllm({ name: 'vllm', urls: config.vllmUrls, kinds, ...vllm }),
    embeddings: () => createVllm({ name: 'embeddings', urls: config.embeddingUrls, kinds: ['embeddings'], ...vllm }),
    openai: () =>
      createOpenAi({
        url: config.openaiUrl,
        key: config.openaiKey ?? '',
        model: config.openaiModel ?? '',
        ...line,
      }),
    anthropic: () =>
      createAnthropic({
        url: config.anthropicUrl,
        key: config.anthropicKey ?? '',
        model: config.anthropicModel ?? '',
        ...line,
      }),
    demo: () => createDemo({ kinds, ...line }),
  }
  const names: ProviderName[] = [...config.providers, ...(hasOwn ? (['embeddings'] as const) : [])]
  return names.map((name) => create[name]())
}

/** What may wait in a line. */
export const toQueueBounds = ({ queueRequests, queueTokens, queueBytes }: GpuWorkerConfig): QueueBounds => ({
  requestsMax: queueRequests,
  tokensMax: queueTokens,
  bytesMax: queueBytes,
})
