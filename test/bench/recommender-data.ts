import type { Film } from '#gpu-worker/recommender/film.ts'
import { generateItems, genres } from '#gpu-worker/recommender/generate.ts'
import type { Random } from '#gpu-worker/recommender/random.ts'
import { createRandom, normal } from '#gpu-worker/recommender/random.ts'

/** Films that nobody made: as popular as Zipf's law says, of words that fall as it says. */
export function makeFilms(count: number): Film[] {
  const random = createRandom(3)
  const words = Array.from({ length: 5_000 }, () => makeWord(random))
  const text = (length: number): string => Array.from({ length }, () => words[zipf(random, words.length)]!).join(' ')
  return generateItems(count, genres, 1).map(({ genres: [...own], popularity }, index) => ({
    movie_id: index + 1,
    tmdb_id: null,
    title: text(2 + Math.floor(random() * 2)),
    runtime: Math.max(60, Math.round(105 + 20 * normal(random))),
    genres: own,
    tags: Array.from({ length: 3 }, () => `tag ${zipf(random, 200)}`),
    release_date: `${1985 + Math.floor(random() * 40)}-0${1 + Math.floor(random() * 9)}-11`,
    vote_average: Math.min(10, Math.max(1, Math.round(10 * (6.5 + normal(random))) / 10)),
    vote_count: Math.round(popularity * 20),
    overview: text(30),
    poster_path: null,
    adult: index % 50 === 49,
    providers: [],
  }))
}

/** What viewers ask: some are new, some have long histories, some name genres, services or films they dislike. */
export function makeWishes(films: number, count: number) {
  const random = createRandom(4)
  const ids = (length: number): number[] => [...new Set(Array.from({ length }, () => 1 + zipf(random, films)))]
  const lengths = [0, 3, 12, 40]
  const wishes = () => ({
    user_movie_ids: ids(lengths[Math.floor(random() * lengths.length)]!),
    preferred_genres: random() < 0.5 ? [] : genres.filter(() => random() < 0.3),
    preferred_otts: random() < 0.7 ? [] : [8, 337],
    negative_movie_ids: random() < 0.7 ? [] : ids(5),
  })
  const many = (make: () => object): string[] => Array.from({ length: count }, () => JSON.stringify(make()))
  return {
    '/recommend': many(() => ({ ...wishes(), available_time: 90 + Math.floor(random() * 270) })),
    '/recommend_single': many(() => ({
      ...wishes(),
      target_runtime: 80 + Math.floor(random() * 80),
      track: random() < 0.5 ? 'a' : 'b',
    })),
  }
}

function makeWord(random: Random): string {
  const syllables = ['ka', 'mo', 'ri', 'ten', 'sol', 'va', 'lu', 'nor', 'shi', 'be', 'dar', 'mi']
  return Array.from({ length: 2 + Math.floor(random() * 3) }, () => syllables[Math.floor(random() * 12)]).join('')
}

/** A number below `count`, the smaller the likelier. */
const zipf = (random: Random, count: number): number => Math.floor((count + 1) ** random()) - 1
