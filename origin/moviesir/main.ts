import { join } from 'node:path'
import { z } from 'zod'
import type { Environment } from '../kit/config.ts'
import { processEnvironment, readSettings } from '../kit/config.ts'
import { explainUnreachable, openDatabase } from '../kit/database.ts'
import { openEmbeddedPostgres } from '../kit/embedded-postgres.ts'
import { OriginError } from '../kit/error.ts'
import { applyMigrations } from '../kit/migrations.ts'
import { showProgress } from '../kit/progress-bar.ts'
import { seedCatalogue } from './catalogue/seed.ts'
import { databaseSettings } from './config.ts'
import { migrations } from './start.ts'

const usage = `npm run moviesir -- seed    loads the catalogue of films, or brings it up to date
`

const settings = {
  ...databaseSettings,
  dataDirectory: { from: ['DATA_DIRECTORY'], schema: z.string().default('.data') },
}

async function main(words: string[], environment: Environment): Promise<number> {
  if (words.join(' ') === 'seed') return seed(environment)
  process.stderr.write(words.length > 0 ? `no such command: ${words.join(' ')}\n${usage}` : usage)
  return 2
}

async function seed(environment: Environment): Promise<number> {
  const { databaseUrl, dataDirectory } = readSettings(environment, settings)
  const directory = join(dataDirectory, 'postgres')
  const embedded = databaseUrl ? undefined : await openEmbeddedPostgres({ directory })
  const database = openDatabase({ name: 'moviesir', url: databaseUrl, embedded })
  try {
    await applyMigrations(database.sql, migrations)
    const { films, links } = await seedCatalogue(database.sql, (done, total) =>
      showProgress(`${done} of ${total}`, done / total),
    )
    process.stdout.write(`${films} films, ${links} links to services\n`)
    return 0
  } catch (error) {
    throw explainUnreachable(error, 'moviesir', databaseUrl)
  } finally {
    await database.close()
    await embedded?.close()
  }
}

try {
  process.exitCode = await main(process.argv.slice(2), processEnvironment())
} catch (error) {
  process.stderr.write(`${error instanceof OriginError ? error.message : String(error)}\n`)
  process.exitCode = error instanceof OriginError && error.code === 'config_invalid' ? 2 : 1
}
