import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import type { ApiEnv } from '../../kit/api.ts'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { int32, text } from '../../kit/fields.ts'
import type { Engine } from '../engine.ts'
import { recommendedFilm } from '../engine.ts'
import type { Caller } from './api-keys.ts'
import { findCaller } from './api-keys.ts'
import { keepCall } from './calls.ts'
import { findBlocked } from './content-rules.ts'
import { findShown, keepShown } from './guest-sessions.ts'
import type { Quotas } from './quotas.ts'
import { dailyLimits } from './quotas.ts'

type ExternalDependencies = { sql: Sql; quotas: Quotas; engine: Engine }

/** The API that companies call with a key, under `/v1`: counted, logged, and answered with what is left of the day. */
export function declareExternal(api: OpenAPIHono<ApiEnv>, { sql, quotas, engine }: ExternalDependencies): void {
  api.openapi(healthRoute, (c) => c.json({ status: 'healthy' as const, service: 'external-api', version: 'v1' }, 200))

  api.openapi(recommendRoute, async (c) => {
    const { client_user_id, ...wanted } = c.req.valid('json')
    return answer(c, c.req.valid('header')['x-api-key'], async ({ company_id }) => {
      const { blocked, shown } = await findBarred(company_id, client_user_id)
      const recommend = async (barred: number[]) =>
        engine.recommend({
          ...wanted,
          excluded_ids_a: withBarred(wanted.excluded_ids_a, barred),
          excluded_ids_b: withBarred(wanted.excluded_ids_b, barred),
        })
      const isFilled = (found: Tracks) => found.track_a.movies.length > 0 && found.track_b.movies.length > 0
      const { tier, ...tracks } = await freshIfAny({ blocked, shown, recommend, isFilled })
      const data = {
        track_a: withoutBlocked(tracks.track_a, blocked),
        track_b: withoutBlocked(tracks.track_b, blocked),
        algorithm: 'hybrid' as const,
      }
      const ids = [...data.track_a.movies, ...data.track_b.movies].map(({ movie_id }) => movie_id)
      if (client_user_id) await keepShown(sql, company_id, client_user_id, ids)
      return { data, tier }
    })
  })

  api.openapi(singleRoute, async (c) => {
    const { client_user_id, ...wanted } = c.req.valid('json')
    return answer(c, c.req.valid('header')['x-api-key'], async ({ company_id }) => {
      const { blocked, shown } = await findBarred(company_id, client_user_id)
      const recommend = async (barred: number[]) =>
        engine.recommendSingle({ ...wanted, excluded_ids: withBarred(wanted.excluded_ids, barred) })
      const isFilled = ({ film }: Single) => film !== undefined
      const { film, tier } = await freshIfAny({ blocked, shown, recommend, isFilled })
      const movie = film && !blocked.includes(film.movie_id) ? film : null
      if (client_user_id && movie) await keepShown(sql, company_id, client_user_id, [movie.movie_id])
      return { data: { movie, algorithm: 'hybrid' as const }, tier }
    })
  })

  /** What a company does not want, and what its user has seen already. */
  async function findBarred(companyId: number, clientUserId: string | null | undefined) {
    const [blocked, shown] = await Promise.all([
      findBlocked(sql, companyId),
      clientUserId ? findShown(sql, companyId, clientUserId) : [],
    ])
    return { blocked, shown }
  }

  /** One call: who, whether there is quota, the work, the line in the log. What failed is not counted. */
  async function answer<T>(
    c: Context<ApiEnv>,
    key: string,
    work: (caller: Caller) => Promise<{ data: T; tier: string }>,
  ) {
    const startedAt = performance.now()
    const caller = await findCaller(sql, key)
    if (!caller) throw new OriginError('unauthenticated', invalidKey)
    const limit = dailyLimits[caller.plan]
    const left = await quotas.take(caller.key_id, caller.plan)
    if (left === undefined) {
      await keep(c, caller, startedAt, { status: 429, errorCode: 'RATE_LIMIT_EXCEEDED' })
      throw overQuota(limit, quotas.secondsLeft())
    }
    try {
      const { data, tier } = await work(caller)
      const latency_ms = await keep(c, caller, startedAt, { status: 200 })
      const meta = { latency_ms, remaining_quota: left, daily_limit: limit }
      return c.json({ success: true as const, data, meta }, 200, { 'X-Recommendation-Tier': tier, ...noStore })
    } catch (error) {
      await quotas.giveBack(caller.key_id)
      await keep(c, caller, startedAt, toFailure(error))
      throw error
    }
  }

  async function keep(
    c: Context<ApiEnv>,
    caller: Caller,
    startedAt: number,
    outcome: { status: number; errorCode?: string },
  ): Promise<number> {
    const latencyMs = Math.round((performance.now() - startedAt) * 10) / 10
    const { method, path: endpoint } = c.req
    await keepCall(sql, caller, { requestId: c.get('requestId'), endpoint, method, latencyMs, ...outcome })
    return latencyMs
  }
}

type Tracks = Awaited<ReturnType<Engine['recommend']>>
type Single = Awaited<ReturnType<Engine['recommendSingle']>>

type Fresh<T> = {
  blocked: number[]
  shown: number[]
  recommend: (barred: number[]) => Promise<T>
  isFilled: (found: T) => boolean
}

/** What has not been shown lately; where that leaves nothing, what has. */
async function freshIfAny<T>({ blocked, shown, recommend, isFilled }: Fresh<T>): Promise<T> {
  const fresh = await recommend([...shown, ...blocked])
  return shown.length === 0 || isFilled(fresh) ? fresh : recommend(blocked)
}

// The engine takes so many; the best known of the blocked films are named, and `withoutBlocked` sees to the rest.
const excludedMax = 1_000

function withBarred(excluded: readonly number[], barred: readonly number[]): number[] {
  return [...new Set([...excluded, ...barred])].slice(0, excludedMax)
}

function withoutBlocked({ movies }: Tracks['track_a'], blocked: readonly number[]): Tracks['track_a'] {
  const left = movies.filter(({ movie_id }) => !blocked.includes(movie_id))
  return { movies: left, total_runtime: left.reduce((sum, { runtime }) => sum + runtime, 0) }
}

const tags = ['external']
const noStore = { 'Cache-Control': 'no-store' }
const invalidKey = { code: 'INVALID_API_KEY', message: 'The API key is not known, or switched off' }

function overQuota(limit: number, seconds: number): OriginError {
  const message = `The key has made its ${limit} calls of today`
  const headers = { 'Retry-After': String(seconds) }
  return new OriginError('rate_limited', { code: 'RATE_LIMIT_EXCEEDED', message, limit }, { headers })
}

function toFailure(error: unknown): { status: number; errorCode: string } {
  if (!(error instanceof OriginError)) return { status: 500, errorCode: 'INTERNAL' }
  const { detail, status } = error
  const isCoded = typeof detail === 'object' && !Array.isArray(detail)
  return { status, errorCode: isCoded ? detail.code : error.code.toUpperCase() }
}

const minutes = int32.min(1).max(1_440)
const ids = z.array(int32).max(1_000).default([])
const genres = z
  .array(text({ max: 40 }))
  .max(20)
  .default([])
const otts = z.array(int32).max(50).default([])
const clientUserId = text({ max: 200 }).nullish().openapi({
  description: 'what the caller calls its user: films shown to them in the last seven days come last',
})

const recommendIn = z
  .object({
    user_movie_ids: ids,
    available_time: minutes.default(180).openapi({ description: 'minutes' }),
    preferred_genres: genres,
    preferred_otts: otts,
    allow_adult: z.boolean().default(false),
    excluded_ids_a: ids,
    excluded_ids_b: ids,
    negative_movie_ids: ids,
    client_user_id: clientUserId,
  })
  .openapi('ExternalRecommendRequest')

const singleIn = z
  .object({
    user_movie_ids: ids,
    target_runtime: minutes.openapi({ description: 'minutes' }),
    excluded_ids: ids,
    track: z.enum(['a', 'b']).default('a'),
    preferred_genres: genres,
    preferred_otts: otts,
    allow_adult: z.boolean().default(false),
    negative_movie_ids: ids,
    client_user_id: clientUserId,
  })
  .openapi('ExternalRecommendSingleRequest')

const keyHeader = z.object({ 'x-api-key': z.string().max(200) })
const track = z.object({ movies: z.array(recommendedFilm), total_runtime: z.int() })
const meta = z.object({ latency_ms: z.number(), remaining_quota: z.int(), daily_limit: z.int() })
const codedRefusal = jsonAnswer(
  z
    .object({ detail: z.object({ code: z.string(), message: z.string(), limit: z.int().optional() }) })
    .openapi('CodedRefusal'),
  'The code says why',
)
const refused = { 401: codedRefusal, 422: refusals[422], 429: codedRefusal, 503: codedRefusal, 504: codedRefusal }

const healthRoute = createRoute({
  method: 'get',
  path: '/v1/health',
  tags,
  summary: 'Whether the API is there.',
  responses: {
    200: jsonAnswer(
      z.object({ status: z.literal('healthy'), service: z.string(), version: z.string() }),
      'It is there',
    ),
  },
})

const recommendRoute = createRoute({
  method: 'post',
  path: '/v1/recommend',
  tags,
  summary: 'Two tracks of films that fit the time there is.',
  security: [{ ApiKey: [] }],
  request: { headers: keyHeader, body: jsonBody(recommendIn) },
  responses: {
    200: jsonAnswer(
      z.object({
        success: z.literal(true),
        data: z.object({ track_a: track, track_b: track, algorithm: z.literal('hybrid') }),
        meta,
      }),
      'The tracks',
    ),
    ...refused,
  },
})

const singleRoute = createRoute({
  method: 'post',
  path: '/v1/recommend_single',
  tags,
  summary: 'One film that fits.',
  security: [{ ApiKey: [] }],
  request: { headers: keyHeader, body: jsonBody(singleIn) },
  responses: {
    200: jsonAnswer(
      z.object({
        success: z.literal(true),
        data: z.object({ movie: recommendedFilm.nullable(), algorithm: z.literal('hybrid') }),
        meta,
      }),
      'The film, or null when none fits',
    ),
    ...refused,
  },
})
