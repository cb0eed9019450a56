import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { int32, text } from '../../kit/fields.ts'
import type { Engine } from '../engine.ts'
import { engineRefusals, recommendedFilm } from '../engine.ts'
import type { Logins, ViewerEnv } from './logins.ts'

type RecommendDependencies = { sql: Sql; logins: Logins; engine: Engine }

/** Films for the time one has, under `/api/v2/recommend`. */
export function declareRecommend(api: OpenAPIHono<ViewerEnv>, { sql, logins, engine }: RecommendDependencies): void {
  const middleware = logins.signedIn

  api.openapi({ ...recommendRoute, middleware }, async (c) => {
    const { runtime_limit, genres, exclude_adult, excluded_ids } = c.req.valid('json')
    const { user_id } = c.get('viewer')
    const startedAt = performance.now()
    const { track_a, track_b, tier } = await engine.recommend({
      ...(await readTaste(sql, user_id)),
      available_time: runtime_limit,
      preferred_genres: genres,
      allow_adult: !exclude_adult,
      excluded_ids_a: excluded_ids,
      excluded_ids_b: excluded_ids,
    })
    const ids = [...track_a.movies, ...track_b.movies].map(({ movie_id }) => movie_id)
    const [session] = await sql<{ session_id: string }[]>`
      insert into b2c.recommendation_sessions
        (user_id, req_genres, req_runtime_max, req_exclude_adult, tier, recommended_movie_ids)
      values (${user_id}, ${genres}, ${runtime_limit}, ${exclude_adult}, ${tier}, ${ids})
      returning session_id::text`
    const body = {
      track_a: { label: labels.a, ...track_a },
      track_b: { label: labels.b, ...track_b },
      elapsed_time: Math.round(performance.now() - startedAt) / 1_000,
      session_id: session?.session_id ?? null,
    }
    return c.json(body, 200, { 'X-Recommendation-Tier': tier, 'Cache-Control': 'no-store' })
  })

  api.openapi({ ...singleRoute, middleware }, async (c) => {
    const { source_movie_id, target_runtime, track, genres, exclude_adult, ...wanted } = c.req.valid('json')
    const { user_id } = c.get('viewer')
    const excluded_ids = source_movie_id === undefined ? wanted.excluded_ids : [...wanted.excluded_ids, source_movie_id]
    const { film, tier } = await engine.recommendSingle({
      ...(await readTaste(sql, user_id)),
      target_runtime,
      excluded_ids,
      track,
      preferred_genres: genres,
      allow_adult: !exclude_adult,
    })
    if (film && wanted.session_id !== undefined)
      await sql`update b2c.recommendation_sessions
        set recommended_movie_ids = array_append(array_remove(recommended_movie_ids, ${source_movie_id ?? null}), ${film.movie_id})
        where session_id = ${wanted.session_id} and user_id = ${user_id}`
    const message = film ? '재추천 성공' : '조건에 맞는 영화를 찾지 못했습니다'
    const headers = { 'X-Recommendation-Tier': tier, 'Cache-Control': 'no-store' }
    return c.json({ movie: film ?? null, success: film !== undefined, message }, 200, headers)
  })
}

const tags = ['recommend']
const labels = { a: '선호 장르 맞춤 추천', b: '장르 확장 추천' }
const signalsMax = 200

/** What the engine may know of a viewer: films they named or played, films they put away, services they have. */
async function readTaste(sql: Sql, userId: string) {
  const [row] = await sql<{ liked: number[]; disliked: number[]; providers: number[] }[]>`select
    (select coalesce(array_agg(movie_id), '{}') from (
      select movie_id, max(created_at) as at from (
        select movie_id, created_at from b2c.user_onboarding_answers where user_id = ${userId}
        union all select movie_id, created_at from b2c.movie_logs where user_id = ${userId}
      ) signals group by movie_id order by at desc limit ${signalsMax}) latest) as liked,
    (select coalesce(array_agg(distinct movie_id), '{}') from b2c.user_movie_feedback
      where user_id = ${userId} and feedback_type = 'negative') as disliked,
    (select coalesce(array_agg(provider_id), '{}') from b2c.user_ott_map where user_id = ${userId}) as providers`
  const { liked = [], disliked = [], providers = [] } = row ?? {}
  return { user_movie_ids: liked, negative_movie_ids: disliked, preferred_otts: providers }
}

const minutes = int32.min(1).max(1_440)
const genresIn = z
  .array(text({ max: 40 }))
  .max(20)
  .default([])
const idsIn = z.array(int32).max(1_000).default([])

const trackOut = z
  .object({ label: z.string(), movies: z.array(recommendedFilm), total_runtime: z.int() })
  .openapi('Track')

const recommendRoute = createRoute({
  method: 'post',
  path: '/api/v2/recommend',
  tags,
  summary: 'Two tracks of films that fit the time one has.',
  description: 'X-Recommendation-Tier says how much was known: personalised, fold-in, segment or popularity.',
  request: {
    body: jsonBody(
      z
        .object({
          runtime_limit: minutes.default(120).openapi({ description: 'minutes' }),
          genres: genresIn,
          exclude_adult: z.boolean().default(true),
          excluded_ids: idsIn,
        })
        .openapi('RecommendRequest'),
    ),
  },
  responses: {
    200: jsonAnswer(
      z.object({
        track_a: trackOut,
        track_b: trackOut,
        elapsed_time: z.number().nullable().openapi({ description: 'seconds' }),
        session_id: z.string().nullable(),
      }),
      'The tracks',
    ),
    401: refusals[401],
    422: refusals[422],
    ...engineRefusals,
  },
})

const singleRoute = createRoute({
  method: 'post',
  path: '/api/v2/recommend/single',
  tags,
  summary: 'Another film in place of one.',
  request: {
    body: jsonBody(
      z
        .object({
          source_movie_id: int32.optional(),
          target_runtime: minutes,
          excluded_ids: idsIn,
          track: z.enum(['a', 'b']),
          genres: genresIn,
          exclude_adult: z.boolean().default(true),
          session_id: z
            .string()
            .regex(/^\d{1,18}$/, 'Input should be the number of a session')
            .optional(),
        })
        .openapi('RecommendSingleRequest'),
    ),
  },
  responses: {
    200: jsonAnswer(
      z.object({ movie: recommendedFilm.nullable(), success: z.boolean(), message: z.string() }),
      'The film, or none that fits',
    ),
    401: refusals[401],
    422: refusals[422],
    ...engineRefusals,
  },
})
