import { z } from 'zod'
import type { Log } from '#origin/kit/api.ts'
import type { Sql } from '#origin/kit/database.ts'
import { WorkerError } from '../error.ts'
import { readJsonBody } from '../requests/json-body.ts'
import type { FilmVectors } from '../vectors/film-vectors.ts'
import { toReady } from './model.ts'
import type { Random } from './random.ts'
import type { Tier } from './recommend.ts'
import { recommend, recommendSingle } from './recommend.ts'
import type { Shelf } from './shelf.ts'
import { toShelf } from './shelf.ts'
import { readEdition, readFilms, readModel } from './store.ts'

/** What the engine answers: the text of the answer, and how much it knew of the viewer. */
type Recommendation = { tier: Tier; text: string }

export type Recommender = {
  /** Two tracks for a body of `/recommend`. Throws a WorkerError. */
  recommend(body: Buffer): Recommendation
  /** A film or null for a body of `/recommend_single`. Throws a WorkerError. */
  recommendSingle(body: Buffer): Recommendation
  /** Looks for new films and a newer model, and changes over at once. False while there are no films. */
  refresh(): Promise<boolean>
  /** Films that can be recommended, the version of the model (undefined before the first was learned) and its name. */
  state(): { films: number; version: number | undefined; model: string }
}

type RecommenderOptions = {
  sql: Sql
  /** What the texts of films are compared by. */
  vectors: Pick<FilmVectors, 'of'>
  log: Log
  random?: Random
  today?: () => Date
}

/** Recommends from memory; the database is asked for films and models only, so that it may be away for a while. */
export function createRecommender({
  sql,
  vectors,
  log,
  random = Math.random,
  today = () => new Date(),
}: RecommenderOptions): Recommender {
  let shelf: Shelf | undefined
  /** Which films are on the shelf. */
  let known = ''
  let textModel = 'lexical'
  return {
    recommend(body) {
      const request = readJsonBody(recommendIn, body)
      const { tier, ...tracks } = recommend(takeShelf(), request, random)
      return { tier, text: JSON.stringify(tracks) }
    },
    recommendSingle(body) {
      const request = readJsonBody(singleIn, body)
      const { film = null, tier } = recommendSingle(takeShelf(), request, random)
      return { tier, text: JSON.stringify(film) }
    },
    refresh,
    state: () => ({
      films: shelf?.films.length ?? 0,
      version: shelf?.model?.version,
      model: `${textModel}+iALS+EASE`,
    }),
  }

  function takeShelf(): Shelf {
    if (shelf) return shelf
    throw new WorkerError('recommender_unavailable', 'The films are not loaded yet', { retryAfterSeconds: 1 })
  }

  async function refresh(): Promise<boolean> {
    const edition = await readEdition(sql)
    if (edition === '') return false
    const films = shelf && edition === known ? shelf.films : await readFilms(sql)
    const newer = await readModel(sql, shelf?.model?.version)
    const texts = vectors.of(films, edition)
    if (!newer && edition === known && texts.vectors === shelf?.vectors) return true
    shelf = toShelf(films, texts.vectors, today(), newer ? toReady(newer) : shelf?.model)
    known = edition
    textModel = texts.model
    if (newer) log({ event: 'model', system: 'recommender', version: newer.version, films: newer.films.length })
    return true
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
