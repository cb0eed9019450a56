import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { z } from 'zod'
import type { Sql } from '#origin/kit/database.ts'
import { createWorkerTokenReader } from '#origin/kit/worker-tokens.ts'
import type { Random } from './random.ts'
import type { Shelf } from './recommend.ts'
import { recommend, recommendSingle, toShelf } from './recommend.ts'
import { toReady } from './model.ts'
import { readFilms, readModel } from './store.ts'
import { lexicalVectors } from './text-vectors.ts'

type Log = (entry: Record<string, unknown>) => void

export type Recommender = {
  fetch: (request: Request) => Response | Promise<Response>
  /** Looks for new films and a newer model, and changes over at once. False while there are no films. */
  refresh(): Promise<boolean>
  hasModel(): boolean
}

type RecommenderOptions = {
  sql: Sql
  /** Callers must show a token signed with it (HS256, audience `gpu-worker`); without one anybody may call. */
  secret?: string
  log: Log
  random?: Random
  today?: () => Date
}

const bodyBytesMax = 262_144

/**
 * The engine behind MovieSir: `/recommend`, `/recommend_single` and `/health`. It answers from memory; the database is
 * asked for films and models only, so that it may be away for a while.
 */
export function createRecommender({
  sql,
  secret,
  log,
  random = Math.random,
  today = () => new Date(),
}: RecommenderOptions): Recommender {
  const readToken = secret === undefined ? undefined : createWorkerTokenReader(secret)
  let shelf: Shelf | undefined
  /** The films of the shelf, as they were read. */
  let known = ''
  const app = new Hono()
  app.onError((error, c) => {
    log({ event: 'error', system: 'recommender', error: error.message, stack: error.stack })
    return c.json({ detail: 'Internal Server Error' }, 500)
  })
  app.notFound((c) => c.json({ detail: 'Not Found' }, 404))

  app.get('/', (c) => c.json({ message: 'ok', service: 'ai', version: versionOf(shelf), model: 'lexical+iALS+EASE' }))
  app.get('/health', (c) => {
    const model_loaded = shelf?.model !== undefined
    const status = shelf ? ('healthy' as const) : ('starting' as const)
    return c.json({ status, model_loaded, version: versionOf(shelf), model: 'lexical+iALS+EASE' }, shelf ? 200 : 503)
  })

  app.use(
    '/recommend',
    authenticates,
    bodyLimit({ maxSize: bodyBytesMax, onError: (c) => c.json({ detail: 'The body is too large' }, 413) }),
  )
  app.use(
    '/recommend_single',
    authenticates,
    bodyLimit({ maxSize: bodyBytesMax, onError: (c) => c.json({ detail: 'The body is too large' }, 413) }),
  )

  app.post('/recommend', async (c) => {
    const request = recommendIn.safeParse(await readJson(c.req.raw))
    if (!request.success) return c.json({ detail: z.prettifyError(request.error) }, 422)
    if (!shelf) return c.json({ detail: 'The films are not loaded yet' }, 503, { 'Retry-After': '1' })
    const { tier, ...tracks } = recommend(shelf, request.data, random)
    return c.json(tracks, 200, { 'X-Recommendation-Tier': tier })
  })

  app.post('/recommend_single', async (c) => {
    const request = singleIn.safeParse(await readJson(c.req.raw))
    if (!request.success) return c.json({ detail: z.prettifyError(request.error) }, 422)
    if (!shelf) return c.json({ detail: 'The films are not loaded yet' }, 503, { 'Retry-After': '1' })
    const { film, tier } = recommendSingle(shelf, request.data, random)
    return c.json(film ?? null, 200, { 'X-Recommendation-Tier': tier })
  })

  return { fetch: (request) => app.fetch(request), refresh, hasModel: () => shelf?.model !== undefined }

  async function authenticates(c: Parameters<Parameters<typeof app.use>[1]>[0], next: () => Promise<void>) {
    const token = /^bearer ([^ ]{1,4096})$/i.exec(c.req.header('authorization') ?? '')?.[1]
    const isKnown = !readToken || (token !== undefined && (await readToken(token)) !== undefined)
    if (!isKnown) return c.json({ detail: 'Not authenticated' }, 401)
    return next()
  }

  async function refresh(): Promise<boolean> {
    const films = await readFilms(sql)
    if (films.length === 0) return false
    const newer = await readModel(sql, shelf?.model?.version)
    const content = JSON.stringify(films)
    if (!newer && content === known) return true
    const texts = films.map(
      ({ title, genres, tags, overview }) => `${title} ${genres.join(' ')} ${tags.join(' ')} ${overview}`,
    )
    const vectors = shelf && content === known ? shelf.vectors : lexicalVectors(texts)
    shelf = toShelf(films, vectors, today(), newer ? toReady(newer) : shelf?.model)
    known = content
    if (newer) log({ event: 'model', system: 'recommender', version: newer.version, films: newer.films.length })
    return true
  }
}

function versionOf(shelf: Shelf | undefined): string {
  return shelf?.model ? String(shelf.model.version) : 'none'
}

async function readJson(request: Request): Promise<unknown> {
  return request.json().catch(() => undefined)
}

const ids = z.array(z.int()).max(1_000).default([])
const minutes = z.int().min(1).max(1_440)
const wishes = {
  user_movie_ids: ids,
  preferred_genres: z.array(z.string().max(40)).max(20).default([]),
  preferred_otts: z.array(z.int()).max(50).default([]),
  allow_adult: z.boolean().default(false),
  negative_movie_ids: ids,
}
const recommendIn = z.object({
  ...wishes,
  available_time: minutes.default(180),
  excluded_ids_a: ids,
  excluded_ids_b: ids,
})
const singleIn = z.object({
  ...wishes,
  target_runtime: minutes,
  excluded_ids: ids,
  track: z.enum(['a', 'b']).default('a'),
})
