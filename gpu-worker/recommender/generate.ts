import type { Random } from './random.ts'
import { createRandom, normal } from './random.ts'
import { topOf } from './top.ts'

/** What the generator needs to know of an item. */
export type GeneratedItem = { genres: readonly string[]; popularity: number }

type GenerateOptions = {
  users: number
  /** Interactions per user, about; each user has their own number around it, at least 20. */
  perUser: number
  seed: number
}

/** What made-up items are of. */
export const genres: readonly string[] = [
  'Action',
  'Adventure',
  'Comedy',
  'Drama',
  'Family',
  'Fantasy',
  'History',
  'Horror',
  'Romance',
  'Thriller',
]

const tasteDimension = 8

/**
 * Makes up who watched what: a user likes a few genres and has a taste in a space of eight dimensions, an item has genres,
 * a place in that space and a popularity; a user's items are drawn without replacement by the sum of the three (Gumbel
 * top-k, Kool et al. 2019). Users come out in order, each with its items.
 */
export function generateInteractions(items: readonly GeneratedItem[], options: GenerateOptions): number[][] {
  const { users, perUser, seed } = options
  const random = createRandom(seed)
  const known = [...new Set(items.flatMap((item) => item.genres))]
  const places = items.map(() => vector(random))
  const total = items.reduce((sum, { popularity }) => sum + popularity, 0)
  const fame = items.map(({ popularity }) => Math.log((popularity + 1) / (total + items.length)))

  return Array.from({ length: users }, () => {
    const taste = vector(random)
    const liked = new Map(known.map((genre) => [genre, 1.4 * normal(random)]))
    const count = Math.min(
      Math.floor(items.length / 2),
      Math.max(20, Math.round(perUser * Math.exp(0.9 * normal(random) - 0.4))),
    )
    const scores = items.map((item, index) => {
      const genre = item.genres.reduce((sum, name) => sum + (liked.get(name) ?? 0), 0) / Math.max(1, item.genres.length)
      return fame[index]! + genre + 1.2 * cosine(taste, places[index]!) - Math.log(-Math.log(1 - random()))
    })
    return topOf(scores, count)
  })
}

/** Items whose popularity falls as Zipf's law says, with one to three of these genres. */
export function generateItems(count: number, among: readonly string[], seed: number): GeneratedItem[] {
  const random = createRandom(seed)
  return Array.from({ length: count }, (_, index) => ({
    genres: [
      ...new Set(
        Array.from({ length: 1 + Math.floor(random() * 3) }, () => among[Math.floor(random() * among.length)]!),
      ),
    ],
    popularity: 10_000 / (index + 5) ** 0.8,
  }))
}

function vector(random: Random): number[] {
  return Array.from({ length: tasteDimension }, () => normal(random))
}

function cosine(a: readonly number[], b: readonly number[]): number {
  let [ab, aa, bb] = [0, 0, 0]
  for (let i = 0; i < a.length; i += 1) {
    ab += a[i]! * b[i]!
    aa += a[i]! ** 2
    bb += b[i]! ** 2
  }
  return (2 * ab) / Math.sqrt(aa * bb)
}
