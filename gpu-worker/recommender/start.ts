import type { Log } from '#origin/kit/api.ts'
import { explainUnreachable, openDatabase } from '#origin/kit/database.ts'
import type { EmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import { serve } from '#origin/kit/serve.ts'
import { createRecommender } from './service.ts'
import { migrations } from './store.ts'
import { train } from './train.ts'
import type { TrainOptions } from './train.ts'

type StartOptions = {
  databaseUrl: string | undefined
  embedded: EmbeddedPostgres | undefined
  secret: string | undefined
  host: string
  port: number
  log: Log
  /** How the first model is learned, where there is none, and how long after the start: half a minute when absent. */
  training?: Pick<TrainOptions, 'settings' | 'generatedUsers'> & { afterMs?: number }
}

const refreshMs = 30_000
/** Learning takes a core for some seconds: not while everything starts. */
const learnAfterMs = 30_000
/** While there is no film or no model yet: MovieSir makes the tables, perhaps after us. */
const waitMs = 1_000

/**
 * Serves the recommender over MovieSir's database; until there are films it answers 503 and looks again every second.
 * Where nothing was ever trained it serves by popularity and trains in the background; from then on it looks for newer
 * models every half minute.
 */
export async function startRecommender({ databaseUrl, embedded, secret, host, port, log, training }: StartOptions) {
  const { afterMs = learnAfterMs, ...how } = training ?? {}
  const startedAt = performance.now()
  const database = openDatabase({ name: 'recommender', url: databaseUrl, embedded, connectionsMax: 2 })
  const { sql } = database
  try {
    await applyMigrations(sql, migrations)
    const recommender = createRecommender({ sql, secret, log })
    const listening = await serve({ fetch: recommender.fetch, host, port })
    let next: NodeJS.Timeout | undefined
    const stopping = new AbortController()
    let looking = look()
    return { url: listening.url, stop }

    async function look(): Promise<void> {
      const hasFilms = await recommender.refresh().catch((error: Error) => {
        log({ event: 'refresh failed', system: 'recommender', reason: error.message })
        return false
      })
      const learnInMs = startedAt + afterMs - performance.now()
      if (hasFilms && !recommender.hasModel() && learnInMs <= 0) await trainFirst()
      if (stopping.signal.aborted) return
      const pauseMs = recommender.hasModel() ? refreshMs : hasFilms ? Math.max(waitMs, learnInMs) : waitMs
      next = setTimeout(() => (looking = look()), pauseMs)
    }

    async function trainFirst(): Promise<void> {
      try {
        log({
          event: 'trained',
          system: 'recommender',
          ...(await train(sql, { ...how, threads: 1, signal: stopping.signal })),
        })
        await recommender.refresh()
      } catch (error) {
        log({ event: 'training failed', system: 'recommender', reason: (error as Error).message })
      }
    }

    async function stop(): Promise<void> {
      stopping.abort(new Error('the recommender stops'))
      clearTimeout(next)
      await listening.stop()
      await looking
      await database.close()
    }
  } catch (error) {
    await database.close()
    throw explainUnreachable(error, 'recommender', databaseUrl)
  }
}
