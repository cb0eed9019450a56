import type { Log } from '../kit/api.ts'
import { explainUnreachable, openDatabase } from '../kit/database.ts'
import type { EmbeddedPostgres } from '../kit/embedded-postgres.ts'
import { applyMigrations } from '../kit/migrations.ts'
import { serve } from '../kit/serve.ts'
import { createHomeworkHelper } from './app.ts'
import type { HomeworkHelperConfig } from './config.ts'
import { forgetOldAnswers } from './uploads.ts'

type StartOptions = {
  config: HomeworkHelperConfig
  embedded: EmbeddedPostgres | undefined
  host: string
  port: number
  log: Log
}

const housekeepingMs = 60 * 60 * 1000

/** Migrates the database, serves the API and keeps house hourly; `stop` drains and closes in the reverse order. */
export async function startHomeworkHelper({ config, embedded, host, port, log }: StartOptions) {
  const database = openDatabase({ name: 'homework-helper', url: config.databaseUrl, embedded })
  try {
    const applied = await applyMigrations(database.sql, migrations)
    if (applied.length > 0) log({ event: 'migrated', system: 'homework-helper', applied })
    const app = createHomeworkHelper({ config, database, log })
    const listening = await serve({ fetch: app.fetch, host, port })
    const housekeeping = setInterval(keepHouse, housekeepingMs)
    return { url: listening.url, stop }

    function keepHouse(): void {
      forgetOldAnswers(database.sql).catch((error: Error) =>
        log({ event: 'housekeeping failed', system: 'homework-helper', error: error.message }),
      )
    }

    async function stop(): Promise<void> {
      clearInterval(housekeeping)
      await listening.stop()
      await database.close()
    }
  } catch (error) {
    await database.close()
    throw explainUnreachable(error, 'homework-helper', config.databaseUrl)
  }
}

const migrations = { schema: 'homework_helper', directory: new URL('./migrations/', import.meta.url) }
