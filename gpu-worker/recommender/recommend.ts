import { blend } from './blend.ts'
import { addEaseScores } from './ease.ts'
import { fillTime } from './fill-time.ts'
import type { Film } from './film.ts'
import { addFactorScores } from './fold-in.ts'
import { topOf } from './top.ts'
import type { ReadyModel } from './model.ts'
import type { Random } from './random.ts'
import type { Vectors } from './text-vectors.ts'
import { cosines } from './text-vectors.ts'

/** What the engine recommends from. Replaced as a whole when films or the model change. */
export type Shelf = {
  films: Film[]
  placeOf: Map<number, number>
  vectors: Vectors
  quality: Float64Array
  model?: ReadyModel
}

/** How much was known: taste from five films or more, from fewer, genres or services only, nothing. */
export type Tier = 'personalised' | 'fold-in' | 'segment' | 'popularity'

export type RecommendRequest = {
  user_movie_ids: number[]
  available_time: number
  preferred_genres: string[]
  preferred_otts: number[]
  allow_adult: boolean
  excluded_ids_a: number[]
  excluded_ids_b: number[]
  negative_movie_ids: number[]
}

export type SingleRequest = Omit<RecommendRequest, 'available_time' | 'excluded_ids_a' | 'excluded_ids_b'> & {
  target_runtime: number
  excluded_ids: number[]
  track: 'a' | 'b'
}

export type Recommended = Omit<Film, 'tags' | 'adult' | 'providers'> & {
  score: number
  recommendation_type: 'hybrid' | 'sbert_only'
}

export type Track = { movies: Recommended[]; total_runtime: number }

/** Weight of likeness in words beside likeness in taste: track A stays close, track B goes further. */
const textShare = { a: 0.7, b: 0.4 }
const modelShare = 0.7
const candidatesMax = 300
const genreBonus = 0.15
const personalisedFrom = 5
const yearMin = 2000
const yearMax = 2025
/** Likeness to what is already picked costs this much of the score (maximal marginal relevance, Carbonell 1998). */
const sameness = 0.3

/** Puts films on the shelf, ready to be scored. `today` is for how long a film has been collecting votes. */
export function toShelf(films: Film[], vectors: Vectors, today: Date, model?: ReadyModel): Shelf {
  const placeOf = new Map(films.map(({ movie_id }, place) => [movie_id, place]))
  return { films, placeOf, vectors, quality: toQuality(films, today), model }
}

/** Two disjoint tracks that fit the time: A of the taste one has, B of what lies beside it. */
export function recommend(
  shelf: Shelf,
  request: RecommendRequest,
  random: Random,
): { track_a: Track; track_b: Track; tier: Tier } {
  const taste = readTaste(shelf, request)
  const seen = [...request.user_movie_ids, ...request.negative_movie_ids]
  const trackA = fill(shelf, request, random, { track: 'a', taste, excluded: [...seen, ...request.excluded_ids_a] })
  const ofA = trackA.movies.map(({ movie_id }) => movie_id)
  const trackB = fill(shelf, request, random, {
    track: 'b',
    taste,
    excluded: [...seen, ...ofA, ...request.excluded_ids_b],
  })
  return { track_a: trackA, track_b: trackB, tier: taste.tier }
}

/** One film that takes 90 to 100 % of the time; else 70 to 100 %; else any that fits. Undefined when none does. */
export function recommendSingle(
  shelf: Shelf,
  request: SingleRequest,
  random: Random,
): { film?: Recommended; tier: Tier } {
  const taste = readTaste(shelf, request)
  const { track, target_runtime: minutes } = request
  const excluded = new Set([...request.user_movie_ids, ...request.negative_movie_ids, ...request.excluded_ids])
  const filters = { ...request, preferred_otts: track === 'b' ? [] : request.preferred_otts }
  const scores = score(shelf, request, taste, track)
  const open = placesOf(shelf, filters, excluded).filter((place) => shelf.films[place]!.runtime <= minutes)
  for (const least of [0.9, 0.7, 0]) {
    const fitting = open.filter((place) => shelf.films[place]!.runtime >= least * minutes)
    if (fitting.length === 0) continue
    const noisy = fitting.map((place) => scores[place]! * (0.7 + 0.6 * random()))
    const [first = 0] = topOf(noisy, 1)
    return { film: toRecommended(shelf, fitting[first]!, scores), tier: taste.tier }
  }
  return { tier: taste.tier }
}

type Taste = { tier: Tier; text: Float64Array; likes: Float64Array; dislikes: Float64Array | undefined }

function readTaste(
  shelf: Shelf,
  request: Pick<RecommendRequest, 'user_movie_ids' | 'negative_movie_ids' | 'preferred_genres' | 'preferred_otts'>,
): Taste {
  const { films, vectors, model, placeOf } = shelf
  const known = placesIn(placeOf, request.user_movie_ids)
  const text = highest(
    known.map((place) => cosines(vectors, place)),
    films.length,
  )
  const likes = model ? readLikes(shelf, model, request.user_movie_ids) : undefined
  const disliked = placesIn(placeOf, request.negative_movie_ids)
  const dislikes =
    disliked.length > 0
      ? highest(
          disliked.map((place) => cosines(vectors, place)),
          films.length,
        )
      : undefined
  const hasSegment = request.preferred_genres.length > 0 || request.preferred_otts.length > 0 || known.length > 0
  const tier = likes
    ? known.length >= personalisedFrom
      ? 'personalised'
      : 'fold-in'
    : hasSegment
      ? 'segment'
      : 'popularity'
  return { tier, text, likes: likes ?? new Float64Array(films.length), dislikes }
}

/** What the model says of every film on the shelf; undefined when it knows none of the viewer's films. */
function readLikes({ films }: Shelf, model: ReadyModel, movieIds: readonly number[]): Float64Array | undefined {
  const history = Int32Array.from(new Set(placesIn(model.placeOf, movieIds)))
  if (history.length === 0) return undefined
  const byFactors = new Float64Array(model.films.length)
  addFactorScores(model.items, model.foldIn(history), byFactors)
  const byItems = new Float64Array(model.films.length)
  addEaseScores(model.ease, history, byItems)
  const scores = blend(byFactors, byItems, model.share)
  return Float64Array.from(films, ({ movie_id }) => {
    const place = model.placeOf.get(movie_id)
    return place === undefined ? 0 : scores[place]!
  })
}

type FillContext = { track: 'a' | 'b'; taste: Taste; excluded: readonly number[] }

function fill(shelf: Shelf, request: RecommendRequest, random: Random, { track, taste, excluded }: FillContext): Track {
  const scores = score(shelf, request, taste, track)
  const without = new Set(excluded)
  const pick = (filters: Filters): Track => {
    const open = placesOf(shelf, filters, without)
    const best = topOf(
      open.map((place) => scores[place]!),
      candidatesMax,
    ).map((index) => open[index]!)
    return toTrack(shelf, best, scores, request.available_time, random)
  }
  const first = pick(request)
  const isThin = first.total_runtime < 0.7 * request.available_time
  if (!isThin || request.preferred_otts.length === 0) return first
  const wider = pick({ ...request, preferred_otts: [] })
  return wider.total_runtime > first.total_runtime ? wider : first
}

function toTrack(
  shelf: Shelf,
  places: readonly number[],
  scores: Float64Array,
  minutes: number,
  random: Random,
): Track {
  const diverse = diversify(shelf, places, scores)
  const choices = diverse.map(({ place, value }) => ({
    runtime: shelf.films[place]!.runtime,
    value: value * (0.4 + 1.2 * random()),
  }))
  const countMax = Math.min(Math.max(5, Math.floor(minutes / 90) + 2), 15)
  const picked = fillTime(choices, { minutes, countMax }).map((index) => diverse[index]!.place)
  const movies = picked.toSorted((a, b) => scores[b]! - scores[a]!).map((place) => toRecommended(shelf, place, scores))
  return { movies, total_runtime: movies.reduce((sum, { runtime }) => sum + runtime, 0) }
}

const diverseMax = 120

/** Each candidate's score less what it shares with better ones of the same genres. */
function diversify(
  { films }: Shelf,
  places: readonly number[],
  scores: Float64Array,
): { place: number; value: number }[] {
  const before = new Map<string, number>()
  return places.slice(0, diverseMax).map((place) => {
    const key = films[place]!.genres.toSorted().join()
    const same = before.get(key) ?? 0
    before.set(key, same + 1)
    return { place, value: scores[place]! * (1 - sameness * (1 - 1 / (1 + same / 4))) }
  })
}

type Filters = Pick<RecommendRequest, 'preferred_genres' | 'preferred_otts' | 'allow_adult'>

function placesOf(
  { films }: Shelf,
  { preferred_genres, preferred_otts, allow_adult }: Filters,
  excluded: ReadonlySet<number>,
): number[] {
  const places: number[] = []
  for (const [place, film] of films.entries()) {
    const year = Number(film.release_date.slice(0, 4))
    const fits =
      year >= yearMin &&
      year <= yearMax &&
      (allow_adult || !film.adult) &&
      !excluded.has(film.movie_id) &&
      (preferred_genres.length === 0 || preferred_genres.some((genre) => film.genres.includes(genre))) &&
      (preferred_otts.length === 0 || preferred_otts.some((provider) => film.providers.includes(provider)))
    if (fits) places.push(place)
  }
  return places
}

/** 0.7 of likeness and 0.3 of quality; of track A more for films of several wanted genres; less for what is like disliked. */
function score(
  shelf: Shelf,
  { preferred_genres }: Filters,
  { text, likes, dislikes }: Taste,
  track: 'a' | 'b',
): Float64Array {
  const [near, liked] = [toUnit(text), toUnit(likes)]
  return Float64Array.from(shelf.films, (film, place) => {
    const likeness = textShare[track] * near[place]! + (1 - textShare[track]) * liked[place]!
    const overlap = preferred_genres.filter((genre) => film.genres.includes(genre)).length
    const bonus =
      track === 'a' && preferred_genres.length > 1 ? 1 + (genreBonus * overlap) / preferred_genres.length : 1
    const malus = dislikes ? Math.max(1 - 0.5 * dislikes[place]!, 0.1) : 1
    return (modelShare * likeness + (1 - modelShare) * shelf.quality[place]!) * bonus * malus
  })
}

const votesMin = 3_000
const dayMs = 86_400_000

/** Rating times the logarithm of votes per day, in [0, 1]; nothing for films that few have rated. */
function toQuality(films: readonly Film[], today: Date): Float64Array {
  return toUnit(
    Float64Array.from(films, ({ vote_average, vote_count, release_date }) => {
      const days = Math.max(30, (today.getTime() - Date.parse(release_date)) / dayMs)
      return vote_count >= votesMin ? (vote_average / 10) * Math.log(vote_count / days + 1) : 0
    }),
  )
}

function toUnit(scores: Float64Array): Float64Array {
  let [low, high] = [Infinity, -Infinity]
  for (const value of scores) {
    if (value < low) low = value
    if (value > high) high = value
  }
  const range = high - low
  return range > 0 ? scores.map((value) => (value - low) / range) : new Float64Array(scores.length)
}

function highest(rows: readonly Float64Array[], length: number): Float64Array {
  const result = new Float64Array(length)
  for (const row of rows) for (let i = 0; i < length; i += 1) if (row[i]! > result[i]!) result[i] = row[i]!
  return result
}

function placesIn(placeOf: ReadonlyMap<number, number>, ids: readonly number[]): number[] {
  return [...new Set(ids)].flatMap((id) => placeOf.get(id) ?? [])
}

function toRecommended({ films, model }: Shelf, place: number, scores: Float64Array): Recommended {
  const { tags: _tags, adult: _adult, providers: _providers, ...film } = films[place]!
  const recommendation_type = model?.placeOf.has(film.movie_id) ? 'hybrid' : 'sbert_only'
  return { ...film, score: Math.round(scores[place]! * 10_000) / 10_000, recommendation_type }
}
