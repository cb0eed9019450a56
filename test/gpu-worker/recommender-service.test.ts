import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Database } from '#origin/kit/database.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import { issueWorkerToken } from '#origin/kit/worker-tokens.ts'
import { seedCatalogue } from '#origin/moviesir/catalogue/seed.ts'
import { createEngine } from '#origin/moviesir/engine.ts'
import { migrations as movieSirMigrations } from '#origin/moviesir/start.ts'
import { readGpuWorkerConfig } from '../../gpu-worker/config.ts'
import { alsDefaults } from '../../gpu-worker/recommender/als.ts'
import type { Film } from '../../gpu-worker/recommender/film.ts'
import { createRecommender } from '../../gpu-worker/recommender/service.ts'
import { addModel, readModel } from '../../gpu-worker/recommender/store.ts'
import { lexicalVectors, toFilmText } from '../../gpu-worker/recommender/text-vectors.ts'
import { startGpuWorker } from '../../gpu-worker/start.ts'
import type { RunningEngine } from '../origin/engines.ts'
import { engines } from '../origin/engines.ts'
import { startTestWorker } from './worker.ts'

const secret = 'c1b2c3d4e5f60718293a4b5c6d7e8f90'
const issue = (key: string) => issueWorkerToken(key, { tenant: 'test' })
const settings = { ...alsDefaults, dimension: 16, epochs: 2 }

for (const { name, missing, open } of engines) {
  describe.skipIf(missing)(`the recommender on ${name}`, () => {
    let running: RunningEngine
    let database: Database
    let service: Awaited<ReturnType<typeof startGpuWorker>>
    const logged: Record<string, unknown>[] = []
    const vectors = () => logged.filter(({ event }) => event === 'vectors')
    /** Where films are searched. */
    let place: 'the database' | 'memory'

    const start = () =>
      startGpuWorker({
        config: readGpuWorkerConfig({
          GPU_WORKER_SECRET: secret,
          GPU_WORKER_PORT: '0',
          LLM_PROVIDER: 'demo',
          MOVIESIR_DATABASE_URL: running.url,
        }),
        embedded: running.embedded,
        log: (entry) => logged.push(entry),
        training: { settings, generatedUsers: 60, afterMs: 0 },
      })

    beforeAll(async () => {
      running = await open()
      database = running.connect()
      const [vector] = await database.sql`select 1 from pg_available_extensions where name = 'vector'`
      place = vector ? 'the database' : 'memory'
      service = await start()
    }, 60_000)
    afterAll(async () => {
      await service.stop()
      await database.close()
      await running.close()
    })

    const ask = async (path: string, body?: unknown, token?: string) => {
      const authorization = `Bearer ${token ?? (await issue(secret))}`
      const answer = await fetch(service.url + path, {
        method: body === undefined ? 'GET' : 'POST',
        headers: { 'content-type': 'application/json', ...(token === '' ? {} : { authorization }) },
        body: body === undefined ? undefined : JSON.stringify(body),
      })
      return { status: answer.status, tier: answer.headers.get('x-recommendation-tier'), body: await answer.json() }
    }

    it('answers 503 while there are no films, then finds them and learns by itself', async () => {
      expect(await ask('/health')).toMatchObject({ status: 200, body: { model_loaded: false, version: 'none' } })
      expect(await ask('/ready')).toMatchObject({ status: 200 })
      expect(await ask('/recommend', {})).toMatchObject({
        status: 503,
        body: { error: { code: 'recommender_unavailable' } },
      })
      await applyMigrations(database.sql, movieSirMigrations)
      await seedCatalogue(database.sql)
      await expect
        .poll(() => ask('/health'), { timeout: 20_000 })
        .toMatchObject({
          status: 200,
          body: { status: 'healthy', model_loaded: true, version: '1', model: expect.stringContaining('iALS') },
        })
    }, 60_000)

    it('recommends to callers with a token', async () => {
      const { status, body, tier } = await ask('/recommend', { user_movie_ids: [2292], available_time: 200 })
      expect([status, tier]).toEqual([200, 'fold-in'])
      expect(body.track_a.total_runtime).toBeGreaterThanOrEqual(180)
      expect(body.track_a.movies[0]).toMatchObject({ recommendation_type: 'hybrid', title: expect.any(String) })
      expect((await ask('/recommend_single', { target_runtime: 100 })).body.runtime).toBeLessThanOrEqual(100)
      expect((await ask('/recommend_single', { target_runtime: 5 })).body).toBeNull()
    })

    it('is what MovieSir asks', async () => {
      const engine = createEngine({ url: service.url, secret })
      const wishes = { preferred_genres: [], preferred_otts: [], allow_adult: false, negative_movie_ids: [] }
      const { tier, track_a } = await engine.recommend({
        ...wishes,
        user_movie_ids: [],
        available_time: 150,
        excluded_ids_a: [],
        excluded_ids_b: [],
      })
      expect(tier).toBe('popularity')
      expect(track_a.movies.length).toBeGreaterThan(0)
      const single = await engine.recommendSingle({
        ...wishes,
        user_movie_ids: [],
        target_runtime: 100,
        excluded_ids: [],
        track: 'b',
      })
      expect(single.film?.runtime).toBeLessThanOrEqual(100)
      const similar = await engine.findSimilar({ film_id: 2292, limit: 3, filter: { allow_adult: false } })
      expect(similar).toHaveLength(3)
    })

    it('finds films that are like a film or a text, as far as the filter lets them through', async () => {
      await expect.poll(vectors, { timeout: 20_000 }).toMatchObject([{ model: 'lexical', in: place }])
      const like = await ask('/v1/similar', { film_id: 2292, limit: 5 })
      expect([like.status, like.body.model, like.body.films.length]).toEqual([200, 'lexical', 5])
      expect(like.body.films.map(({ movie_id }: { movie_id: number }) => movie_id)).not.toContain(2292)
      const { title } = like.body.films[0]
      const filter = { year_min: 1995, year_max: 2005, runtime_max: 110, genres: ['Comedy'] }
      const byText = await ask('/v1/similar', { text: title, filter })
      expect(byText.body.films).toHaveLength(10)
      for (const film of byText.body.films) {
        expect(film).toMatchObject({ genres: expect.arrayContaining(['Comedy']), likeness: expect.any(Number) })
        expect(film.runtime).toBeLessThanOrEqual(110)
        expect(film.release_date).toMatch(/^(199[5-9]|200[0-5])/)
      }
      expect((await ask('/v1/similar', { text: title, limit: 1 })).body.films[0].title).toBe(title)
    }, 30_000)

    it('says what is wrong with what it is asked for', async () => {
      for (const [body, param] of [
        [{}, null],
        [{ text: 'x', film_id: 1 }, null],
        [{ text: ' ' }, 'text'],
        [{ film_id: 1, limit: 101 }, 'limit'],
        [{ film_id: 1, filter: { years: [2000] } }, 'filter'],
        [{ film_id: 1, filter: { genres: [] } }, 'filter.genres'],
      ] as const)
        expect(await ask('/v1/similar', body)).toMatchObject({
          status: 400,
          body: { error: { code: 'invalid_request', param } },
        })
      expect(await ask('/v1/similar', { film_id: 999_999 })).toMatchObject({
        status: 404,
        body: { error: { code: 'not_found', param: 'film_id', message: 'There is no film 999999' } },
      })
      expect((await ask('/v1/similar', { film_id: 1 }, '')).status).toBe(401)
    })

    it('says once, in words, that a server has no pgvector', () => {
      const said = logged.filter(({ event }) => event === 'no pgvector')
      if (place === 'the database') return expect(said).toEqual([])
      expect(said).toHaveLength(1)
      expect(said[0]?.['message']).toMatch(/^films are searched in memory: pgvector is not on this PostgreSQL server/)
    })

    it('refuses callers without a good token, and bodies that are wrong', async () => {
      expect((await ask('/recommend', {}, '')).status).toBe(401)
      expect((await ask('/recommend', {}, await issue('x'.repeat(32)))).status).toBe(401)
      expect(await ask('/recommend', { available_time: 0 })).toMatchObject({
        status: 400,
        body: { error: { code: 'invalid_request', param: 'available_time' } },
      })
      expect((await ask('/recommend', { user_movie_ids: Array.from({ length: 1_001 }, () => 1) })).status).toBe(400)
      expect((await ask('/recommend', { note: 'x'.repeat(300_000) })).status).toBe(413)
    })

    it('counts and logs what it recommended beside what it relayed', async () => {
      const text = await (await fetch(`${service.url}/metrics`)).text()
      expect(text).toMatch(/^recommender_request_duration_seconds_count\{kind="recommend",tier="fold-in"\} 1$/m)
      expect(text).toMatch(/^recommender_model_version 1$/m)
      expect(text).toContain('worker_waiting_requests{provider="demo"}')
      expect(logged.filter(({ event }) => event === 'request')[0]).toMatchObject({
        tenant: 'test',
        kind: 'recommend',
        tier: 'fold-in',
      })
    })

    it('reads the films again only when one has changed', async () => {
      const { sql } = database
      const asked: string[] = []
      const texts = {
        of(films: readonly Film[], content: string) {
          asked.push(content)
          return { model: 'lexical', vectors: lexicalVectors(films.map(toFilmText)) }
        },
      }
      const alone = createRecommender({ sql, vectors: texts, log() {} })
      for (const change of ['select', "update public.movies set title = 'Another' where movie_id = 2292"]) {
        await sql.unsafe(change)
        await alone.refresh()
        await alone.refresh()
      }
      expect(asked.map((content) => asked.indexOf(content))).toEqual([0, 0, 2, 2])
      const { text } = alone.recommend(Buffer.from('{"available_time":1440}'))
      expect(JSON.parse(text).track_a.movies.length).toBeGreaterThan(0)
      expect(alone.state().films).toBe(1_141)
    })

    it('serves the newest model after a restart, and keeps three', async () => {
      const model = (await readModel(database.sql))!
      for (let more = 0; more < 3; more += 1) await addModel(database.sql, model, 1)
      await service.stop()
      service = await start()
      await expect.poll(() => ask('/health'), { timeout: 20_000 }).toMatchObject({ body: { version: '4' } })
      const kept = await database.sql`select version from recommender.models`
      expect(kept).toHaveLength(3)
      expect(logged.filter(({ event }) => event === 'training failed')).toEqual([])
    }, 60_000)

    it('recommends from memory when the database is gone, and says that it is not ready', async () => {
      await expect.poll(vectors, { timeout: 20_000 }).toHaveLength(2)
      await database.close()
      await running.close()
      expect(await ask('/ready')).toMatchObject({ status: 503, body: { reasons: ['the database does not answer'] } })
      expect(await ask('/health')).toMatchObject({ status: 200 })
      expect(await ask('/recommend', {})).toMatchObject({ status: 200 })
      const asked = await ask('/v1/similar', { film_id: 2292 })
      expect(asked).toMatchObject(
        place === 'memory' ? { status: 200 } : { status: 503, body: { error: { code: 'upstream_unavailable' } } },
      )
    })
  })
}

describe('a worker without a database', () => {
  it('relays, and says why it recommends nothing', async () => {
    const worker = await startTestWorker({ LLM_PROVIDER: 'demo' })
    const { status, body } = await worker.ask('/recommend', {})
    expect([status, body.error.code, body.error.message]).toEqual([
      404,
      'not_found',
      expect.stringContaining('MOVIESIR_DATABASE_URL'),
    ])
    const health = await (await fetch(`${worker.url}/health`)).json()
    expect(health).toEqual({ status: 'healthy', model_loaded: false, version: 'none', model: 'none' })
    await worker.stop()
  })

  it('whose server cannot be reached relays all the same, and is not ready', async () => {
    const worker = await startTestWorker({ LLM_PROVIDER: 'demo', MOVIESIR_DATABASE_URL: 'postgresql://127.0.0.1:1/x' })
    expect((await worker.ask('/v1/completions', { model: 'demo', prompt: 'once' })).status).toBe(200)
    expect((await worker.ask('/recommend', {})).body.error.code).toBe('recommender_unavailable')
    expect((await fetch(`${worker.url}/ready`)).status).toBe(503)
    expect(worker.entries.filter(({ event }) => event === 'refresh failed')).toHaveLength(1)
    await worker.stop()
  })
})
