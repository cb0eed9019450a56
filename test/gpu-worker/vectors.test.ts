import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Database } from '#origin/kit/database.ts'
import type { Film } from '#gpu-worker/recommender/film.ts'
import { createRandom, normal } from '#gpu-worker/recommender/random.ts'
import type { FilmTable, Question, VectorFilm } from '#gpu-worker/vectors/film-table.ts'
import { openFilmTable, preparePgvector } from '#gpu-worker/vectors/film-table.ts'
import type { FilmFilter } from '#gpu-worker/vectors/plan.ts'
import { choosePlan, estimateShare, toHistogram, yearOf } from '#gpu-worker/vectors/plan.ts'
import { limits } from '#gpu-worker/limits.ts'
import { readGpuWorkerConfig } from '#gpu-worker/config.ts'
import { startGpuWorker } from '#gpu-worker/start.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import { issueWorkerToken } from '#origin/kit/worker-tokens.ts'
import { migrations as movieSirMigrations } from '#origin/moviesir/start.ts'
import type { VllmDouble } from '../support/vllm/double.ts'
import { startVllmDouble } from '../support/vllm/double.ts'
import type { RunningEngine } from '../origin/engines.ts'
import { engines } from '../origin/engines.ts'

const dimension = 12
const genres = ['Action', 'Comedy', 'Drama', 'Horror', 'Romance']
const random = createRandom(5)
const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T

function toVector(): Float32Array {
  const vector = Float32Array.from({ length: dimension }, () => normal(random))
  const length = Math.hypot(...vector)
  return vector.map((value) => value / length)
}

const films: VectorFilm[] = Array.from({ length: 400 }, (_, index) => ({
  movie_id: index + 1,
  release_date: `${1990 + Math.floor(random() * 35)}-06-01`,
  runtime: 80 + Math.floor(random() * 80),
  adult: random() < 0.1,
  genres: [...new Set([pick(genres), pick(genres)])],
  providers: [1 + Math.floor(random() * 4)],
  textKey: String(index).padStart(64, '0'),
  vector: toVector(),
}))

const fits = (film: VectorFilm, filter: FilmFilter): boolean =>
  (filter.allow_adult === true || !film.adult) &&
  yearOf(film) >= (filter.year_min ?? 0) &&
  yearOf(film) <= (filter.year_max ?? 9_999) &&
  film.runtime >= (filter.runtime_min ?? 0) &&
  film.runtime <= (filter.runtime_max ?? 9_999) &&
  (filter.genres === undefined || filter.genres.some((genre) => film.genres.includes(genre))) &&
  (filter.otts === undefined || filter.otts.some((provider) => film.providers.includes(provider)))

const filters: FilmFilter[] = [
  {},
  { allow_adult: true },
  { year_min: 2000, year_max: 2009 },
  { runtime_min: 100, runtime_max: 110, allow_adult: true },
  { genres: ['Horror', 'Drama'] },
  { otts: [2], genres: ['Comedy'] },
  { year_min: 2010, runtime_max: 120, genres: ['Action'], otts: [1, 3] },
  { genres: [] },
  { genres: ["'; drop table film_vectors.models; --"] },
]

describe('how the nearest are looked for', () => {
  const situation = { films: 1_000_000, share: 1, count: 10, hasIndex: true }
  it.each([
    ['few films are compared one by one', { films: 90_000 }, 'exact', 90_000],
    ['so are many without an index', { hasIndex: false }, 'exact', 1_000_000],
    ['so are those that a narrow filter leaves', { share: 0.01 }, 'exact', 10_000],
    ['so is what fits of a hundred thousand', { films: 100_000, share: 0.1 }, 'exact', 10_000],
    ['the index is walked where nothing is left out', {}, 'hnsw', 100],
    ['and where a tenth is left in, tenfold', { share: 0.1, count: 50 }, 'hnsw', 500],
    ['unless it would give up before enough fit', { films: 50_000_000, share: 0.001, count: 50 }, 'exact', 50_000],
    ['a filter that leaves nothing touches nothing', { share: 0 }, 'exact', 0],
  ] as const)('%s', (_, other, kind, rows) => {
    expect(choosePlan({ ...situation, ...other }, limits)).toEqual({ kind, rows })
  })

  it.each(filters)('the share that %j leaves is told from histograms', (filter) => {
    const share = films.filter((film) => fits(film, filter)).length / films.length
    expect(Math.abs(estimateShare(toHistogram(films), filter) - share)).toBeLessThan(0.1)
  })

  it('of no films nothing is left', () => {
    expect(estimateShare(toHistogram([] as Film[]), {})).toBe(0)
  })
})

/** By hand, in double precision. */
function findNearest(of: Float32Array, filter: FilmFilter, count: number, except?: number): number[] {
  return films
    .filter((film) => fits(film, filter) && film.movie_id !== except)
    .map(({ movie_id, vector }) => ({ movie_id, likeness: vector.reduce((sum, value, i) => sum + value * of[i]!, 0) }))
    .sort((a, b) => b.likeness - a.likeness)
    .slice(0, count)
    .map(({ movie_id }) => movie_id)
}

const question = (other: Partial<Question>): Question => ({
  of: films[0]!.vector,
  filter: {},
  count: 10,
  plan: 'exact',
  withinMs: 10_000,
  ...other,
})

let running: RunningEngine
let database: Database
beforeAll(async () => {
  running = await engines[0]!.open()
  database = running.connect()
}, 60_000)
afterAll(async () => {
  await database.close()
  await running.close()
})

describe('vectors on the embedded database', () => {
  let table: FilmTable
  beforeAll(async () => {
    expect(await preparePgvector(database.sql)).toEqual({ version: expect.stringMatching(/^0\.\d+/) })
    table = await openFilmTable(database.sql, { model: 'a', dimension, bounds: limits })
    await table.write(films)
  })

  it('writes what differs and removes what is gone', async () => {
    const [first, second, ...rest] = films as [VectorFilm, VectorFilm, ...VectorFilm[]]
    expect(await table.write(films)).toEqual({ written: 0, removed: 0 })
    const changed = [
      { ...first, runtime: 500 },
      { ...rest[0]!, textKey: 'ff'.repeat(32), vector: second.vector },
    ]
    expect(await table.write([...changed, ...rest.slice(1)])).toEqual({ written: 2, removed: 1 })
    expect(await table.nearest(question({ of: first.vector, filter: { runtime_min: 500 } }))).toMatchObject([
      { movie_id: 1 },
    ])
    expect(await table.write(films)).toEqual({ written: 3, removed: 0 })
  })

  it('has no index until one is built, and builds it once', async () => {
    expect(await table.hasIndex()).toBe(false)
    expect(await table.buildIndex()).toBe(true)
    expect(await table.hasIndex()).toBe(true)
    expect(await table.buildIndex()).toBe(true)
  }, 60_000)

  it('walks the index when told to, and never when not', async () => {
    for (const filter of [{ allow_adult: true }, ...filters]) {
      expect((await table.explain(question({ filter, plan: 'hnsw' }))).join('\n')).toMatch(
        /Index Scan using films_\d+_nearest/,
      )
      expect((await table.explain(question({ filter, plan: 'exact' }))).join('\n')).not.toContain('nearest')
    }
  })

  it.each(filters)('both statements find the same films under %j, and no other', async (filter) => {
    const of = toVector()
    const [exact, walked] = await Promise.all(
      (['exact', 'hnsw'] as const).map((plan) => table.nearest(question({ of, filter, plan }))),
    )
    expect(exact!.map(({ movie_id }) => movie_id)).toEqual(findNearest(of, filter, 10))
    expect(walked).toEqual(exact)
  })

  it('finds what is like a film, without the film itself', async () => {
    const { movie_id, vector } = films[7]!
    for (const plan of ['exact', 'hnsw'] as const)
      expect((await table.nearest(question({ of: movie_id, plan })))!.map((near) => near.movie_id)).toEqual(
        findNearest(vector, {}, 10, movie_id),
      )
    expect(await table.nearest(question({ of: 9_999 }))).toBeUndefined()
  })

  it('leaves no setting behind', async () => {
    await table.nearest(question({ plan: 'hnsw' }))
    const [row] = await database.sql`select current_setting('enable_sort') as sort,
      current_setting('hnsw.iterative_scan') as scan, current_setting('maintenance_work_mem') as memory`
    expect(row).toEqual({ sort: 'on', scan: 'off', memory: expect.stringMatching(/^\d+MB$/) })
  })

  it('keeps the films of another model, or of another length, apart', async () => {
    const other = await openFilmTable(database.sql, { model: 'b', dimension, bounds: limits })
    expect(await other.nearest(question({}))).toEqual([])
    await other.write(films.slice(0, 3))
    expect(await other.nearest(question({ filter: { allow_adult: true } }))).toHaveLength(3)
    expect(await table.nearest(question({}))).toHaveLength(10)
    const longer = await openFilmTable(database.sql, { model: 'a', dimension: 20, bounds: limits })
    expect(await longer.hasIndex()).toBe(false)
    const again = await openFilmTable(database.sql, { model: 'a', dimension, bounds: limits })
    expect(await again.hasIndex()).toBe(true)
  })
})

const [, server] = engines
describe.skipIf(server!.missing)(`vectors on ${server!.name}`, () => {
  it('are searched with pgvector, or it is said how to get it', async () => {
    const other = await server!.open()
    const { sql, close } = other.connect()
    try {
      const prepared = await preparePgvector(sql)
      if ('missing' in prepared) {
        console.log(`searches on a PostgreSQL server are not tested here: ${prepared.missing}`)
        return expect(prepared.missing).toMatch(/^pgvector is not on this PostgreSQL server; install it/)
      }
      const table = await openFilmTable(sql, { model: 'a', dimension, bounds: limits })
      await table.write(films)
      expect(await table.buildIndex()).toBe(true)
      const of = toVector()
      for (const filter of filters) {
        const exact = await table.nearest(question({ of, filter }))
        expect(exact!.map(({ movie_id }) => movie_id)).toEqual(findNearest(of, filter, 10))
        expect(await table.nearest(question({ of, filter, plan: 'hnsw' }))).toEqual(exact)
        expect((await table.explain(question({ of, filter, plan: 'hnsw' }))).join('\n')).toContain('_nearest')
      }
    } finally {
      await close()
      await other.close()
    }
  }, 60_000)
})

describe('a worker with a model for texts', () => {
  const secret = 'c1b2c3d4e5f60718293a4b5c6d7e8f90'
  const catalogue = 150
  /** What was asked for but to see whether it is there. */
  const batchesOf = ({ embedded }: VllmDouble) => embedded.filter(([text]) => text !== '1, 2, 3')
  let double: VllmDouble
  let service: Awaited<ReturnType<typeof startGpuWorker>>
  const logged: Record<string, unknown>[] = []
  const eventsOf = (name: string) => logged.filter(({ event }) => event === name)

  const start = () =>
    startGpuWorker({
      config: readGpuWorkerConfig({
        GPU_WORKER_SECRET: secret,
        GPU_WORKER_PORT: '0',
        LLM_PROVIDER: 'demo',
        GPU_WORKER_EMBEDDING_URL: double.url,
        GPU_WORKER_EMBEDDING_MODEL: 'bge-m3',
      }),
      embedded: running.embedded,
      log: (entry) => logged.push(entry),
      limits: { probeMs: 50 },
      training: { afterMs: 3_600_000 },
    })

  beforeAll(async () => {
    double = await startVllmDouble({ model: 'bge-m3', tasks: 'embed', vectorLength: 160, vectorFailures: 2 })
    await applyMigrations(database.sql, movieSirMigrations)
    await database.sql`
      insert into public.movies
        (movie_id, title, runtime, genres, tags, release_date, vote_average, vote_count, overview)
      select n, 'Film ' || n, 90, '{Drama,Comedy}', '{quiet}', '2001-06-01', 7, 100, 'word' || n || ' word' || n % 7
      from generate_series(1, ${catalogue}::int) n`
    service = await start()
  }, 60_000)
  afterAll(async () => {
    await service.stop()
    await double.kill()
  })

  async function ask(path: string, body?: unknown) {
    const authorization = `Bearer ${await issueWorkerToken(secret, { tenant: 'test' })}`
    const answer = await fetch(service.url + path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json', authorization },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    return { status: answer.status, body: await answer.json() }
  }

  it('embeds each film once, in batches, through the worker’s own line', async () => {
    await expect
      .poll(() => ask('/health'), { timeout: 30_000 })
      .toMatchObject({
        body: { model: 'bge-m3+iALS+EASE' },
      })
    const batches = batchesOf(double)
    expect(batches.map(({ length }) => length)).toEqual([32, 32, 32, 32, 22])
    expect(batches[0]![0]).toBe('Film 1 (2001). Drama, Comedy. quiet. word1 word1')
    expect(eventsOf('request').filter(({ kind }) => kind === 'embeddings')[0]).toMatchObject({
      tenant: 'recommender',
      band: 'batch',
    })
    expect(eventsOf('embedding').at(-1)).toMatchObject({ model: 'bge-m3', done: catalogue, of: catalogue })
    expect(eventsOf('vectors')).toMatchObject([{ model: 'bge-m3', dimension: 160, in: 'the database' }])
  }, 40_000)

  it('finds films by a text that the model embeds for its caller', async () => {
    const { status, body } = await ask('/v1/similar', {
      text: 'Film 40 2001 drama comedy quiet word40 word5',
      limit: 3,
    })
    expect([status, body.model, body.films.length]).toEqual([200, 'bge-m3', 3])
    expect(body.films[0]).toMatchObject({ movie_id: 40, title: 'Film 40' })
    expect(batchesOf(double).at(-1)).toHaveLength(1)
    const asked = eventsOf('request').filter(({ kind, tenant }) => kind === 'embeddings' && tenant === 'test')
    expect(asked).toHaveLength(1)
  })

  it('embeds after a restart only what has changed', async () => {
    await service.stop()
    double.embedded.length = 0
    logged.length = 0
    await database.sql`update public.movies set overview = 'another' where movie_id = 7`
    service = await start()
    await expect.poll(() => eventsOf('vectors').length, { timeout: 20_000 }).toBe(1)
    expect(batchesOf(double)).toEqual([['Film 7 (2001). Drama, Comedy. quiet. another']])
    const [kept] = await database.sql`select count(*)::int as texts from vectors.texts where model = 'bge-m3'`
    expect(kept).toEqual({ texts: catalogue + 1 })
  }, 30_000)

  it('finds what is like a film while the model is away, and says so of a text', async () => {
    await double.terminate()
    expect((await ask('/v1/similar', { film_id: 7 })).body.films).toHaveLength(10)
    expect(await ask('/v1/similar', { text: 'anything' })).toMatchObject({ status: expect.toBeOneOf([502, 503]) })
  })
})
