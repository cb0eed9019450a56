import { z } from '@hono/zod-openapi'
import { OriginError } from '../kit/error.ts'
import { issueWorkerToken } from '../kit/worker-tokens.ts'

/** What the recommendation engine is asked for; times in minutes. */
type EngineRequest = {
  user_movie_ids: number[]
  available_time: number
  preferred_genres: string[]
  preferred_otts: number[]
  allow_adult: boolean
  excluded_ids_a: number[]
  excluded_ids_b: number[]
  negative_movie_ids: number[]
}

/** One film in place of another. */
type EngineSingleRequest = {
  user_movie_ids: number[]
  target_runtime: number
  excluded_ids: number[]
  track: 'a' | 'b'
  preferred_genres: string[]
  preferred_otts: number[]
  allow_adult: boolean
  negative_movie_ids: number[]
}

/** Films that are like one. */
type EngineSimilarRequest = { film_id: number; limit: number; filter: { allow_adult: boolean } }

/** A film as the engine recommends it. */
export const recommendedFilm = z
  .object({
    movie_id: z.int(),
    tmdb_id: z.int().nullable(),
    title: z.string(),
    runtime: z.int(),
    genres: z.array(z.string()),
    vote_average: z.number(),
    vote_count: z.int(),
    overview: z.string(),
    release_date: z.string(),
    poster_path: z.string().nullable(),
    score: z.number(),
    recommendation_type: z.enum(['hybrid', 'sbert_only']),
  })
  .openapi('RecommendedMovie')

const engineTrack = z.object({ movies: z.array(recommendedFilm), total_runtime: z.int() })
const similarAnswer = z.object({ films: z.array(z.object({ movie_id: z.int() })) })
const engineAnswer = z.object({ track_a: engineTrack, track_b: engineTrack })

/** The tracks and how much the engine knew of the viewer: personalised, fold-in, segment or popularity. */
type Recommendation = z.infer<typeof engineAnswer> & { tier: string }
type SingleRecommendation = { film: z.infer<typeof recommendedFilm> | undefined; tier: string }

/** Throws `service_unavailable` or `service_timeout`, with the code of the external API, when the engine cannot say. */
export type Engine = {
  recommend(request: EngineRequest): Promise<Recommendation>
  recommendSingle(request: EngineSingleRequest): Promise<SingleRecommendation>
  /** The numbers of the films most like one, nearest first. */
  findSimilar(request: EngineSimilarRequest): Promise<number[]>
}

/** What clients hear when the engine cannot say. */
export const engineRefusals = {
  503: { description: 'AI_SERVICE_UNAVAILABLE or AI_SERVICE_ERROR: the engine cannot say' },
  504: { description: 'AI_SERVICE_TIMEOUT: the engine takes too long' },
}

const caller = { tenant: 'moviesir' }
const tokenSeconds = 60

type EngineOptions = { url: string; secret: string | undefined; timeoutMs?: number }

/** The engine on the GPU worker at `url`. With a `secret` every request carries a token of one minute (HS256). */
export function createEngine({ url, secret, timeoutMs = 5_000 }: EngineOptions): Engine {
  return {
    async recommend(request) {
      const { body, tier } = await ask('/recommend', request)
      return { ...parse(engineAnswer, body), tier }
    },
    async recommendSingle(request) {
      const { body, tier } = await ask('/recommend_single', request)
      return { film: body === null ? undefined : parse(recommendedFilm, body), tier }
    },
    async findSimilar(request) {
      const { body } = await ask('/v1/similar', request)
      return parse(similarAnswer, body).films.map(({ movie_id }) => movie_id)
    },
  }

  async function ask(path: string, request: object): Promise<{ body: unknown; tier: string }> {
    try {
      const answer = await fetch(`${url}${path}`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          'x-envoy-expected-rq-timeout-ms': String(timeoutMs),
          ...(secret !== undefined && {
            authorization: `Bearer ${await issueWorkerToken(secret, caller, tokenSeconds)}`,
          }),
        },
        body: JSON.stringify(request),
        redirect: 'error',
        signal: AbortSignal.timeout(timeoutMs),
      })
      if (answer.ok)
        return { body: await answer.json(), tier: answer.headers.get('x-recommendation-tier') ?? 'unknown' }
      await answer.body?.cancel()
      throw unavailable('AI_SERVICE_ERROR', `The recommendation engine answered ${answer.status}`)
    } catch (error) {
      if (error instanceof OriginError) throw error
      if (error instanceof DOMException && error.name === 'TimeoutError') throw timedOut(timeoutMs)
      throw unavailable('AI_SERVICE_UNAVAILABLE', 'The recommendation engine cannot be reached', error)
    }
  }
}

function parse<S extends z.ZodType>(schema: S, body: unknown): z.output<S> {
  const result = schema.safeParse(body)
  if (result.success) return result.data
  throw unavailable('AI_SERVICE_ERROR', 'The recommendation engine gave an answer of another shape', result.error)
}

function unavailable(code: string, message: string, cause?: unknown): OriginError {
  return new OriginError('service_unavailable', { code, message }, { headers: { 'Retry-After': '5' }, cause })
}

function timedOut(timeoutMs: number): OriginError {
  const message = `The recommendation engine gave no answer within ${timeoutMs} ms`
  return new OriginError('service_timeout', { code: 'AI_SERVICE_TIMEOUT', message })
}
