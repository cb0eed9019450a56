import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { processEnvironment, readSettings } from '#origin/kit/config.ts'
import type { Environment } from '#origin/kit/config.ts'
import { explainUnreachable, openDatabase } from '#origin/kit/database.ts'
import { openEmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { OriginError } from '#origin/kit/error.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import { showProgress } from '#origin/kit/progress-bar.ts'
import { databaseSettings } from '../config.ts'
import { alsDefaults } from './als.ts'
import { evaluate } from './evaluate.ts'
import { generateInteractions, generateItems, genres } from './generate.ts'
import { toInteractions } from './interactions.ts'
import { RatingsFault, readRatings } from './ratings-file.ts'
import { migrations } from './store.ts'
import { train } from './train.ts'

const usage = `npm run recommender -- train                     learns from MovieSir's database; the result serves at once
npm run recommender -- evaluate FILE             measures on ratings: user item rating timestamp
npm run recommender -- generate FILE             makes up such a file: --users 943 --items 1682 --ratings 100000
options of train and evaluate: --dimension 64 --epochs 16 --threads 2
`

const options = {
  dimension: { type: 'string', default: String(alsDefaults.dimension) },
  epochs: { type: 'string', default: String(alsDefaults.epochs) },
  threads: { type: 'string' },
  users: { type: 'string', default: '943' },
  items: { type: 'string', default: '1682' },
  ratings: { type: 'string', default: '100000' },
  seed: { type: 'string', default: '1' },
} as const

class UsageFault extends Error {}

async function main(words: string[], environment: Environment): Promise<number> {
  const { positionals, values } = readWords(words)
  const [command, file, ...rest] = positionals
  if (rest.length === 0 && command === 'train' && file === undefined) return trainModel(environment, values)
  if (rest.length === 0 && command === 'evaluate' && file !== undefined) return evaluateFile(file, values)
  if (rest.length === 0 && command === 'generate' && file !== undefined) return generateFile(file, values)
  throw new UsageFault(usage.trimEnd())
}

type Values = ReturnType<typeof readWords>['values']

function readWords(words: string[]) {
  try {
    return parseArgs({ args: words, options, allowPositionals: true })
  } catch (error) {
    throw new UsageFault(`${(error as Error).message}\n${usage.trimEnd()}`)
  }
}

function toSettings(values: Values) {
  return { ...alsDefaults, dimension: toNumber(values, 'dimension', 512), epochs: toNumber(values, 'epochs', 1_000) }
}

function toNumber(values: Values, name: keyof Values, max: number): number {
  const number = Number(values[name])
  if (Number.isInteger(number) && number >= 1 && number <= max) return number
  throw new UsageFault(`--${name} takes a whole number from 1 to ${max}, not ${values[name]}`)
}

const toThreads = (values: Values) => (values.threads === undefined ? undefined : toNumber(values, 'threads', 64))

async function trainModel(environment: Environment, values: Values): Promise<number> {
  const { databaseUrl, dataDirectory } = readSettings(environment, {
    ...databaseSettings,
    dataDirectory: { from: ['DATA_DIRECTORY'], schema: z.string().default('.data') },
  })
  const embedded = databaseUrl ? undefined : await openEmbeddedPostgres({ directory: join(dataDirectory, 'postgres') })
  const database = openDatabase({ name: 'recommender', url: databaseUrl, embedded })
  try {
    await applyMigrations(database.sql, migrations)
    const trained = await train(database.sql, {
      settings: toSettings(values),
      threads: toThreads(values),
      onProgress: showProgress,
    })
    const { version, films, viewers, generated, interactions, seconds } = trained
    process.stdout.write(
      `model ${version}: ${films} films, ${interactions} interactions of ${viewers} viewers and ${generated} made-up ones, ${seconds.toFixed(1)} s\n`,
    )
    return 0
  } catch (error) {
    throw explainUnreachable(error, 'recommender', databaseUrl)
  } finally {
    await database.close()
    await embedded?.close()
  }
}

async function evaluateFile(file: string, values: Values): Promise<number> {
  const settings = toSettings(values)
  const threads = toThreads(values)
  const { users, items, pairs } = await readRatings(file)
  process.stdout.write(`${pairs.length} ratings of ${users.length} users and ${items.length} items\n\n`)
  const figures = await evaluate(toInteractions(users.length, items.length, pairs), {
    settings,
    threads,
    onProgress: showProgress,
  })
  const width = Math.max(...figures.map(({ method }) => method.length))
  process.stdout.write(`${''.padEnd(width)}  NDCG@10  Recall@10  coverage  seconds\n`)
  for (const { method, ndcg, recall, coverage, seconds } of figures)
    process.stdout.write(
      `${method.padEnd(width)}  ${ndcg.toFixed(4).padStart(7)}  ${recall.toFixed(4).padStart(9)}  ${coverage.toFixed(3).padStart(8)}  ${seconds.toFixed(1).padStart(7)}\n`,
    )
  return 0
}

async function generateFile(file: string, values: Values): Promise<number> {
  const items = toNumber(values, 'items', 100_000)
  const users = toNumber(values, 'users', 1_000_000)
  const ratings = toNumber(values, 'ratings', 100_000_000)
  const seed = toNumber(values, 'seed', 2_147_483_647)
  const rows = generateInteractions(generateItems(items, genres, seed), { users, perUser: ratings / users, seed })
  const lines = rows.flatMap((row, user) =>
    row.map((item, place) => `${user + 1}\t${item + 1}\t5\t${1_000_000_000 + place}`),
  )
  await writeFile(file, `${lines.join('\n')}\n`)
  process.stdout.write(`${lines.length} ratings of ${users} users and ${items} items in ${file}\n`)
  return 0
}

try {
  process.exitCode = await main(process.argv.slice(2), processEnvironment())
} catch (error) {
  showProgress('', 1)
  const isTheirs = error instanceof UsageFault || error instanceof RatingsFault || error instanceof OriginError
  process.stderr.write(`${isTheirs ? error.message : String((error as Error).stack ?? error)}\n`)
  process.exitCode = error instanceof UsageFault || error instanceof RatingsFault ? 2 : 1
}
