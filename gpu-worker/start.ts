import type { Log } from '#origin/kit/api.ts'
import { OriginError } from '#origin/kit/error.ts'
import type { EmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import type { Listening } from '#origin/kit/serve.ts'
import { serve } from '#origin/kit/serve.ts'
import { issueWorkerToken } from '#origin/kit/worker-tokens.ts'
import { createBudget } from './admission/budget.ts'
import type { SharedBudget } from './admission/shared-budget.ts'
import { createSharedBudget } from './admission/shared-budget.ts'
import { createApp } from './app.ts'
import { createCallers } from './caller.ts'
import { isPrivate } from './config.ts'
import type { GpuWorkerConfig } from './config.ts'
import type { Limits } from './limits.ts'
import { limits as ownLimits } from './limits.ts'
import { createChain, toQueueBounds } from './providers/chain.ts'
import type { Delivery, DeliveryContext } from './relay/delivery.ts'
import type { FirstTraining } from './recommender/start.ts'
import { startRecommender } from './recommender/start.ts'
import { createTelemetry } from './telemetry.ts'
import { createFilmVectors } from './vectors/film-vectors.ts'

interface StartOptions {
  config: GpuWorkerConfig
  log: Log
  /** The database inside this process, where the configuration names no server. */
  embedded?: EmbeddedPostgres
  /** How the recommender learns when it never did. */
  training?: FirstTraining
  /** Bounds that differ from the usual ones. */
  limits?: Partial<Limits>
}

export interface RunningGpuWorker {
  url: string
  stop(): Promise<void>
}

/**
 * Asks the providers how they are, then serves; `stop` lets open requests end. With a database it recommends films too.
 */
export async function startGpuWorker(options: StartOptions): Promise<RunningGpuWorker> {
  const { config, log, embedded, training, limits: other = {} } = options
  const { databaseUrl } = config
  const limits: Limits = { ...ownLimits, deadlineMs: config.deadlineMs, ...other }
  const now = (): number => performance.now()
  const chain = createChain({ config, limits, now, log })
  const open = new Set<Delivery>()
  const telemetry = createTelemetry(chain, () => open.size)
  const url = Promise.withResolvers<string>()
  url.promise.catch(() => 'nobody may wait for it')
  const recommending = databaseUrl || embedded ? startRecommending(url.promise) : undefined
  const budget = openBudget(config, limits, log)
  const context: DeliveryContext = { chain, budget, telemetry, limits, now, log, open }
  const callers = createCallers(config.secret, limits, Date.now)
  const app = createApp({ callers, context, ...recommending })
  try {
    await Promise.all([budget.ready, ...chain.map((provider) => provider.start())])
    const listening = await listen(app, config)
    url.resolve(listening.url)
    // Every caller needs a token; still, whoever can reach the address can try.
    if (!isPrivate(config.host))
      log({
        event: 'warning',
        system: 'gpu-worker',
        message: `${config.host} is no private address: only the secret keeps strangers out`,
      })
    const looks = setInterval(() => {
      const at = now()
      for (const delivery of open) delivery.look(at)
    }, limits.lookMs)
    return {
      url: listening.url,
      async stop() {
        await listening.stop()
        clearInterval(looks)
        await close()
      },
    }
  } catch (error) {
    await close()
    throw error
  }

  async function close(): Promise<void> {
    telemetry.stop()
    budget.close()
    url.reject(new Error('the worker stops'))
    await recommending?.recommender.stop()
    await Promise.all([recommending?.vectors.stop(), ...chain.map((provider) => provider.close())])
  }

  function startRecommending(ownUrl: Promise<string>) {
    const { embeddingModel: model, secret } = config
    const caller = { tenant: 'recommender', band: 'batch' } as const
    const authorize = async (): Promise<string> => `Bearer ${await issueWorkerToken(secret, caller)}`
    const vectors = createFilmVectors({
      databaseUrl,
      embedded,
      embedding: model === undefined ? undefined : { model, url: ownUrl, authorize },
      bounds: toQueueBounds(config),
      limits,
      telemetry,
      now,
      log,
    })
    const recommender = startRecommender({ databaseUrl, embedded, vectors, log, training })
    telemetry.watchLine('vectors', vectors.search.pool)
    telemetry.watchRecommender(recommender.state)
    return { recommender, vectors }
  }
}

/** Counted in Redis where there is one and something to count, else in this process. */
function openBudget({ tokensPerMinute, redisUrl }: GpuWorkerConfig, limits: Limits, log: Log): SharedBudget {
  const local = createBudget({ tokensPerMinute, limits, now: Date.now })
  if (tokensPerMinute === undefined || redisUrl === undefined) return { ...local, ready: Promise.resolve(), close() {} }
  return createSharedBudget({ url: redisUrl, tokensPerMinute, local, limits, now: Date.now, log })
}

async function listen({ fetch }: ReturnType<typeof createApp>, { host, port }: GpuWorkerConfig): Promise<Listening> {
  try {
    return await serve({ fetch, host, port })
  } catch (error) {
    const cause = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const message = `GPU_WORKER_HOST, GPU_WORKER_PORT: cannot listen on ${host}:${port} (${cause})`
    throw new OriginError('config_invalid', message, { cause: error })
  }
}
