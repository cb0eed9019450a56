import { join } from 'node:path'
import { readHomeworkHelperConfig } from './homework-helper/config.ts'
import { startHomeworkHelper } from './homework-helper/start.ts'
import type { Log } from './kit/api.ts'
import type { Environment } from './kit/config.ts'
import type { EmbeddedPostgres } from './kit/embedded-postgres.ts'
import { openEmbeddedPostgres } from './kit/embedded-postgres.ts'
import { readRecommenderConfig } from '../gpu-worker/recommender/config.ts'
import { startRecommender } from '../gpu-worker/recommender/start.ts'
import { readMovieSirConfig } from './moviesir/config.ts'
import { startMovieSir } from './moviesir/start.ts'

export type SystemName = 'homework-helper' | 'recommender' | 'moviesir'

/** Where a running origin is, and what it runs inside this process for want of a server. */
export type RunningOrigin = { system: SystemName; url: string; embedded: 'postgres'[] }

export type RunningOrigins = {
  origins: RunningOrigin[]
  /** Resolves with the reason when the embedded database keeps stopping without being asked to. */
  failed: Promise<Error>
  /** Lets running requests end, then closes every database. */
  stop(): Promise<void>
}

export type OriginsOptions = {
  /** The embedded database keeps its files in `postgres` below this directory; it is made when absent. */
  dataDirectory: string
  environment: Environment
  log: Log
  /** Which systems; all when absent. */
  systems?: readonly SystemName[]
  /** The address to listen on, 127.0.0.1 when absent. */
  host?: string
  /** A port for each system; any free one when absent. */
  ports?: Partial<Record<SystemName, number>>
}

type Started = { url: string; stop(): Promise<void> }
type StartContext = {
  host: string
  port: number
  log: Log
}
/** Where the systems are that have started before this one. */
type Urls = Partial<Record<SystemName, string>>
/** A system that is configured but not started: what it needs, and how to start it. */
type Prepared = {
  needs: 'postgres'[]
  start(embedded: EmbeddedPostgres | undefined, context: StartContext, urls: Urls): Promise<Started>
}

const systems: Record<SystemName, (environment: Environment) => Prepared> = {
  'homework-helper'(environment) {
    const config = readHomeworkHelperConfig(environment)
    return {
      needs: config.databaseUrl ? [] : ['postgres'],
      start: (embedded, context) => startHomeworkHelper({ config, embedded, ...context }),
    }
  },
  // Behind MovieSir, which asks it: so it is there first.
  recommender(environment) {
    const config = readRecommenderConfig(environment)
    return {
      needs: config.databaseUrl ? [] : ['postgres'],
      start: (embedded, context) => startRecommender({ ...config, embedded, ...context }),
    }
  },
  moviesir(environment) {
    const config = readMovieSirConfig(environment)
    return {
      needs: config.databaseUrl ? [] : ['postgres'],
      start: (embedded, context, { recommender }) =>
        startMovieSir({ config: { ...config, engineUrl: config.engineUrl ?? recommender }, embedded, ...context }),
    }
  },
}

/** Secrets without which an origin does not start, and which are in no table. */
export const originSecrets = ['MOVIESIR_JWT_SECRET', 'GPU_WORKER_SECRET']

/** Every origin system, in the order in which they start. */
export const systemNames = Object.keys(systems) as SystemName[]

/**
 * Starts origin systems, each on a port of its own, sharing one embedded database that is opened only when some
 * system has no server. Throws `config_invalid` before anything is opened, and closes what it opened when one of
 * them cannot start.
 */
export async function startOrigins(options: OriginsOptions): Promise<RunningOrigins> {
  const { dataDirectory, environment, log, host = '127.0.0.1', ports = {} } = options
  const prepared = (options.systems ?? systemNames).map((system) => ({ system, ...systems[system](environment) }))
  const isEmbedded = prepared.some(({ needs }) => needs.includes('postgres'))
  const onRestart = ({ message }: Error) => log({ event: 'database restarted', error: message })
  const directory = join(dataDirectory, 'postgres')
  const embedded = isEmbedded ? await openEmbeddedPostgres({ directory, onRestart }) : undefined

  const running: (RunningOrigin & Started)[] = []
  try {
    for (const { system, needs, start } of prepared) {
      const urls = Object.fromEntries(running.map((origin) => [origin.system, origin.url]))
      const started = await start(embedded, { host, port: ports[system] ?? 0, log }, urls)
      running.push({ system, embedded: needs, ...started })
    }
  } catch (error) {
    await stop()
    throw error
  }
  const never = new Promise<Error>(() => {})
  return { origins: running.map(toOrigin), failed: embedded?.failed ?? never, stop }

  async function stop(): Promise<void> {
    await Promise.all(running.map((origin) => origin.stop()))
    await embedded?.close()
  }
}

function toOrigin({ system, url, embedded }: RunningOrigin): RunningOrigin {
  return { system, url, embedded }
}
