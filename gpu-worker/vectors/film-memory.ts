import { setImmediate as breathe } from 'node:timers/promises'
import type { Film } from '../recommender/film.ts'
import type { Vectors } from '../recommender/text-vectors.ts'
import { topOf } from '../recommender/top.ts'
import type { Near, Question } from './film-table.ts'
import type { FilmFilter } from './plan.ts'
import { yearOf } from './plan.ts'

/** Values that are multiplied before others get their turn: about a millisecond. */
const turnValues = 1_000_000

/** The nearest films of those in memory, for when no database has them; as a table would say it. */
export function createFilmMemory(films: readonly Film[], { dimension, values }: Vectors) {
  const placeOf = new Map(films.map(({ movie_id }, place) => [movie_id, place]))
  const vectorAt = (place: number): Float32Array => values.subarray(place * dimension, (place + 1) * dimension)

  return {
    async nearest({ of, filter, count }: Omit<Question, 'plan' | 'withinMs'>): Promise<Near[] | undefined> {
      const own = typeof of === 'number' ? placeOf.get(of) : undefined
      if (typeof of === 'number' && own === undefined) return undefined
      const vector = own === undefined ? (of as Float32Array) : vectorAt(own)
      const open = [...films.keys()].filter((place) => place !== own && fits(films[place]!, filter))
      const likeness = new Float64Array(open.length)
      for (const [index, place] of open.entries()) {
        if (index > 0 && index % Math.ceil(turnValues / dimension) === 0) await breathe()
        const other = vectorAt(place)
        let sum = 0
        for (let i = 0; i < dimension; i += 1) sum += vector[i]! * other[i]!
        likeness[index] = sum
      }
      return topOf(likeness, count).map((index) => ({
        movie_id: films[open[index]!]!.movie_id,
        likeness: likeness[index]!,
      }))
    },
  }
}

function fits(film: Film, filter: FilmFilter): boolean {
  const { year_min = -Infinity, year_max = Infinity, runtime_min = 0, runtime_max = Infinity } = filter
  const { genres, otts, allow_adult = false } = filter
  const year = yearOf(film)
  return (
    (allow_adult || !film.adult) &&
    year >= year_min &&
    year <= year_max &&
    film.runtime >= runtime_min &&
    film.runtime <= runtime_max &&
    (genres === undefined || genres.some((genre) => film.genres.includes(genre))) &&
    (otts === undefined || otts.some((provider) => film.providers.includes(provider)))
  )
}
