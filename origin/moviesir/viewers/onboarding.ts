import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { int32 } from '../../kit/fields.ts'
import { filmColumns, filmOut } from './films.ts'
import type { FilmInfo } from './films.ts'
import type { Logins, ViewerEnv } from './logins.ts'
import { completeOnboarding } from './users.ts'

/** What a new viewer is asked, under `/onboarding`: which services, which films. */
export function declareOnboarding(api: OpenAPIHono<ViewerEnv>, { sql, logins }: { sql: Sql; logins: Logins }): void {
  const middleware = logins.signedIn

  api.openapi({ ...ottRoute, middleware }, async (c) => {
    const { provider_ids } = c.req.valid('json')
    await replaceProviders(sql, c.get('viewer').user_id, provider_ids)
    return c.json({ provider_ids }, 200)
  })

  api.openapi(surveyFilmsRoute, async (c) => {
    const films = await sql<(FilmInfo & { mood_tag: string })[]>`
      select distinct on (mood_tag) mood_tag, ${sql(filmColumns)}
      from b2c.onboarding_candidates join public.movies using (movie_id)
      order by mood_tag, random()`
    return c.json({ movies: [...films] }, 200, { 'Cache-Control': 'no-store' })
  })

  api.openapi({ ...surveyRoute, middleware }, async (c) => {
    const movie_ids = [...new Set(c.req.valid('json').movie_ids)]
    const { user_id } = c.get('viewer')
    await sql.begin(async (tx) => {
      const known = await tx`select from public.movies where movie_id = any(${movie_ids})`
      if (known.length !== movie_ids.length) throw unknownFilms()
      await tx`delete from b2c.user_onboarding_answers where user_id = ${user_id} and movie_id <> all(${movie_ids})`
      await tx`insert into b2c.user_onboarding_answers (user_id, movie_id)
        select ${user_id}, unnest(${movie_ids}::int[]) on conflict do nothing`
    })
    await completeOnboarding(sql, user_id)
    return c.json({ movie_ids }, 200)
  })

  for (const route of [completeRoute, skipRoute]) {
    api.openapi({ ...route, middleware }, async (c) => {
      const { user_id } = c.get('viewer')
      await completeOnboarding(sql, user_id)
      return c.json({ user_id, onboarding_completed: true }, 200)
    })
  }
}

/** The services a viewer has, in place of those they had. Throws `invalid` for one that is not known. */
export async function replaceProviders(sql: Sql, userId: string, providerIds: readonly number[]): Promise<void> {
  const ids = [...new Set(providerIds)]
  await sql.begin(async (tx) => {
    const known = await tx`select from public.ott_providers where provider_id = any(${ids})`
    if (known.length !== ids.length) throw unknownProviders()
    await tx`delete from b2c.user_ott_map where user_id = ${userId}`
    await tx`insert into b2c.user_ott_map (user_id, provider_id) select ${userId}, unnest(${ids}::int[])`
  })
}

const tags = ['onboarding']

/** The services a viewer names. */
export const providersIn = z.object({ provider_ids: z.array(int32).max(50) }).openapi('Providers')

const surveyIn = z.object({ movie_ids: z.array(int32).min(1).max(100) }).openapi('Survey')
const doneOut = z.object({ user_id: z.string(), onboarding_completed: z.boolean() })

const ottRoute = createRoute({
  method: 'post',
  path: '/onboarding/ott',
  tags,
  summary: 'Which services one has.',
  request: { body: jsonBody(providersIn) },
  responses: { 200: jsonAnswer(providersIn, 'Kept'), 401: refusals[401], 422: refusals[422] },
})

const surveyFilmsRoute = createRoute({
  method: 'get',
  path: '/onboarding/survey/movies',
  tags,
  summary: 'A film of each of ten moods, to pick from; others each time.',
  responses: {
    200: jsonAnswer(z.object({ movies: z.array(filmOut.extend({ mood_tag: z.string() })) }), 'The films'),
  },
})

const surveyRoute = createRoute({
  method: 'post',
  path: '/onboarding/survey',
  tags,
  summary: 'Which films one likes. Asked again, the new answer counts.',
  request: { body: jsonBody(surveyIn) },
  responses: { 200: jsonAnswer(surveyIn, 'Kept'), 401: refusals[401], 422: refusals[422] },
})

const completeRoute = createRoute({
  method: 'post',
  path: '/onboarding/complete',
  tags,
  summary: 'Done with the questions.',
  responses: { 200: jsonAnswer(doneOut, 'Done'), 401: refusals[401] },
})

const skipRoute = createRoute({
  method: 'post',
  path: '/onboarding/skip',
  tags,
  summary: 'No questions, please.',
  responses: { 200: jsonAnswer(doneOut, 'Done'), 401: refusals[401] },
})

function unknownFilms(): OriginError {
  const msg = 'Input should list films that exist'
  return new OriginError('invalid', [{ type: 'movie_unknown', loc: ['body', 'movie_ids'], msg }])
}

function unknownProviders(): OriginError {
  const msg = 'Input should list services that exist'
  return new OriginError('invalid', [{ type: 'provider_unknown', loc: ['body', 'provider_ids'], msg }])
}
