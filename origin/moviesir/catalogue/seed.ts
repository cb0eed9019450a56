import type { Sql } from '../../kit/database.ts'
import type { CatalogueFilm } from './films.ts'
import { readCatalogue } from './films.ts'

/** Told how many rows of how many are in, a few times a second at most. */
export type Progress = (done: number, total: number) => void

/** Services a film may be on, by their TMDB numbers. */
const providers = [
  { provider_id: 8, provider_name: 'Netflix', search: 'https://www.netflix.com/search?q=' },
  { provider_id: 337, provider_name: 'Disney Plus', search: 'https://www.disneyplus.com/search?q=' },
  { provider_id: 356, provider_name: 'Wavve', search: 'https://www.wavve.com/search?searchWord=' },
  { provider_id: 97, provider_name: 'Watcha', search: 'https://watcha.com/search?query=' },
  { provider_id: 350, provider_name: 'Apple TV', search: 'https://tv.apple.com/search?term=' },
  { provider_id: 3, provider_name: 'Google Play', search: 'https://play.google.com/store/search?c=movies&q=' },
  { provider_id: 1883, provider_name: 'TVING', search: 'https://www.tving.com/search?keyword=' },
]

/** A mood, and which films are of it. */
const moods: { tag: string; has: (film: CatalogueFilm) => boolean }[] = [
  { tag: '웃고 싶을 때', has: ({ genres }) => genres.includes('Comedy') && !genres.includes('Romance') },
  { tag: '설레고 싶을 때', has: ({ genres }) => genres.includes('Romance') },
  { tag: '손에 땀을 쥐고', has: ({ genres }) => genres.includes('Thriller') },
  { tag: '무서운 밤', has: ({ genres }) => genres.includes('Horror') },
  { tag: '신나게 달리는', has: ({ genres }) => genres.includes('Action') },
  { tag: '먼 곳으로', has: ({ genres }) => genres.includes('Adventure') },
  { tag: '깊은 여운', has: ({ genres, vote_average }) => genres.includes('Drama') && vote_average >= 7 },
  { tag: '다른 세상', has: ({ genres }) => genres.includes('Fantasy') || genres.includes('Science Fiction') },
  { tag: '온 가족이', has: ({ genres }) => genres.includes('Family') },
  { tag: '옛날 이야기', has: ({ genres }) => genres.includes('History') },
]

const candidatesOfMood = 20
const rowsAtOnce = 200

export async function countFilms(sql: Sql): Promise<number> {
  const [{ count = 0 } = {}] = await sql<{ count: number }[]>`select count(*)::int from public.movies`
  return count
}

/**
 * Loads the films, the services and the films of each mood; run again, it brings them up to date. Which service has a
 * film is made up (the same each time): the set does not know.
 */
export async function seedCatalogue(
  sql: Sql,
  onProgress: Progress = () => {},
): Promise<{ films: number; links: number }> {
  const films = await readCatalogue()
  const links = films.flatMap(toLinks)
  const total = films.length + links.length
  let done = 0
  await sql`insert into public.ott_providers ${sql(providers, 'provider_id', 'provider_name')}
    on conflict (provider_id) do update set provider_name = excluded.provider_name`
  await sql.begin(async (tx) => {
    for (const batch of inBatches(films)) {
      await tx`insert into public.movies ${tx(batch)} on conflict (movie_id) do update set
        title = excluded.title, runtime = excluded.runtime, genres = excluded.genres, tags = excluded.tags,
        release_date = excluded.release_date, vote_average = excluded.vote_average,
        vote_count = excluded.vote_count, overview = excluded.overview`
      onProgress((done += batch.length), total)
    }
    for (const batch of inBatches(links)) {
      await tx`insert into public.movie_ott_map ${tx(batch)} on conflict (movie_id, provider_id) do update set
        link_url = excluded.link_url, payment_type = excluded.payment_type`
      onProgress((done += batch.length), total)
    }
    await tx`delete from b2c.onboarding_candidates`
    await tx`insert into b2c.onboarding_candidates ${tx(toCandidates(films))}`
  })
  return { films: films.length, links: links.length }
}

function toLinks({ movie_id, title }: CatalogueFilm) {
  return providers
    .filter(({ provider_id }) => hash(movie_id * 31 + provider_id) % 3 === 0)
    .map(({ provider_id, search }) => ({
      movie_id,
      provider_id,
      link_url: search + encodeURIComponent(title),
      payment_type: provider_id === 3 || provider_id === 350 ? 'rent' : 'subscription',
    }))
}

function toCandidates(films: readonly CatalogueFilm[]) {
  const known = films.toSorted((a, b) => b.vote_count - a.vote_count)
  return moods.flatMap(({ tag, has }) =>
    known
      .filter(has)
      .slice(0, candidatesOfMood)
      .map(({ movie_id }) => ({ mood_tag: tag, movie_id })),
  )
}

// Knuth's multiplicative hash: the same spread on every machine.
function hash(value: number): number {
  return Math.imul(value, 2_654_435_761) >>> 16
}

function inBatches<T>(rows: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(rows.length / rowsAtOnce) }, (_, index) =>
    rows.slice(index * rowsAtOnce, (index + 1) * rowsAtOnce),
  )
}
