import type { Log } from '#origin/kit/api.ts'
import { openDatabase } from '#origin/kit/database.ts'
import type { EmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import type { FilmVectors } from '../vectors/film-vectors.ts'
import type { Recommender } from './service.ts'
import { createRecommender } from './service.ts'
import { migrations } from './store.ts'
import { train } from './train.ts'
import type { TrainOptions } from './train.ts'

/** How the first model is learned, where there is none, and how long after the start: half a minute when absent. */
export type FirstTraining = Pick<TrainOptions, 'settings' | 'generatedUsers'> & { afterMs?: number }

type StartOptions = {
  databaseUrl: string | undefined
  embedded: EmbeddedPostgres | undefined
  vectors: FilmVectors
  log: Log
  training?: FirstTraining
}

export type RunningRecommender = Recommender & {
  /** True when the database answers within the time. */
  isAlive(withinMs: number): Promise<boolean>
  stop(): Promise<void>
}

const refreshMs = 30_000
/** Learning takes a core for some seconds: not while everything starts. */
const learnAfterMs = 30_000
/** While there is no database, film or model yet: MovieSir makes the tables, perhaps after us. */
const waitMs = 1_000

/**
 * Keeps a recommender over MovieSir's database up to date. While there are no films, or no database, it looks again
 * every second. Where nothing was ever trained it recommends by popularity and trains in a thread of its own; from then
 * on it looks for newer models every half minute.
 */
export function startRecommender(options: StartOptions): RunningRecommender {
  const { databaseUrl, embedded, vectors, log, training } = options
  const { afterMs = learnAfterMs, ...how } = training ?? {}
  const startedAt = performance.now()
  const database = openDatabase({ name: 'recommender', url: databaseUrl, embedded, connectionsMax: 2 })
  const { sql } = database
  const recommender = createRecommender({ sql, vectors, log })
  vectors.onBetter(() => void refresh())
  const stopping = new AbortController()
  let isMigrated = false
  let failure = ''
  let next: NodeJS.Timeout | undefined
  let looking = look()
  return { ...recommender, isAlive: database.isAlive, stop }

  async function look(): Promise<void> {
    const hasFilms = await refresh()
    const learnInMs = startedAt + afterMs - performance.now()
    if (hasFilms && !hasModel() && learnInMs <= 0) await trainFirst()
    if (stopping.signal.aborted) return
    const pauseMs = hasModel() ? refreshMs : hasFilms ? Math.max(waitMs, learnInMs) : waitMs
    next = setTimeout(() => (looking = look()), pauseMs)
  }

  /** A failure is told when it is another than the last time. */
  async function refresh(): Promise<boolean> {
    try {
      if (!isMigrated) await applyMigrations(sql, migrations)
      isMigrated = true
      const hasFilms = await recommender.refresh()
      failure = ''
      return hasFilms
    } catch (error) {
      const { message } = error as Error
      if (message !== failure) log({ event: 'refresh failed', system: 'recommender', reason: message })
      failure = message
      return false
    }
  }

  async function trainFirst(): Promise<void> {
    try {
      const trained = await train(sql, { ...how, threads: 1, signal: stopping.signal })
      log({ event: 'trained', system: 'recommender', ...trained })
      await recommender.refresh()
    } catch (error) {
      log({ event: 'training failed', system: 'recommender', reason: (error as Error).message })
    }
  }

  function hasModel(): boolean {
    return recommender.state().version !== undefined
  }

  async function stop(): Promise<void> {
    stopping.abort(new Error('the recommender stops'))
    clearTimeout(next)
    await looking
    await database.close()
  }
}
