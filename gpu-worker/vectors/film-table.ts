import { createHash } from 'node:crypto'
import type { Sql, Transaction } from '#origin/kit/database.ts'
import { isUnavailable } from '#origin/kit/database.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import type { FilmFacts, FilmFilter, Plan } from './plan.ts'
import { yearOf } from './plan.ts'

/** A film with its vector, of length 1. `textKey` is SHA-256 of the model and the text, in hex. */
export type VectorFilm = FilmFacts & { movie_id: number; textKey: string; vector: Float32Array }

/** A film and its likeness to what was asked for: the inner product, 1 for the same. */
export type Near = { movie_id: number; likeness: number }

export type Question = {
  /** A vector of length 1, or a film, which is not among the answers. */
  of: Float32Array | number
  filter: FilmFilter
  /** How many at most. */
  count: number
  plan: Plan['kind']
  /** The database gives up after this, in milliseconds. */
  withinMs: number
}

/** The films of one model in PostgreSQL with pgvector. */
export type FilmTable = {
  /** Makes the table hold these films and no others. Writes what differs, in small statements. */
  write(films: readonly VectorFilm[]): Promise<{ written: number; removed: number }>
  /** The nearest first; undefined when there is no such film. */
  nearest(question: Question): Promise<Near[] | undefined>
  /** What the database would do, a line each. */
  explain(question: Question): Promise<string[]>
  /** Builds the HNSW index where there is none; searches go on meanwhile. False when another program is at it. */
  buildIndex(): Promise<boolean>
  /** Whether there is an index that is whole. */
  hasIndex(): Promise<boolean>
}

export type SearchBounds = { vectorSearchWidth: number; vectorScanTuplesMax: number }

/** Length of a vector, as far as the index takes it. */
export const tableDimensionMax = 4_000

const migrations = { schema: 'film_vectors', directory: new URL('./pgvector-migrations/', import.meta.url) }
/** Iterative scans, without which a filter would cost answers. */
const versionMin = [0, 8]

/** Creates what the tables of films need; the reason in words when this server cannot have it. */
export async function preparePgvector(sql: Sql): Promise<{ version: string } | { missing: string }> {
  const [available] = await sql<{ installed_version: string | null; default_version: string }[]>`
    select installed_version, default_version from pg_available_extensions where name = 'vector'`
  if (!available) return { missing: `pgvector is not on this PostgreSQL server; ${howToGet}` }
  const version = available.installed_version ?? available.default_version
  if (isOlder(version))
    return { missing: `pgvector ${version} is too old, ${versionMin.join('.')} is needed; ${howToGet}` }
  try {
    await applyMigrations(sql, migrations)
    return { version }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === insufficientPrivilege)) throw error
    return { missing: 'this user may not create the extension; as a superuser: create extension vector' }
  }
}

const howToGet = 'install it (Debian: postgresql-<version>-pgvector; Docker: pgvector/pgvector) and start again'
const insufficientPrivilege = '42501'

function isOlder(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [majorMin = 0, minorMin = 0] = versionMin
  return major < majorMin || (major === majorMin && minor < minorMin)
}

/** Opens the table of a model, which is made when absent. */
export async function openFilmTable(
  sql: Sql,
  { model, dimension, bounds }: { model: string; dimension: number; bounds: SearchBounds },
): Promise<FilmTable> {
  const id = await makeTable(sql, model, dimension)
  const table = sql(`film_vectors.films_${id}`)
  const indexName = `films_${id}_nearest`
  return { write, nearest, explain, buildIndex, hasIndex }

  async function write(films: readonly VectorFilm[]): Promise<{ written: number; removed: number }> {
    const kept = await sql<{ movie_id: number; keys: string }[]>`
      select movie_id, encode(text_key || facts_key, 'hex') as keys from ${table}`
    const keysOf = new Map(kept.map(({ movie_id, keys }) => [movie_id, keys]))
    const changed = films.filter((film) => keysOf.get(film.movie_id) !== film.textKey + factsKey(film))
    for (let at = 0; at < changed.length; at += batchFilms) await upsert(changed.slice(at, at + batchFilms))
    const ids = new Set(films.map(({ movie_id }) => movie_id))
    const gone = kept.map(({ movie_id }) => movie_id).filter((movie) => !ids.has(movie))
    if (gone.length > 0) await sql`delete from ${table} where movie_id = any(${gone})`
    return { written: changed.length, removed: gone.length }
  }

  async function upsert(films: readonly VectorFilm[]): Promise<void> {
    await sql`
      insert into ${table} (movie_id, text_key, facts_key, year, runtime, adult, genres, providers, embedding)
      select movie_id, decode(text_key, 'hex'), decode(facts_key, 'hex'), year, runtime, adult, genres, providers,
        embedding::halfvec
      from jsonb_to_recordset(${sql.json(films.map(toRow))}) as film (movie_id integer, text_key text, facts_key text,
        year smallint, runtime integer, adult boolean, genres text[], providers integer[], embedding text)
      on conflict (movie_id) do update set text_key = excluded.text_key, facts_key = excluded.facts_key,
        year = excluded.year, runtime = excluded.runtime, adult = excluded.adult, genres = excluded.genres,
        providers = excluded.providers, embedding = excluded.embedding`
  }

  function nearest(question: Question): Promise<Near[] | undefined> {
    return inTransaction(question, async (tx, vector) => {
      const found = await tx<{ movie_id: number; distance: number }[]>`${toStatement(tx, question, vector)}`
      return found.map(({ movie_id, distance }) => ({ movie_id, likeness: -distance }))
    })
  }

  async function explain(question: Question): Promise<string[]> {
    const lines = await inTransaction(question, async (tx, vector) => {
      const rows = await tx<{ 'QUERY PLAN': string }[]>`explain ${toStatement(tx, question, vector)}`
      return rows.map((row) => row['QUERY PLAN'])
    })
    return lines ?? []
  }

  // Settings hold to the end of the transaction: connections are shared, on the embedded database even one is.
  async function inTransaction<T>(
    { of, plan, withinMs }: Question,
    run: (tx: Transaction, vector: string) => Promise<T>,
  ): Promise<T | undefined> {
    const { vectorSearchWidth, vectorScanTuplesMax } = bounds
    const result = await sql.begin('read only', async (tx) => {
      await tx`select set_config('statement_timeout', ${String(Math.max(1, Math.ceil(withinMs)))}, true)`
      if (plan === 'hnsw')
        await tx`select set_config('hnsw.ef_search', ${String(vectorSearchWidth)}, true),
          set_config('hnsw.iterative_scan', 'relaxed_order', true),
          set_config('hnsw.max_scan_tuples', ${String(vectorScanTuplesMax)}, true),
          set_config('enable_sort', 'off', true)`
      const vector = typeof of === 'number' ? await readVector(tx, of) : toText(of)
      return vector === undefined ? undefined : { value: await run(tx, vector) }
    })
    return result?.value
  }

  async function readVector(tx: Transaction, movieId: number): Promise<string | undefined> {
    const [row] = await tx<{ embedding: string }[]>`
      select embedding::text as embedding from ${table} where movie_id = ${movieId}`
    return row?.embedding
  }

  /**
   * Two statements instead of one whose plan the server chooses. `+ 0` keeps the index out of the exact one; without
   * sorting the other has nothing but the index, and what that hands out in about the right order is sorted behind it.
   */
  function toStatement(tx: Transaction, { of, filter, count, plan }: Question, vector: string) {
    const fits = toConditions(tx, filter, typeof of === 'number' ? of : undefined)
    if (plan === 'exact')
      return tx`select movie_id, (embedding <#> ${vector}::halfvec) + 0 as distance from ${table}
        where ${fits} order by distance, movie_id limit ${count}`
    return tx`with near as materialized (
        select movie_id, embedding <#> ${vector}::halfvec as distance from ${table}
        where ${fits} order by embedding <#> ${vector}::halfvec limit ${count})
      select movie_id, distance from near order by distance + 0, movie_id`
  }

  async function hasIndex(): Promise<boolean> {
    const [index] = await sql`
      select 1 from pg_index where indexrelid = to_regclass(${`film_vectors.${indexName}`}) and indisvalid`
    return index !== undefined
  }

  async function buildIndex(): Promise<boolean> {
    if (await hasIndex()) return true
    const own = await sql.reserve()
    try {
      const [lock] = await own<{ taken: boolean }[]>`
        select pg_try_advisory_lock(hashtextextended(${indexName}, 0)) as taken`
      if (!lock?.taken) return false
      await buildOn(own)
      return true
    } finally {
      own.release()
    }
  }

  async function buildOn(own: Sql): Promise<void> {
    const memory = await graphMemory(own)
    await own`select set_config('statement_timeout', '0', false), set_config('maintenance_work_mem', ${memory}, false)`
    try {
      // One that was broken off is there, and of no use.
      await own`drop index concurrently if exists ${own(`film_vectors.${indexName}`)}`
      await own`create index concurrently ${own(indexName)} on ${table}
        using hnsw (embedding halfvec_ip_ops) with (m = 16, ef_construction = 128)`
    } catch (error) {
      // With the connection its settings and its lock are gone; postgres.js must not be asked for it any more.
      if (!isUnavailable(error)) await giveBack(own)
      throw error
    }
    await giveBack(own)
  }

  async function giveBack(own: Sql): Promise<void> {
    await own`reset statement_timeout`
    await own`reset maintenance_work_mem`
    await own`select pg_advisory_unlock(hashtextextended(${indexName}, 0))`
  }

  /** What the graph takes while it is built: beyond it, building is many times slower. */
  async function graphMemory(own: Sql): Promise<string> {
    const [row] = await own<{ films: string }[]>`select count(*) as films from ${table}`
    const bytes = Number(row?.films ?? 0) * (2 * dimension + graphBytesPerFilm)
    return `${Math.round(Math.min(memoryMbMax, Math.max(memoryMbMin, bytes / 1e6)))}MB`
  }
}

const batchFilms = 100
const graphBytesPerFilm = 700
const [memoryMbMin, memoryMbMax] = [64, 4_096]

async function makeTable(sql: Sql, model: string, dimension: number): Promise<number> {
  return sql.begin(async (tx) => {
    await tx`insert into film_vectors.models (name, dimension) values (${model}, ${dimension}) on conflict do nothing`
    const [row] = await tx<{ model_id: number }[]>`
      select model_id from film_vectors.models where name = ${model} and dimension = ${dimension} for update`
    const id = row?.model_id ?? 0
    const name = `film_vectors.films_${id}`
    const [known] = await tx`select 1 from pg_class where oid = to_regclass(${name})`
    if (!known) await tx.unsafe(toDefinition(name, dimension))
    return id
  })
}

// Beside its row a vector need not be fetched for each comparison, whatever its length.
const toDefinition = (name: string, dimension: number): string => `
  create table ${name} (
    movie_id integer primary key,
    text_key bytea not null,
    facts_key bytea not null,
    year smallint not null,
    runtime integer not null,
    adult boolean not null,
    genres text[] not null,
    providers integer[] not null,
    embedding halfvec(${dimension}) not null);
  alter table ${name} alter column embedding set storage plain;
  create index on ${name} (runtime);
  create index on ${name} (year);
  create index on ${name} using gin (genres);
  create index on ${name} using gin (providers)`

function toConditions(tx: Transaction, filter: FilmFilter, except: number | undefined) {
  const { year_min, year_max, runtime_min, runtime_max, genres, otts, allow_adult = false } = filter
  const conditions = [
    ...(allow_adult ? [] : [tx`not adult`]),
    ...(year_min === undefined ? [] : [tx`year >= ${year_min}`]),
    ...(year_max === undefined ? [] : [tx`year <= ${year_max}`]),
    ...(runtime_min === undefined ? [] : [tx`runtime >= ${runtime_min}`]),
    ...(runtime_max === undefined ? [] : [tx`runtime <= ${runtime_max}`]),
    ...(genres === undefined ? [] : [tx`genres && ${genres as string[]}`]),
    ...(otts === undefined ? [] : [tx`providers && ${otts as number[]}`]),
    ...(except === undefined ? [] : [tx`movie_id <> ${except}`]),
  ]
  return conditions.reduce((all, one) => tx`${all} and ${one}`, tx`true`)
}

const toFacts = (film: FilmFacts) => ({
  year: yearOf(film),
  runtime: film.runtime,
  adult: film.adult,
  genres: film.genres,
  providers: film.providers,
})

const factsKey = (film: FilmFacts): string =>
  createHash('sha256')
    .update(JSON.stringify(toFacts(film)))
    .digest('hex')

const toRow = (film: VectorFilm) => ({
  movie_id: film.movie_id,
  text_key: film.textKey,
  facts_key: factsKey(film),
  ...toFacts(film),
  embedding: toText(film.vector),
})

/** As pgvector reads it: half precision has a little more than three digits. */
const toText = (vector: Float32Array): string =>
  `[${Array.from(vector, (value) => (value === 0 ? '0' : value.toPrecision(5))).join()}]`
