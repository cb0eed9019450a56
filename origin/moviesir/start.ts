import type { Log } from '../kit/api.ts'
import { explainUnreachable, openDatabase } from '../kit/database.ts'
import type { EmbeddedPostgres } from '../kit/embedded-postgres.ts'
import { OriginError } from '../kit/error.ts'
import { applyMigrations } from '../kit/migrations.ts'
import { serve } from '../kit/serve.ts'
import { createMovieSir } from './app.ts'
import { countFilms, seedCatalogue } from './catalogue/seed.ts'
import { forgetOldCalls } from './companies/calls.ts'
import { forgetOldGuests } from './companies/guest-sessions.ts'
import type { MovieSirConfig } from './config.ts'
import { createEngine } from './engine.ts'
import { createLogMailer, createSmtpMailer } from './mailer.ts'
import { createDatabaseStore, createRedisStore, sweepStore } from './store.ts'
import { forgetOldLogins } from './viewers/logins.ts'
import { forgetOldWithdrawals } from './viewers/withdrawals.ts'

type StartOptions = {
  config: MovieSirConfig
  embedded: EmbeddedPostgres | undefined
  host: string
  port: number
  log: Log
}

/** Where the GPU worker is when nobody says. */
const defaultEngineUrl = 'http://127.0.0.1:8002'
const housekeepingMs = 60 * 60 * 1000

/**
 * Migrates the database, loads the catalogue when there is none, serves the API and keeps house hourly; `stop` drains
 * and closes in the reverse order.
 */
export async function startMovieSir({ config, embedded, host, port, log }: StartOptions) {
  const database = openDatabase({ name: 'moviesir', url: config.databaseUrl, embedded })
  const { sql } = database
  const store = config.redisUrl ? createRedisStore(config.redisUrl) : createDatabaseStore(sql)
  const mailer = openMailer(config, log)
  try {
    const applied = await applyMigrations(sql, migrations)
    if (applied.length > 0) log({ event: 'migrated', system: 'moviesir', applied })
    if ((await countFilms(sql)) === 0) log({ event: 'seeded', system: 'moviesir', ...(await seedCatalogue(sql)) })
    const engine = createEngine({ url: config.engineUrl ?? defaultEngineUrl, secret: config.engineSecret })
    const app = createMovieSir({ config, database, store, mailer, engine, log })
    const listening = await serve({ fetch: app.fetch, host, port })
    const housekeeping = setInterval(keepHouse, housekeepingMs)
    return { url: listening.url, stop }

    function keepHouse(): void {
      Promise.all(
        [sweepStore, forgetOldLogins, forgetOldWithdrawals, forgetOldCalls, forgetOldGuests].map((forget) =>
          forget(sql),
        ),
      ).catch((error: Error) => log({ event: 'housekeeping failed', system: 'moviesir', error: error.message }))
    }

    async function stop(): Promise<void> {
      clearInterval(housekeeping)
      await listening.stop()
      close()
      await database.close()
    }
  } catch (error) {
    close()
    await database.close()
    throw explainUnreachable(error, 'moviesir', config.databaseUrl)
  }

  function close(): void {
    store.close()
    mailer.close()
  }
}

/** Where MovieSir's tables are made. */
export const migrations = { schema: 'moviesir', directory: new URL('./migrations/', import.meta.url) }

function openMailer({ smtpUrl, mailFrom, isProduction }: MovieSirConfig, log: Log) {
  if (smtpUrl) return createSmtpMailer({ url: smtpUrl, from: mailFrom, log })
  if (isProduction)
    throw new OriginError(
      'config_invalid',
      'The configuration is not usable:\n  SMTP_URL: is missing; in production the codes of a sign-up are mailed, not logged',
    )
  return createLogMailer(log)
}
