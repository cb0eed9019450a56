import { z } from 'zod'
import type { Log } from '#origin/kit/api.ts'
import type { Sql } from '#origin/kit/database.ts'
import { WorkerError } from '../error.ts'
import { toReady } from './model.ts'
import type { Random } from './random.ts'
import type { Shelf, Tier } from './recommend.ts'
import { recommend, recommendSingle, toShelf } from './recommend.ts'
import { readFilms, readModel } from './store.ts'
import { lexicalVectors } from './text-vectors.ts'

/** What the engine answers: the text of the answer, and how much it knew of the viewer. */
type Recommendation = { tier: Tier; text: string }

export type Recommender = {
  /** Two tracks for a body of `/recommend`. Throws a WorkerError. */
  recommend(body: Buffer): Recommendation
  /** A film or null for a body of `/recommend_single`. Throws a WorkerError. */
  recommendSingle(body: Buffer): Recommendation
  /** Looks for new films and a newer model, and changes over at once. False while there are no films. */
  refresh(): Promise<boolean>
  /** Films that can be recommended, and the version of the model; undefined before the first was learned. */
  state(): { films: number; version: number | undefined }
}

type RecommenderOptions = { sql: Sql; log: Log; random?: Random; today?: () => Date }

/** How the model of the recommender is called. */
export const modelName = 'lexical+iALS+EASE'

/** Recommends from memory; the database is asked for films and models only, so that it may be away for a while. */
export function createRecommender({
  sql,
  log,
  random = Math.random,
  today = () => new Date(),
}: RecommenderOptions): Recommender {
  let shelf: Shelf | undefined
  /** The films of the shelf, as they were read. */
  let known = ''
  return {
    recommend(body) {
      const request = read(recommendIn, body)
      const { tier, ...tracks } = recommend(takeShelf(), request, random)
      return { tier, text: JSON.stringify(tracks) }
    },
    recommendSingle(body) {
      const request = read(singleIn, body)
      const { film = null, tier } = recommendSingle(takeShelf(), request, random)
      return { tier, text: JSON.stringify(film) }
    },
    refresh,
    state: () => ({ films: shelf?.films.length ?? 0, version: shelf?.model?.version }),
  }

  function takeShelf(): Shelf {
    if (shelf) return shelf
    throw new WorkerError('recommender_unavailable', 'The films are not loaded yet', { retryAfterSeconds: 1 })
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

function read<S extends z.ZodType>(schema: S, body: Buffer): z.output<S> {
  const result = schema.safeParse(toJson(body))
  if (result.success) return result.data
  const param = result.error.issues[0]?.path.join('.')
  throw new WorkerError('invalid_request', z.prettifyError(result.error), { ...(param && { param }) })
}

function toJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch {
    throw new WorkerError('invalid_request', 'The body is not JSON')
  }
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
