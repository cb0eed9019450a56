import type { Sql } from '#origin/kit/database.ts'
import type { Film } from './film.ts'
import type { Model } from './model.ts'
import { fromBytes, toBytes } from './model.ts'

/** Where the recommender's tables are made; the films are MovieSir's (`public`), the opinions too (`b2c`). */
export const migrations = { schema: 'recommender', directory: new URL('./migrations/', import.meta.url) }

/**
 * What tells one state of the films from another, without reading them all; empty while there are none, or MovieSir has not
 * made its tables.
 */
export async function readEdition(sql: Sql): Promise<string> {
  if (!(await hasFilmTables(sql))) return ''
  const [{ films = 0, edition = '' } = {}] = await sql<{ films: number; edition: string }[]>`
    select count(*)::int as films, concat(count(*), ' ', sum(hashtextextended(movies::text, 0)), ' ',
      (select sum(hashtextextended(links::text, 0)) from public.movie_ott_map links)) as edition
    from public.movies`
  return films > 0 ? edition : ''
}

async function hasFilmTables(sql: Sql): Promise<boolean> {
  const [{ ready = false } = {}] = await sql<{ ready: boolean }[]>`
    select to_regclass('public.movie_ott_map') is not null as ready`
  return ready
}

/** Every film, by number; none while MovieSir has not made its tables. */
export async function readFilms(sql: Sql): Promise<Film[]> {
  if (!(await hasFilmTables(sql))) return []
  const films = await sql<Film[]>`
    select movie_id, tmdb_id, title, runtime, genres, tags, release_date, vote_average, vote_count, overview,
      poster_path, adult, coalesce(providers, '{}') as providers
    from public.movies left join (
      select movie_id, array_agg(provider_id order by provider_id) as providers from public.movie_ott_map group by movie_id
    ) links using (movie_id) order by movie_id`
  return [...films]
}

/** Who named or played what, one list of films per viewer. */
export async function readHistories(sql: Sql): Promise<number[][]> {
  const rows = await sql<{ films: number[] }[]>`
    select array_agg(distinct movie_id) as films from (
      select user_id, movie_id from b2c.user_onboarding_answers
      union all select user_id, movie_id from b2c.movie_logs
    ) signals group by user_id`
  return rows.map(({ films }) => films)
}

/** Models that are kept, the one that serves included. */
const keptModels = 3

/** Keeps a model: from the commit on it is the newest. Returns its version. */
export async function addModel(sql: Sql, model: Omit<Model, 'version'>, interactions: number): Promise<number> {
  const version = await sql.begin(async (tx) => {
    const [row] = await tx<{ version: string }[]>`insert into recommender.models (interactions, films, bytes)
      values (${interactions}, ${model.films.length}, ${toBytes({ ...model, version: 0 })}) returning version`
    await tx`delete from recommender.models where version not in (
      select version from recommender.models order by version desc limit ${keptModels})`
    return row?.version
  })
  return Number(version)
}

/** The newest model, if it is newer than the one that is known. */
export async function readModel(sql: Sql, knownVersion = 0): Promise<Model | undefined> {
  const [newest] = await sql<{ version: string }[]>`select max(version) as version from recommender.models`
  if (!newest?.version || Number(newest.version) <= knownVersion) return undefined
  const [row] = await sql<{ bytes: Buffer }[]>`select bytes from recommender.models where version = ${newest.version}`
  return row && fromBytes(row.bytes, Number(newest.version))
}
