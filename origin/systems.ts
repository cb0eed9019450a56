import { join } from 'node:path'
import { readHomeworkHelperConfig } from './homework-helper/config.ts'
import { startHomeworkHelper } from './homework-helper/start.ts'
import type { Log } from './kit/api.ts'
import type { Environment } from './kit/config.ts'
import type { EmbeddedPostgres } from './kit/embedded-postgres.ts'
import { openEmbeddedPostgres } from './kit/embedded-postgres.ts'
import { readMovieSirConfig } from './moviesir/config.ts'
import { startMovieSir } from './moviesir/start.ts'

export type SystemName = 'homework-helper' | 'moviesir'

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
  /** The embedded database of who starts them, who also closes it; else one is opened when some system has no server. */
  embedded?: EmbeddedPostgres
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
/** A system that is configured but not started: what it needs, and how to start it. */
type Prepared = {
  needs: 'postgres'[]
  start(embedded: EmbeddedPostgres | undefined, context: StartContext): Promise<Started>
}

const systems: Record<SystemName, (environment: Environment) => Prepared> = {
  'homework-helper'(environment) {
    const config = readHomeworkHelperConfig(environment)
    return {
      needs: config.databaseUrl ? [] : ['postgres'],
      start: (embedded, context) => startHomeworkHelper({ config, embedded, ...context }),
    }
  },
  moviesir(environment) {
    const config = readMovieSirConfig(environment)
    return {
      needs: config.databaseUrl ? [] : ['postgres'],
      start: (embedded, context) => startMovieSir({ config, embedded, ...context }),
    }
  },
}

/** Secrets without which an origin does not start, and which are in no table. */
export const originSecrets = ['MOVIESIR_JWT_SECRET', 'GPU_WORKER_SECRET']

/** Every origin system, in the order in which they start. */
export const systemNames = Object.keys(systems) as SystemName[]

/** Opens the database that systems without a server share; undefined when each has one. */
export async function openOriginsDatabase(options: OriginsOptions): Promise<EmbeddedPostgres | undefined> {
  const { dataDirectory, environment, log } = options
  const isNeeded = (options.systems ?? systemNames).some((system) => systems[system](environment).needs.length > 0)
  const onRestart = ({ message }: Error) => log({ event: 'database restarted', error: message })
  return isNeeded ? openEmbeddedPostgres({ directory: join(dataDirectory, 'postgres'), onRestart }) : undefined
}

/**
 * Starts origin systems, each on a port of its own, sharing one embedded database that is opened only when some
 * system has no server. Throws `config_invalid` before anything is opened, and closes what it opened when one of
 * them cannot start.
 */
export async function startOrigins(options: OriginsOptions): Promise<RunningOrigins> {
  const { environment, log, host = '127.0.0.1', ports = {} } = options
  const prepared = (options.systems ?? systemNames).map((system) => ({ system, ...systems[system](environment) }))
  const own = options.embedded ? undefined : await openOriginsDatabase(options)
  const embedded = options.embedded ?? own

  const running: (RunningOrigin & Started)[] = []
  try {
    for (const { system, needs, start } of prepared) {
      const started = await start(embedded, { host, port: ports[system] ?? 0, log })
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
    await own?.close()
  }
}

function toOrigin({ system, url, embedded }: RunningOrigin): RunningOrigin {
  return { system, url, embedded }
}
