import { blend, bucketOf, fixedBlend, toParts } from './blend.ts'
import { diversify } from './diversify.ts'
import { fillTime } from './fill-time.ts'
import type { Film } from './film.ts'
import type { Random } from './random.ts'
import type { Shelf } from './shelf.ts'
import { toPartSources } from './shelf.ts'
import { topOf } from './top.ts'
import { toUnit } from './unit.ts'

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
/** Films of a viewer that a candidate is compared with one by one: the last of them. */
const comparedMax = 20

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
  const excluded = placesIn(shelf.placeOf, [
    ...request.user_movie_ids,
    ...request.negative_movie_ids,
    ...request.excluded_ids,
  ])
  const filters = { ...request, preferred_otts: track === 'b' ? [] : request.preferred_otts }
  const { runtimes } = shelf.facts
  const open = placesOf(shelf, filters, excluded)
  for (const least of [0.9, 0.7, 0]) {
    const fitting = open.filter((place) => runtimes[place]! >= least * minutes && runtimes[place]! <= minutes)
    if (fitting.length === 0) continue
    const candidates = rank(shelf, request, taste, track, fitting)
    const noisy = candidates.map(({ value }) => value * (0.7 + 0.6 * random()))
    const [first = 0] = topOf(noisy, 1)
    return { film: toRecommended(shelf, candidates[first]!), tier: taste.tier }
  }
  return { tier: taste.tier }
}

/** What is known of a viewer; `near` and `liked` in [0, 1] for every film of the shelf. */
type Taste = {
  tier: Tier
  near: Float64Array
  liked: Float64Array
  /** How near films are to the nearest that is known, and that was turned down; for both tracks. */
  nearest: Nearest
  dislikes: Nearest
}

/** How near each of some films is to the nearest of others, at least 0. */
type Nearest = (places: readonly number[]) => Float64Array

type Wishes = Pick<RecommendRequest, 'user_movie_ids' | 'negative_movie_ids' | 'preferred_genres' | 'preferred_otts'>

function readTaste(shelf: Shelf, request: Wishes): Taste {
  const { model, modelPlaces, placeOf } = shelf
  const known = placesIn(placeOf, request.user_movie_ids)
  const disliked = placesIn(placeOf, request.negative_movie_ids)
  const learned = known.filter((place) => modelPlaces[place] !== -1).length
  const hasSegment = request.preferred_genres.length > 0 || request.preferred_otts.length > 0 || known.length > 0
  const unknown = hasSegment ? 'segment' : 'popularity'
  const tier = learned > 0 ? (known.length >= personalisedFrom ? 'personalised' : 'fold-in') : unknown
  const parts = toParts(toPartSources(shelf), known)
  return {
    tier,
    near: toUnit(parts[2]!),
    liked: toUnit(blend(parts, (model?.blend ?? fixedBlend)[bucketOf(learned)]!)),
    nearest: createNearest(shelf, known),
    dislikes: createNearest(shelf, disliked),
  }
}

type FillContext = { track: 'a' | 'b'; taste: Taste; excluded: readonly number[] }

function fill(shelf: Shelf, request: RecommendRequest, random: Random, { track, taste, excluded }: FillContext): Track {
  const without = placesIn(shelf.placeOf, excluded)
  const pick = (filters: Filters): Track => {
    const candidates = rank(shelf, request, taste, track, placesOf(shelf, filters, without))
    return toTrack(shelf, candidates, request.available_time, random)
  }
  const first = pick(request)
  const isThin = first.total_runtime < 0.7 * request.available_time
  if (!isThin || request.preferred_otts.length === 0) return first
  const wider = pick({ ...request, preferred_otts: [] })
  return wider.total_runtime > first.total_runtime ? wider : first
}

function toTrack(shelf: Shelf, candidates: readonly Candidate[], minutes: number, random: Random): Track {
  const diverse = diversify(candidates.slice(0, diverseMax), (place, others) => likeness(shelf, place, others))
  const choices = Array.from(diverse, (value, index) => ({
    runtime: shelf.facts.runtimes[candidates[index]!.place]!,
    value: value * (0.4 + 1.2 * random()),
  }))
  const countMax = Math.min(Math.max(5, Math.floor(minutes / 90) + 2), 15)
  const picked = fillTime(choices, { minutes, countMax }).map((index) => candidates[index]!)
  const movies = picked.toSorted((a, b) => b.value - a.value).map((candidate) => toRecommended(shelf, candidate))
  return { movies, total_runtime: movies.reduce((sum, { runtime }) => sum + runtime, 0) }
}

/** How like a film others are, in [0, 1]: in words and, where the model knows both, in who takes them. */
function likeness({ text, model, modelPlaces }: Shelf, place: number, others: Int32Array): Float64Array {
  const alike = text.toEach(place, others)
  if (!model) return alike
  const own = modelPlaces[place]!
  const theirs = others.map((other) => modelPlaces[other]!)
  const byTakers = model.cosines(own, theirs)
  for (let at = 0; at < alike.length; at += 1)
    if (own !== -1 && theirs[at] !== -1) alike[at] = (Math.max(0, alike[at]!) + Math.max(0, byTakers[at]!)) / 2
  return alike
}

const diverseMax = 60

type Filters = Pick<RecommendRequest, 'preferred_genres' | 'preferred_otts' | 'allow_adult'>

function placesOf(
  { films, facts }: Shelf,
  { preferred_genres, preferred_otts, allow_adult }: Filters,
  excluded: readonly number[],
): Int32Array {
  const isOpen = facts.isCurrent.slice()
  if (!allow_adult) for (let place = 0; place < isOpen.length; place += 1) isOpen[place]! &= 1 - facts.isAdult[place]!
  keepAny(isOpen, preferred_genres, facts.ofGenre)
  keepAny(isOpen, preferred_otts, facts.ofProvider)
  for (const place of excluded) isOpen[place] = 0
  const places = new Int32Array(films.length)
  let count = 0
  for (let place = 0; place < isOpen.length; place += 1) if (isOpen[place] === 1) places[count++] = place
  return places.subarray(0, count)
}

/** Closes what has none of the wanted; without wishes nothing is closed. */
function keepAny<T>(isOpen: Uint8Array, wanted: readonly T[], having: ReadonlyMap<T, Uint8Array>): void {
  if (wanted.length === 0) return
  const columns = wanted.flatMap((one) => having.get(one) ?? [])
  const any = new Uint8Array(isOpen.length)
  for (const column of columns) for (let place = 0; place < any.length; place += 1) any[place]! |= column[place]!
  for (let place = 0; place < isOpen.length; place += 1) isOpen[place]! &= any[place]!
}

/** A film that may be picked, by its place on the shelf, and what it is worth. */
type Candidate = { place: number; value: number }

/**
 * The best of some films, best first: 0.7 of likeness and 0.3 of quality; of track A more for films of several wanted
 * genres; less for what is like disliked. Films are chosen by how near they are to the middle of the viewer's films; those
 * that are left are compared with each of them.
 */
function rank(
  { films, quality }: Shelf,
  { preferred_genres }: Pick<Filters, 'preferred_genres'>,
  { near, liked, nearest, dislikes }: Taste,
  track: 'a' | 'b',
  open: Int32Array,
): Candidate[] {
  const rough = new Float64Array(open.length)
  for (let index = 0; index < open.length; index += 1) rough[index] = valueOf(open[index]!, near[open[index]!]!)
  const chosen = topOf(rough, candidatesMax).map((index) => open[index]!)
  const nearer = toUnit(nearest(chosen))
  const worse = dislikes(chosen)
  const values = chosen.map((place, index) => {
    const malus = Math.max(1 - 0.5 * worse[index]!, 0.1)
    return valueOf(place, nearer[index]!) * bonusOf(films[place]!) * malus
  })
  return topOf(values, values.length).map((index) => ({ place: chosen[index]!, value: values[index]! }))

  function valueOf(place: number, nearness: number): number {
    const likely = textShare[track] * nearness + (1 - textShare[track]) * liked[place]!
    return modelShare * likely + (1 - modelShare) * quality[place]!
  }

  function bonusOf({ genres }: Film): number {
    if (track === 'b' || preferred_genres.length <= 1) return 1
    const overlap = preferred_genres.filter((genre) => genres.includes(genre)).length
    return 1 + (genreBonus * overlap) / preferred_genres.length
  }
}

/** Compares each film once, however often it is asked for. */
function createNearest({ films, text }: Shelf, others: readonly number[]): Nearest {
  const compared = others.slice(-comparedMax)
  const known = new Float64Array(films.length).fill(-1)
  return (places) => {
    const fresh = compared.length > 0 ? places.filter((place) => known[place] === -1) : []
    for (const place of fresh) known[place] = 0
    for (const other of compared) {
      const cosines = text.toEach(other, fresh)
      for (let at = 0; at < fresh.length; at += 1)
        if (cosines[at]! > known[fresh[at]!]!) known[fresh[at]!] = cosines[at]!
    }
    return Float64Array.from(places, (place) => Math.max(0, known[place]!))
  }
}

function placesIn(placeOf: ReadonlyMap<number, number>, ids: readonly number[]): number[] {
  return [...new Set(ids)].flatMap((id) => placeOf.get(id) ?? [])
}

function toRecommended({ films, modelPlaces }: Shelf, { place, value }: Candidate): Recommended {
  const { tags: _tags, adult: _adult, providers: _providers, ...film } = films[place]!
  const recommendation_type = modelPlaces[place] === -1 ? 'sbert_only' : 'hybrid'
  return { ...film, score: Math.round(value * 10_000) / 10_000, recommendation_type }
}
