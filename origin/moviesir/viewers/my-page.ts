import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { instantOut, text } from '../../kit/fields.ts'
import type { Passwords } from '../../kit/passwords.ts'
import { nickname, viewerOut } from './auth.ts'
import { filmColumns, filmOut } from './films.ts'
import type { FilmInfo } from './films.ts'
import type { Logins, ViewerEnv } from './logins.ts'
import { providersIn, replaceProviders } from './onboarding.ts'
import { findViewerLogin, renameViewer } from './users.ts'
import type { Withdrawals } from './withdrawals.ts'

type MyPageDependencies = { sql: Sql; logins: Logins; passwords: Passwords; withdrawals: Withdrawals }

/** What a viewer has watched, been recommended and told us, under `/mypage`. */
export function declareMyPage(api: OpenAPIHono<ViewerEnv>, dependencies: MyPageDependencies): void {
  const { sql, logins, passwords, withdrawals } = dependencies
  const middleware = logins.signedIn

  api.openapi({ ...watchedRoute, middleware }, async (c) => {
    const viewer = c.get('viewer')
    if (!viewer.onboarding_completed) throw new OriginError('not_found', '온보딩을 완료하지 않았습니다')
    const movies = await sql<(FilmInfo & { watched_at: string })[]>`
      select ${sql(filmColumns)}, watched_at from public.movies join (
        select movie_id, max(at) as watched_at from (
          select movie_id, created_at as at from b2c.user_onboarding_answers where user_id = ${viewer.user_id}
          union all
          select movie_id, created_at from b2c.movie_logs where user_id = ${viewer.user_id} and action like 'ott_click:%'
        ) seen group by movie_id
      ) watched using (movie_id) order by watched_at desc, movie_id limit ${listMax}`
    return c.json({ movies: [...movies] }, 200)
  })

  api.openapi({ ...historyRoute, middleware }, async (c) => {
    const sessions = await sql<Session[]>`
      select session_id::text, req_genres as genres, req_runtime_max as runtime_limit, tier, created_at,
        (feedback_details ->> 'is_positive')::boolean as is_positive,
        (select coalesce(jsonb_agg(jsonb_build_object('movie_id', movie_id, 'title', title, 'runtime', runtime)
            order by place), '[]')
          from unnest(recommended_movie_ids) with ordinality as picked (movie_id, place)
          join public.movies using (movie_id)) as movies
      from b2c.recommendation_sessions where user_id = ${c.get('viewer').user_id}
      order by recommendation_sessions.session_id desc limit ${listMax}`
    return c.json({ sessions: [...sessions] }, 200)
  })

  api.openapi({ ...readOttRoute, middleware }, async (c) => {
    const mine = await sql<Provider[]>`
      select ott_providers.provider_id, provider_name, user_id is not null as has
      from public.ott_providers left join b2c.user_ott_map m
        on m.provider_id = ott_providers.provider_id and m.user_id = ${c.get('viewer').user_id}
      order by provider_name`
    const provider_ids = mine.filter(({ has }) => has).map(({ provider_id }) => provider_id)
    const providers = mine.map(({ provider_id, provider_name }) => ({ provider_id, provider_name }))
    return c.json({ provider_ids, providers }, 200)
  })

  api.openapi({ ...writeOttRoute, middleware }, async (c) => {
    const { provider_ids } = c.req.valid('json')
    await replaceProviders(sql, c.get('viewer').user_id, provider_ids)
    return c.json({ provider_ids }, 200)
  })

  api.openapi({ ...nicknameRoute, middleware }, async (c) => {
    const viewer = c.get('viewer')
    const wanted = c.req.valid('json').nickname
    const isRenamed = await renameViewer(sql, viewer.user_id, wanted)
    if (!isRenamed) throw new OriginError('conflict', '이미 사용 중인 닉네임입니다')
    return c.json({ ...viewer, nickname: wanted }, 200)
  })

  api.openapi({ ...accountRoute, middleware }, async (c) => {
    const viewer = c.get('viewer')
    const login = await findViewerLogin(sql, viewer.email)
    const isRight = await passwords.verify(c.req.valid('json').password, login?.password_hash)
    if (!isRight) throw new OriginError('unauthenticated', '비밀번호가 일치하지 않습니다')
    await logins.end(c)
    await withdrawals.withdraw(viewer.user_id)
    return c.json({ message: '탈퇴가 완료되었습니다' }, 200)
  })

  api.openapi({ ...satisfactionRoute, middleware }, async (c) => {
    const { session_id, is_positive } = c.req.valid('json')
    if (!/^\d{1,18}$/.test(session_id)) throw new OriginError('bad_request', '잘못된 세션 번호입니다')
    const { count } = await sql`
      update b2c.recommendation_sessions
      set feedback_details = feedback_details || jsonb_build_object('is_positive', ${is_positive}::boolean)
      where session_id = ${session_id} and user_id = ${c.get('viewer').user_id}`
    if (count === 0) throw new OriginError('not_found', '추천 기록을 찾을 수 없습니다')
    return c.json({ message: '의견을 남겼습니다' }, 200)
  })
}

const tags = ['mypage']
const listMax = 100

const sessionOut = z
  .object({
    session_id: z.string(),
    genres: z.array(z.string()),
    runtime_limit: z.int(),
    tier: z.string(),
    is_positive: z.boolean().nullable(),
    movies: z.array(z.object({ movie_id: z.int(), title: z.string(), runtime: z.int() })),
    created_at: instantOut,
  })
  .openapi('RecommendationSession')

type Session = z.infer<typeof sessionOut>

const providerOut = z.object({ provider_id: z.int(), provider_name: z.string() })
type Provider = z.infer<typeof providerOut> & { has: boolean }

const messageOut = z.object({ message: z.string() })

const watchedRoute = createRoute({
  method: 'get',
  path: '/mypage/watched',
  tags,
  summary: 'Films one has named or played, latest first.',
  responses: {
    200: jsonAnswer(z.object({ movies: z.array(filmOut.extend({ watched_at: instantOut })) }), 'The films'),
    401: refusals[401],
    404: refusals[404],
  },
})

const historyRoute = createRoute({
  method: 'get',
  path: '/mypage/history',
  tags,
  summary: 'What was recommended, latest first.',
  responses: { 200: jsonAnswer(z.object({ sessions: z.array(sessionOut) }), 'The sessions'), 401: refusals[401] },
})

const readOttRoute = createRoute({
  method: 'get',
  path: '/mypage/ott',
  tags,
  summary: 'The services one has, and those there are.',
  responses: {
    200: jsonAnswer(z.object({ provider_ids: z.array(z.int()), providers: z.array(providerOut) }), 'The services'),
    401: refusals[401],
  },
})

const writeOttRoute = createRoute({
  method: 'put',
  path: '/mypage/ott',
  tags,
  summary: 'The services one has from now on.',
  request: { body: jsonBody(providersIn) },
  responses: { 200: jsonAnswer(providersIn, 'Kept'), 401: refusals[401], 422: refusals[422] },
})

const nicknameRoute = createRoute({
  method: 'put',
  path: '/mypage/nickname',
  tags,
  summary: 'Another nickname.',
  request: { body: jsonBody(z.object({ nickname: nickname({ min: 2, max: 16 }) })) },
  responses: {
    200: jsonAnswer(viewerOut, 'Changed'),
    401: refusals[401],
    409: refusals[409],
    422: refusals[422],
  },
})

const accountRoute = createRoute({
  method: 'delete',
  path: '/mypage/account',
  tags,
  summary: 'Delete the account and every row about it.',
  description: 'For 30 days a keyed hash of the address and the hash of the password remain, to say so at a login.',
  request: { body: jsonBody(z.object({ password: text({ max: 1_024 }) })) },
  responses: { 200: jsonAnswer(messageOut, 'Deleted'), 401: refusals[401], 422: refusals[422] },
})

const satisfactionRoute = createRoute({
  method: 'post',
  path: '/mypage/satisfaction',
  tags,
  summary: 'Whether a recommendation was any good.',
  request: { body: jsonBody(z.object({ session_id: z.string().max(40), is_positive: z.boolean() })) },
  responses: {
    200: jsonAnswer(messageOut, 'Kept'),
    400: { ...refusals[404], description: 'That is not the number of a session' },
    401: refusals[401],
    404: refusals[404],
    422: refusals[422],
  },
})
