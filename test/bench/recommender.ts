import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Database, Sql } from '#origin/kit/database.ts'
import { openDatabase } from '#origin/kit/database.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import { migrations as movieSirMigrations } from '#origin/moviesir/start.ts'
import { alsDefaults } from '#gpu-worker/recommender/als.ts'
import type { Film } from '#gpu-worker/recommender/film.ts'
import { generateInteractions, generateItems, genres } from '#gpu-worker/recommender/generate.ts'
import { learn } from '#gpu-worker/recommender/learn.ts'
import { createRandom } from '#gpu-worker/recommender/random.ts'
import { migrations } from '#gpu-worker/recommender/store.ts'
import { train } from '#gpu-worker/recommender/train.ts'
import { missingPostgres, startPostgres } from '../support/postgres.ts'
import { startAlone } from './gpu-stand.ts'
import { cpuMicroseconds, freePort, openWorkshop, waitForPort } from './processes.ts'
import type { Started, Workshop } from './processes.ts'
import { makeFilms, makeWishes } from './recommender-data.ts'
import type { Caller, Measured } from './recommender-load.ts'
import { askAtRate, askInTurn } from './recommender-load.ts'

const help = `npm run bench -- recommender [--films 10000] [--requests 500] [--rate 20] [--profile FOLDER] [--json]

Learning from 100,000 ratings, the recommender over HTTP, and MovieSir's API for companies through the gateway. Needs
PostgreSQL. --profile writes what V8's sampler saw of the GPU worker.
`

const root = fileURLToPath(new URL('../../', import.meta.url))
const apiKey = 'sk-moviesir-of-a-bench'
/** Requests until the code that answers is compiled. */
const warmUp = 200
const goals = { learnSeconds: 10, p50Ms: 5, p99Ms: 20, endToEndP99Ms: 50 }

/** Learns, serves and is asked; each process by itself, as it is in production. */
export async function benchRecommender(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      films: { type: 'string', default: '10000' },
      requests: { type: 'string', default: '500' },
      rate: { type: 'string', default: '20' },
      profile: { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  })
  if (values.help) return void process.stdout.write(help)
  if (missingPostgres) throw new Error(missingPostgres)
  const [count, requests, rate] = [Number(values.films), Number(values.requests), Number(values.rate)]
  const learned = await measureLearning()
  const workshop = openWorkshop()
  const server = await startPostgres()
  const database = openDatabase({ name: 'bench', url: server.url })
  try {
    const trained = await prepare(database, count)
    const worker = await startWorker(workshop, server.url, values.profile)
    const wishes = makeWishes(count, 997)
    const rows: Row[] = []
    for (const path of ['/recommend', '/recommend_single'] as const) {
      const caller: Caller = { port: worker.port, path, headers: worker.headers, bodies: wishes[path] }
      await askInTurn(caller, warmUp)
      rows.push({
        what: `${path}, one at a time`,
        ...(await measure(worker.started, () => askInTurn(caller, requests))),
      })
      const paced = () => askAtRate(caller, { requests, rate })
      rows.push({ what: `${path}, ${rate}/s`, ...(await measure(worker.started, paced)) })
    }
    const gateway = await startMovieSir(workshop, database.sql, server.url, worker.port)
    const external: Caller = {
      port: gateway.port,
      path: '/v1/recommend',
      headers: { Host: 'api.moviesir.localhost', 'X-API-Key': apiKey },
      bodies: wishes['/recommend'],
    }
    await askInTurn(external, warmUp)
    const endToEnd = await measure(gateway, () => askAtRate(external, { requests, rate }))
    rows.push({ what: `/v1/recommend through the gateway, ${rate}/s`, ...endToEnd })
    await workshop.stop(worker.started)
    const result = { load: loadavg()[0], learned, trained, rows }
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : show(result))
  } finally {
    await database.close()
    workshop.close()
    await server.stop()
  }
}

type Row = Measured & { what: string; microseconds: number }
type Learning = { seconds: number; cpuSeconds: number }
type Result = { load: number | undefined; learned: Learning; trained: { seconds: number }; rows: Row[] }

/** As many ratings, users and items as MovieLens-100K has, and as `train` learns: factors, weights and blend. */
async function measureLearning(): Promise<Learning> {
  const items = generateItems(1_682, genres, 1)
  const histories = generateInteractions(items, { users: 943, perUser: 106, seed: 1 })
  const films = makeFilms(1_682)
  const startedAt = performance.now()
  const before = process.cpuUsage()
  await learn(
    films,
    histories.map((row) => row.map((place) => films[place]!.movie_id)),
    { settings: alsDefaults, threads: 2, generatedUsers: 0, onProgress() {} },
  )
  const { user, system } = process.cpuUsage(before)
  return { seconds: (performance.now() - startedAt) / 1_000, cpuSeconds: (user + system) / 1e6 }
}

async function prepare({ sql }: Database, count: number) {
  await applyMigrations(sql, movieSirMigrations)
  await applyMigrations(sql, migrations)
  const films = makeFilms(count)
  const columns = Object.keys(films[0]!).filter((name) => name !== 'providers') as (keyof Film)[]
  const services = [8, 337, 356, 97, 350, 3, 1883]
  await sql`insert into public.ott_providers ${sql(services.map((id) => ({ provider_id: id, provider_name: `service ${id}` })))}`
  const random = createRandom(5)
  for (let at = 0; at < count; at += 500) {
    const batch = films.slice(at, at + 500)
    await sql`insert into public.movies ${sql(batch, ...columns)}`
    const links = batch.flatMap(({ movie_id }) =>
      services
        .filter(() => random() < 0.3)
        .map((provider_id) => ({ movie_id, provider_id, link_url: 'https://films.example/', payment_type: 'rent' })),
    )
    await sql`insert into public.movie_ott_map ${sql(links)}`
  }
  return train(sql, { settings: alsDefaults, threads: 2, generatedUsers: 1_000 })
}

async function startWorker(workshop: Workshop, databaseUrl: string, profile: string | undefined) {
  const flags = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`]
  const environment = { LLM_PROVIDER: 'demo', MOVIESIR_DATABASE_URL: databaseUrl }
  const worker = await startAlone(workshop, environment, flags)
  while (!(await (await fetch(`http://127.0.0.1:${worker.port}/health`)).json()).model_loaded)
    await new Promise((resolve) => setTimeout(resolve, 100))
  return worker
}

/** MovieSir and the gateway in front of it, each a process; a company without a bound that matters. */
async function startMovieSir(workshop: Workshop, sql: Sql, databaseUrl: string, workerPort: number) {
  const port = await freePort()
  const env = {
    MOVIESIR_JWT_SECRET: 'a secret of a bench, which nobody else knows',
    GPU_WORKER_SECRET: 'a secret of a bench, which nobody else knows',
    MOVIESIR_ENGINE: `http://127.0.0.1:${workerPort}`,
    MOVIESIR_DATABASE_URL: databaseUrl,
    API_PORT: String(port),
    DATA_DIRECTORY: workshop.folder,
  }
  const origin = workshop.start([process.execPath, `${root}origin/main.ts`, 'moviesir'], { env })
  await waitForPort(port, origin)
  const [company] = await sql<{ company_id: number }[]>`
    insert into b2b.companies (name, email, email_key, password_hash, plan)
    values ('Bench', 'bench@films.example', 'bench@films.example', 'none', 'ENTERPRISE') returning company_id`
  const key = { company_id: company?.company_id ?? 0, key_name: 'bench', key_hash: hash(apiKey) }
  await sql`insert into b2b.api_keys ${sql(key)}`
  const gatewayPort = await freePort()
  const words = ['serve', `${root}edge/sites/moviesir.ts`, '--http', String(gatewayPort)]
  const gateway = workshop.start([process.execPath, `${root}edge/cli/main.ts`, ...words], {
    env: { MOVIESIR_API: `http://127.0.0.1:${port}` },
    stdout: `${workshop.folder}/access.log`,
  })
  await waitForPort(gatewayPort, gateway)
  return { ...gateway, port: gatewayPort }
}

const hash = (text: string): string => createHash('sha256').update(text).digest('hex')

/** CPU time of the process for each request, beside what the caller saw. */
async function measure({ pid }: Started, load: () => Promise<Measured>) {
  const before = cpuMicroseconds(pid)
  const measured = await load()
  return { ...measured, microseconds: (cpuMicroseconds(pid) - before) / measured.answered }
}

function show({ load, learned, trained, rows }: Result): string {
  const cells = rows.map(({ what, answered, failed, p50, p99, max, microseconds }) => [
    what,
    String(answered),
    String(failed),
    p50.toFixed(2),
    p99.toFixed(2),
    max.toFixed(2),
    String(Math.round(microseconds)),
  ])
  const table = [['', 'answered', 'failed', 'p50 ms', 'p99 ms', 'max ms', 'CPU µs'], ...cells]
  const widths = table[0]!.map((_, column) => Math.max(...table.map((line) => line[column]!.length)))
  const lines = table.map((line) =>
    line.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  '),
  )
  const cpu = /model name\s*: (.*)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown processor'
  return `${cpu}, Node ${process.versions.node}, load ${load?.toFixed(1)}

learning from 100,000 ratings: ${learned.seconds.toFixed(1)} s, ${learned.cpuSeconds.toFixed(1)} s of CPU (goal ${goals.learnSeconds})
learning the served model: ${trained.seconds.toFixed(1)} s

${lines.join('\n')}

goals: in the worker p50 ${goals.p50Ms} ms and p99 ${goals.p99Ms} ms, through the gateway p99 ${goals.endToEndP99Ms} ms
`
}
