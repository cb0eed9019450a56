import type { Film } from '../recommender/film.ts'

/** What a film must be to be found; what is absent does not restrict. Minutes; genres and services: any of them. */
export type FilmFilter = {
  year_min?: number
  year_max?: number
  runtime_min?: number
  runtime_max?: number
  genres?: readonly string[]
  otts?: readonly number[]
  /** Films for adults too; they are left out when absent. */
  allow_adult?: boolean
}

/** What a filter looks at. */
export type FilmFacts = Pick<Film, 'release_date' | 'runtime' | 'genres' | 'providers' | 'adult'>

/** How many films have what, to say how many a filter leaves without asking the database. */
export type Histogram = {
  films: number
  adult: number
  years: Map<number, number>
  /** By tens of minutes. */
  runtimes: Map<number, number>
  genres: Map<string, number>
  providers: Map<number, number>
}

export const yearOf = ({ release_date }: Pick<Film, 'release_date'>): number => Number(release_date.slice(0, 4))

export function toHistogram(films: Iterable<FilmFacts>): Histogram {
  const histogram: Histogram = {
    films: 0,
    adult: 0,
    years: new Map(),
    runtimes: new Map(),
    genres: new Map(),
    providers: new Map(),
  }
  for (const film of films) {
    histogram.films += 1
    if (film.adult) histogram.adult += 1
    count(histogram.years, yearOf(film))
    count(histogram.runtimes, Math.floor(film.runtime / runtimeStep))
    for (const genre of new Set(film.genres)) count(histogram.genres, genre)
    for (const provider of new Set(film.providers)) count(histogram.providers, provider)
  }
  return histogram
}

/** The share of the films that a filter leaves, in [0, 1], as if what it looks at were independent. */
export function estimateShare(histogram: Histogram, filter: FilmFilter): number {
  const { films, adult, years, runtimes, genres, providers } = histogram
  if (films === 0) return 0
  const { year_min = -Infinity, year_max = Infinity, runtime_min = -Infinity, runtime_max = Infinity } = filter
  const within = (buckets: Map<number, number>, min: number, max: number, step: number): number => {
    let found = 0
    for (const [bucket, size] of buckets) found += size * overlap(bucket * step, (bucket + 1) * step, min, max + 1)
    return found / films
  }
  const anyOf = <Name>(sizes: Map<Name, number>, names: readonly Name[] | undefined): number =>
    names === undefined ? 1 : 1 - names.reduce((none, name) => none * (1 - (sizes.get(name) ?? 0) / films), 1)
  return (
    within(years, year_min, year_max, 1) *
    within(runtimes, runtime_min, runtime_max, runtimeStep) *
    anyOf(genres, filter.genres) *
    anyOf(providers, filter.otts) *
    (filter.allow_adult ? 1 : 1 - adult / films)
  )
}

/** How the nearest are looked for: all that fit are compared, or the index is walked until enough fit. */
export type Plan = {
  kind: 'exact' | 'hnsw'
  /** Rows that are expected to be compared. */
  rows: number
}

export type PlanBounds = {
  /** Fewer films than this are compared one by one. */
  vectorIndexFilmsMin: number
  /** So are those that a filter leaves, when they are no more. */
  vectorExactFilmsMax: number
  /** Rows that the index may hand out (`hnsw.max_scan_tuples`). */
  vectorScanTuplesMax: number
  /** Rows that it looks at in one go (`hnsw.ef_search`). */
  vectorSearchWidth: number
}

type Situation = { films: number; share: number; count: number; hasIndex: boolean }

/**
 * The index applies a filter to what it hands out: of a filter that leaves a hundredth it has to hand out a hundred rows
 * for one. So it is asked where many films fit, and never where it would give up before enough do.
 */
export function choosePlan({ films, share, count: wanted, hasIndex }: Situation, bounds: PlanBounds): Plan {
  const fitting = Math.ceil(films * share)
  const handedOut = Math.ceil(wanted / Math.max(share, 1 / films))
  const isExact =
    !hasIndex ||
    films < bounds.vectorIndexFilmsMin ||
    fitting <= bounds.vectorExactFilmsMax ||
    handedOut > bounds.vectorScanTuplesMax
  return isExact
    ? { kind: 'exact', rows: fitting }
    : { kind: 'hnsw', rows: Math.max(handedOut, bounds.vectorSearchWidth) }
}

const runtimeStep = 10

/** The share of [from, to) that lies in [min, max). */
function overlap(from: number, to: number, min: number, max: number): number {
  return Math.max(0, Math.min(to, max) - Math.max(from, min)) / (to - from)
}

function count<Name>(sizes: Map<Name, number>, name: Name): void {
  sizes.set(name, (sizes.get(name) ?? 0) + 1)
}
