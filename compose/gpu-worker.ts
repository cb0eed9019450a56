import { readGpuWorkerConfig } from '../gpu-worker/config.ts'
import { startGpuWorker } from '../gpu-worker/start.ts'
import type { Log } from '../origin/kit/api.ts'
import type { Environment } from '../origin/kit/config.ts'
import type { EmbeddedPostgres } from '../origin/kit/embedded-postgres.ts'

interface Options {
  environment: Environment
  /** Where nothing else is said. */
  port: number
  log: Log
  /** What the recommender learns from, where no server is named. */
  embedded: EmbeddedPostgres | undefined
}

/** The GPU worker beside the origins: with the demo in place of a model, unless a model's server is named. */
export async function startEmbeddedGpuWorker({ environment, port, log, embedded }: Options) {
  const provider = environment['VLLM_URL'] ? 'vllm' : 'demo'
  const config = readGpuWorkerConfig({
    LLM_PROVIDER: provider,
    GPU_WORKER_PORT: String(port),
    ...withoutEmpty(environment),
  })
  const running = await startGpuWorker({ config, log, embedded })
  return { ...running, providers: config.providers, isDemo: config.providers.includes('demo') }
}

/** An empty variable counts as absent. */
export const withoutEmpty = (environment: Environment): Environment =>
  Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ''))
