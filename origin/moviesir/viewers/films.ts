import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { int32 } from '../../kit/fields.ts'
import type { Engine } from '../engine.ts'
import { engineRefusals } from '../engine.ts'
import type { Logins, ViewerEnv } from './logins.ts'

/** Films and the way to them, under `/api/movies`. */
export function declareFilms(
  api: OpenAPIHono<ViewerEnv>,
  { sql, logins, engine }: { sql: Sql; logins: Logins; engine: Engine },
): void {
  api.openapi(filmRoute, async (c) => {
    const { movie_id } = c.req.valid('param')
    const [info] = await sql<FilmInfo[]>`select ${sql(filmColumns)} from public.movies where movie_id = ${movie_id}`
    if (!info) throw new OriginError('not_found', 'Movie not found')
    const otts = await sql<Ott[]>`
      select provider_id, provider_name, link_url, payment_type
      from public.movie_ott_map join public.ott_providers using (provider_id)
      where movie_id = ${movie_id} order by provider_name`
    return c.json({ info, otts: [...otts], tag_genome: info.tags }, 200)
  })

  api.openapi({ ...similarRoute, middleware: logins.signedIn }, async (c) => {
    const { movie_id } = c.req.valid('param')
    const [film] = await sql<{ adult: boolean }[]>`select adult from public.movies where movie_id = ${movie_id}`
    if (!film) throw new OriginError('not_found', 'Movie not found')
    const ids = await engine.findSimilar({
      film_id: movie_id,
      limit: similarFilms,
      filter: { allow_adult: film.adult },
    })
    const movies = await sql<FilmInfo[]>`
      select ${sql(filmColumns)} from public.movies where movie_id = any(${ids})
      order by array_position(${ids}::int[], movie_id)`
    return c.json({ movies: [...movies] }, 200)
  })

  api.openapi({ ...playRoute, middleware: logins.signedIn }, async (c) => {
    const { movie_id } = c.req.valid('param')
    const { provider_id } = c.req.valid('json')
    const [link] = await sql<{ link_url: string }[]>`
      select link_url from public.movie_ott_map where movie_id = ${movie_id} and provider_id = ${provider_id}`
    if (!link) throw new OriginError('not_found', 'Link not found')
    await sql`insert into b2c.movie_logs (user_id, movie_id, action)
      values (${c.get('viewer').user_id}, ${movie_id}, ${`ott_click:${provider_id}`})`
    return c.json({ redirect_url: link.link_url }, 200)
  })
}

const tags = ['movies']

/** The columns of a film a client sees, in order. */
export const filmColumns = [
  'movie_id',
  'tmdb_id',
  'title',
  'runtime',
  'genres',
  'tags',
  'release_date',
  'vote_average',
  'vote_count',
  'overview',
  'poster_path',
  'adult',
] as const

/** A film as the API writes it; `runtime` is in minutes. */
export const filmOut = z
  .object({
    movie_id: z.int(),
    tmdb_id: z.int().nullable(),
    title: z.string(),
    runtime: z.int().openapi({ description: 'minutes' }),
    genres: z.array(z.string()),
    tags: z.array(z.string()),
    release_date: z.string().openapi({ format: 'date' }),
    vote_average: z.number(),
    vote_count: z.int(),
    overview: z.string(),
    poster_path: z.string().nullable(),
    adult: z.boolean(),
  })
  .openapi('Movie')

export type FilmInfo = z.infer<typeof filmOut>

const ottOut = z
  .object({ provider_id: z.int(), provider_name: z.string(), link_url: z.string(), payment_type: z.string() })
  .openapi('Ott')

type Ott = z.infer<typeof ottOut>

/** A number in a path. */
const idInPath = z.coerce.number().pipe(int32.min(1))
const filmId = z.object({ movie_id: idInPath })

const filmRoute = createRoute({
  method: 'get',
  path: '/api/movies/{movie_id}',
  tags,
  summary: 'A film and where it can be watched.',
  request: { params: filmId },
  responses: {
    200: jsonAnswer(z.object({ info: filmOut, otts: z.array(ottOut), tag_genome: z.array(z.string()) }), 'The film'),
    404: refusals[404],
    422: refusals[422],
  },
})

const similarFilms = 6

const similarRoute = createRoute({
  method: 'get',
  path: '/api/movies/{movie_id}/similar',
  tags,
  summary: 'Films like one, the most alike first.',
  request: { params: filmId },
  responses: {
    200: jsonAnswer(z.object({ movies: z.array(filmOut) }), 'At most six films'),
    401: refusals[401],
    404: refusals[404],
    422: refusals[422],
    ...engineRefusals,
  },
})

const playRoute = createRoute({
  method: 'post',
  path: '/api/movies/{movie_id}/play',
  tags,
  summary: 'Where a service plays the film; remembered as watched.',
  request: { params: filmId, body: jsonBody(z.object({ provider_id: int32 })) },
  responses: {
    200: jsonAnswer(z.object({ redirect_url: z.string() }), 'The address at the service'),
    401: refusals[401],
    404: refusals[404],
    422: refusals[422],
  },
})
