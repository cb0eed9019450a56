import type { PartSources } from './blend.ts'
import { standardise } from './blend.ts'
import type { Film } from './film.ts'
import type { ReadyModel } from './model.ts'
import type { TextIndex } from './text-index.ts'
import { createTextIndex } from './text-index.ts'
import type { Vectors } from './text-vectors.ts'
import { toUnit } from './unit.ts'

/** What the engine recommends from. Replaced as a whole when films or the model change. */
export type Shelf = {
  films: Film[]
  placeOf: Map<number, number>
  vectors: Vectors
  text: TextIndex
  quality: Float64Array
  /** Popularity, recency and quality, as the blend takes them. */
  scored: readonly Float64Array[]
  facts: FilmFacts
  model?: ReadyModel
  /** Where the model has each film of the shelf, −1 where it does not. */
  modelPlaces: Int32Array
}

/** What films are filtered by, one number a film. */
type FilmFacts = {
  runtimes: Int32Array
  /** 1 for films of the years that are recommended. */
  isCurrent: Uint8Array
  isAdult: Uint8Array
  ofGenre: ReadonlyMap<string, Uint8Array>
  ofProvider: ReadonlyMap<number, Uint8Array>
}

const yearMin = 2000
const yearMax = 2025

/** Puts films on the shelf, ready to be scored. `today` is for how long a film has been collecting votes. */
export function toShelf(films: Film[], vectors: Vectors, today: Date, model?: ReadyModel): Shelf {
  const placeOf = new Map(films.map(({ movie_id }, place) => [movie_id, place]))
  const modelPlaces = Int32Array.from(films, ({ movie_id }) => model?.placeOf.get(movie_id) ?? -1)
  const text = createTextIndex(vectors)
  return {
    films,
    placeOf,
    vectors,
    text,
    quality: toQuality(films, today),
    scored: toScored(films),
    facts: toFacts(films),
    model,
    modelPlaces,
  }
}

function toFacts(films: readonly Film[]): FilmFacts {
  const isCurrent = ({ release_date }: Film) => {
    const year = Number(release_date.slice(0, 4))
    return year >= yearMin && year <= yearMax ? 1 : 0
  }
  return {
    runtimes: Int32Array.from(films, ({ runtime }) => runtime),
    isCurrent: Uint8Array.from(films, isCurrent),
    isAdult: Uint8Array.from(films, ({ adult }) => (adult ? 1 : 0)),
    ofGenre: toColumns(films.map(({ genres }) => genres)),
    ofProvider: toColumns(films.map(({ providers }) => providers)),
  }
}

/** For each word of the lists, which lists have it. */
function toColumns<T>(lists: readonly (readonly T[])[]): Map<T, Uint8Array> {
  const columns = new Map<T, Uint8Array>()
  for (const [place, list] of lists.entries())
    for (const one of list) {
      if (!columns.has(one)) columns.set(one, new Uint8Array(lists.length))
      columns.get(one)![place] = 1
    }
  return columns
}

const votesMin = 3_000

/** Rating times the logarithm of votes per day, in [0, 1]; nothing for films that few have rated. */
function toQuality(films: readonly Film[], today: Date): Float64Array {
  return toUnit(
    Float64Array.from(films, ({ vote_average, vote_count, release_date }) => {
      const days = Math.max(30, (today.getTime() - Date.parse(release_date)) / dayMs)
      return vote_count >= votesMin ? (vote_average / 10) * Math.log(vote_count / days + 1) : 0
    }),
  )
}

const dayMs = 86_400_000

/** What is known of films before anybody takes them: the logarithm of votes, the date, and the rating with a doubt. */
function toScored(films: readonly Film[]): Float64Array[] {
  const votes = films.reduce((sum, { vote_count }) => sum + vote_count, 0)
  const rated = films.reduce((sum, { vote_average, vote_count }) => sum + vote_average * vote_count, 0)
  // As many votes as a film has on the mean, of the mean rating (Bayesian mean).
  const doubt = Math.max(1, votes / Math.max(1, films.length))
  const mean = rated / Math.max(1, votes)
  return [
    standardise(Float64Array.from(films, ({ vote_count }) => Math.log1p(vote_count))),
    standardise(Float64Array.from(films, ({ release_date }) => Date.parse(release_date) / dayMs)),
    standardise(
      Float64Array.from(
        films,
        ({ vote_average, vote_count }) => (doubt * mean + vote_count * vote_average) / (doubt + vote_count),
      ),
    ),
  ]
}

/** What the blend scores films by, all on the shelf. */
export function toPartSources({ model, modelPlaces, text, scored }: Shelf): PartSources {
  return { learned: model && { ...model, places: modelPlaces }, text, facts: scored }
}
