import { isIP } from 'node:net'
import { z } from 'zod'
import type { Environment } from '#origin/kit/config.ts'
import { databaseUrlSetting, numberSetting, readSettings, secretSetting } from '#origin/kit/config.ts'
import { OriginError } from '#origin/kit/error.ts'

const urlSetting = z
  .string()
  .transform(withoutVersion)
  .refine((text) => /^https?:$/.test(protocolOf(text)), 'must be an address such as https://api.example')

const urlsSetting = z
  .string()
  .default('')
  .transform((text) =>
    text
      .split(',')
      .map((word) => withoutVersion(word.trim()))
      .filter(Boolean),
  )
  .refine(
    (urls) => urls.every((url) => /^https?:$/.test(protocolOf(url))),
    'must list addresses such as http://127.0.0.1:9000',
  )

const providerNames = ['vllm', 'openai', 'anthropic', 'demo'] as const

const providersSetting = z
  .string()
  .default('vllm')
  .transform((text) => text.split(',').map((word) => word.trim()))
  .pipe(z.array(z.enum(providerNames, { error: `must list some of ${providerNames.join(', ')}` })))
  .refine((names) => new Set(names).size === names.length, 'names one twice')
  .refine(
    (names) => !names.includes('demo') || names.length === 1,
    'demo stands alone: it must not take the place of a model unnoticed',
  )

/** Where MovieSir's database is, from which the recommender learns. */
export const databaseSettings = {
  databaseUrl: { from: ['MOVIESIR_DATABASE_URL', 'DATABASE_URL'], schema: databaseUrlSetting },
}

const settings = {
  ...databaseSettings,
  host: { from: ['GPU_WORKER_HOST'], schema: z.string().default('127.0.0.1') },
  port: { from: ['GPU_WORKER_PORT'], schema: numberSetting({ min: 0, max: 65_535, fallback: 8002 }) },
  secret: { from: ['GPU_WORKER_SECRET'], schema: secretSetting },
  providers: { from: ['LLM_PROVIDER'], schema: providersSetting },
  vllmUrls: { from: ['VLLM_URL'], schema: urlsSetting },
  vllmApiKey: { from: ['VLLM_API_KEY'], schema: z.string().optional() },
  vllmSequencesMax: { from: ['VLLM_MAX_NUM_SEQS'], schema: numberSetting({ min: 1, max: 4_096, fallback: 64 }) },
  vllmCacheTokens: { from: ['VLLM_KV_CACHE_TOKENS'], schema: z.coerce.number().int().min(1_024).optional() },
  openaiKey: { from: ['OPENAI_API_KEY'], schema: z.string().optional() },
  openaiUrl: { from: ['OPENAI_BASE_URL'], schema: urlSetting.default('https://api.openai.com') },
  openaiModel: { from: ['OPENAI_MODEL'], schema: z.string().optional() },
  anthropicKey: { from: ['ANTHROPIC_API_KEY'], schema: z.string().optional() },
  anthropicUrl: { from: ['ANTHROPIC_BASE_URL'], schema: urlSetting.default('https://api.anthropic.com') },
  anthropicModel: { from: ['ANTHROPIC_MODEL'], schema: z.string().optional() },
  embeddingUrls: { from: ['GPU_WORKER_EMBEDDING_URL'], schema: urlsSetting },
  embeddingModel: { from: ['GPU_WORKER_EMBEDDING_MODEL'], schema: z.string().max(200).optional() },
  demoInProduction: { from: ['LLM_DEMO_IN_PRODUCTION'], schema: z.enum(['0', '1']).default('0') },
  nodeEnvironment: { from: ['NODE_ENV'], schema: z.string().default('development') },
  queueRequests: {
    from: ['GPU_WORKER_QUEUE_REQUESTS'],
    schema: numberSetting({ min: 1, max: 100_000, fallback: 256 }),
  },
  queueTokens: { from: ['GPU_WORKER_QUEUE_TOKENS'], schema: numberSetting({ min: 1, max: 1e9, fallback: 1_000_000 }) },
  queueBytes: { from: ['GPU_WORKER_QUEUE_BYTES'], schema: numberSetting({ min: 1, max: 1e10, fallback: 67_108_864 }) },
  tokensPerMinute: { from: ['GPU_WORKER_TOKENS_PER_MINUTE'], schema: z.coerce.number().int().min(1).optional() },
  redisUrl: {
    from: ['REDIS_URL'],
    schema: z
      .string()
      .refine((text) => text.startsWith('/') || /^rediss?:$/.test(protocolOf(text)), 'must look like redis://host:6379')
      .optional(),
  },
  deadlineMs: {
    from: ['GPU_WORKER_DEADLINE_MS'],
    schema: numberSetting({ min: 1, max: 3_600_000, fallback: 110_000 }),
  },
}

export type GpuWorkerConfig = ReturnType<typeof readGpuWorkerConfig>

/** The settings of the GPU worker, or one `config_invalid` with all that is wrong with them. */
export function readGpuWorkerConfig(environment: Environment) {
  const config = readSettings(environment, settings)
  const faults = findProviderFaults(config)
  if (faults.length > 0)
    throw new OriginError('config_invalid', ['The configuration is not usable:', ...faults].join('\n  '))
  return config
}

type Read = ReturnType<typeof readSettings<typeof settings>>

function findProviderFaults(config: Read): string[] {
  const needs = {
    vllm: config.vllmUrls.length === 0 ? ['VLLM_URL: is missing; it lists the servers of the provider vllm'] : [],
    openai: [
      ...(config.openaiKey ? [] : ['OPENAI_API_KEY: is missing; the provider openai needs it']),
      ...(config.openaiModel ? [] : ['OPENAI_MODEL: is missing; the provider openai needs it']),
    ],
    anthropic: [
      ...(config.anthropicKey ? [] : ['ANTHROPIC_API_KEY: is missing; the provider anthropic needs it']),
      ...(config.anthropicModel ? [] : ['ANTHROPIC_MODEL: is missing; the provider anthropic needs it']),
    ],
    demo:
      config.nodeEnvironment === 'production' && config.demoInProduction !== '1'
        ? ['LLM_PROVIDER: demo is no model, and this is production; LLM_DEMO_IN_PRODUCTION=1 says that it is meant']
        : [],
  }
  const canEmbed =
    config.embeddingUrls.length > 0 || config.providers.some((name) => name === 'vllm' || name === 'demo')
  return [
    ...config.providers.flatMap((name) => needs[name]),
    ...(config.embeddingModel !== undefined && !canEmbed
      ? [
          'GPU_WORKER_EMBEDDING_MODEL: no provider of LLM_PROVIDER gives vectors; GPU_WORKER_EMBEDDING_URL names who does',
        ]
      : []),
  ]
}

/** Whether only this machine or its network reaches an address. */
export function isPrivate(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true
  if (isIP(host) === 6) return /^f[cd][0-9a-f]{2}:/i.test(host)
  const [first = 0, second = 0] = isIP(host) === 4 ? host.split('.').map(Number) : []
  return (
    first === 127 ||
    first === 10 ||
    (first === 172 && second >= 16 && second < 32) ||
    (first === 192 && second === 168) ||
    (first === 100 && second >= 64 && second < 128)
  )
}

/** An address as clients of OpenAI write it ends in /v1; paths here have it. */
function withoutVersion(text: string): string {
  return text.replace(/\/(v1\/?)?$/, '')
}

function protocolOf(text: string): string {
  return URL.canParse(text) ? new URL(text).protocol : ''
}
