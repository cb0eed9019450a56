import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { Log } from '#origin/kit/api.ts'
import { openDatabase } from '#origin/kit/database.ts'
import type { EmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import type { QueueBounds } from '../admission/queue.ts'
import { WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'
import type { Film } from '../recommender/film.ts'
import type { Random } from '../recommender/random.ts'
import type { LexicalVectors, Vectors } from '../recommender/text-vectors.ts'
import { lexicalVectors, toFilmText } from '../recommender/text-vectors.ts'
import type { Telemetry } from '../telemetry.ts'
import type { Asking } from './embed.ts'
import { embed, embedPatiently } from './embed.ts'
import { createFilmMemory } from './film-memory.ts'
import type { FilmSearch, Search, SearchedFilms } from './film-search.ts'
import { createFilmSearch } from './film-search.ts'
import { openFilmTable, preparePgvector, tableDimensionMax } from './film-table.ts'
import { toHistogram } from './plan.ts'
import type { ProjectionWorkerData } from './projection-worker.ts'
import { createTextStore, textMigrations, toTextKey } from './text-store.ts'

/** What makes vectors of texts: the model that `/v1/embeddings` of the worker is asked for. */
type Embedding = {
  model: string
  /** Where the worker is, once it listens. */
  url: Promise<string>
  /** An `Authorization` field for work that nobody waits for. */
  authorize(): Promise<string>
}

/** What films are compared by: the name of what made it, and a vector for each film, in the order of the films. */
type FilmTexts = { model: string; vectors: Vectors }

type SimilarFilm = Pick<
  Film,
  | 'movie_id'
  | 'tmdb_id'
  | 'title'
  | 'runtime'
  | 'genres'
  | 'release_date'
  | 'vote_average'
  | 'vote_count'
  | 'overview'
  | 'poster_path'
> & { likeness: number }

type SimilarSearch = Omit<Search, 'of'> & {
  /** A text, or the number of a film. */
  of: string | number
  /** The caller's own `Authorization` field: its text is embedded on its account. */
  authorization: string
}

export type FilmVectors = {
  /**
   * The best there is now for these films, which `content` tells from others: vectors of words at once, those of the model
   * when all texts have been embedded. What failed is tried again.
   */
  of(films: readonly Film[], content: string): FilmTexts
  /** Calls back when there are better ones. */
  onBetter(tell: () => void): void
  /** The nearest films first, and the name of what compares them. Throws a WorkerError. */
  similar(search: SimilarSearch): Promise<{ model: string; films: SimilarFilm[] }>
  search: FilmSearch
  stop(): Promise<void>
}

type Options = {
  databaseUrl: string | undefined
  embedded: EmbeddedPostgres | undefined
  /** Absent: films are compared by their words. */
  embedding: Embedding | undefined
  bounds: QueueBounds
  limits: Limits
  telemetry: Telemetry
  now: () => number
  log: Log
  random?: Random
}

/** The films as they were read last, and what serves for them. */
type Shown = {
  content: string
  films: Map<number, Film>
  texts: FilmTexts
  searched: SearchedFilms
  toVector(text: string, search: SimilarSearch): Promise<Float32Array> | Float32Array
  isBest: boolean
}

/** A vector for each film and what it is known by. */
type Made = { model: string; keys: string[]; vectors: Vectors; toVector: Shown['toVector'] }

const system = 'vectors'
/** Length of the vectors that the recommender compares in memory. */
const shelfDimension = 128

/** Vectors of films: made from their texts, kept in the database, searched there or, where it cannot, in memory. */
export function createFilmVectors(options: Options): FilmVectors {
  const { databaseUrl, embedded, embedding, bounds, limits, telemetry, now, log, random } = options
  // On the embedded database one statement runs at a time, and none can be cancelled.
  const searchesMax = databaseUrl ? limits.vectorSearchesMax : 1
  const database = openDatabase({ name: 'vectors', url: databaseUrl, embedded, connectionsMax: searchesMax + 1 })
  const { sql } = database
  const search = createFilmSearch({ searchesMax, bounds, limits, telemetry, now, random })
  const stopping = new AbortController()
  const listeners: (() => void)[] = []
  let shown: Shown | undefined
  let prepared: Promise<boolean> | undefined
  let making: { work: Promise<void>; replaced: AbortController } | undefined
  let indexing: Promise<void> | undefined
  let failure = ''
  return { of: takeBest, onBetter: (tell) => void listeners.push(tell), similar, search, stop }

  function takeBest(films: readonly Film[], content: string): FilmTexts {
    if (shown?.content !== content) {
      shown = toFirst(films, content)
      making?.replaced.abort()
      making = begin(films, shown, making?.work)
    } else if (!shown.isBest && !making) making = begin(films, shown)
    return shown.texts
  }

  /** Words, in memory: there at once. */
  function toFirst(films: readonly Film[], content: string): Shown {
    const vectors = lexicalVectors(films.map(toFilmText))
    return {
      content,
      films: new Map(films.map((film) => [film.movie_id, film])),
      texts: { model: 'lexical', vectors },
      searched: { nearest: createFilmMemory(films, vectors).nearest, histogram: toHistogram(films), hasIndex: false },
      toVector: vectors.toVector,
      isBest: false,
    }
  }

  function begin(films: readonly Film[], first: Shown, before?: Promise<void>): typeof making {
    const replaced = new AbortController()
    const signal = AbortSignal.any([replaced.signal, stopping.signal])
    const work = (async () => {
      await before
      try {
        const better = await improve(films, first, signal)
        signal.throwIfAborted()
        shown = better
        failure = ''
        for (const tell of listeners) tell()
      } catch (error) {
        if (!signal.aborted) tellOnce(error as Error)
      } finally {
        if (making?.replaced === replaced) making = undefined
      }
    })()
    return { work, replaced }
  }

  /** A failure is told when it is another than the last time. */
  function tellOnce({ message }: Error): void {
    if (message !== failure) log({ event: 'vectors failed', system, reason: message })
    failure = message
  }

  async function improve(films: readonly Film[], first: Shown, signal: AbortSignal): Promise<Shown> {
    const lexical = first.texts.vectors as LexicalVectors
    const hasPgvector = await (prepared ??= prepare().catch((error: unknown) => {
      prepared = undefined
      throw error
    }))
    const made = embedding ? await embedFilms(embedding, films, signal) : toMade(lexical, films)
    const searched = hasPgvector && made.vectors.dimension <= tableDimensionMax
    const own = {
      ...first.searched,
      ...(searched ? await writeTable(films, made) : { nearest: createFilmMemory(films, made.vectors).nearest }),
    }
    const vectors = embedding ? await project(made.vectors, signal) : lexical
    const { dimension } = made.vectors
    log({
      event: 'vectors',
      system,
      model: made.model,
      films: films.length,
      dimension,
      in: searched ? 'the database' : 'memory',
    })
    return {
      ...first,
      texts: { model: embedding ? made.model : 'lexical', vectors },
      searched: own,
      toVector: made.toVector,
      isBest: true,
    }
  }

  /** Whether the database can search; says once why not. */
  async function prepare(): Promise<boolean> {
    await applyMigrations(sql, textMigrations)
    const state = await preparePgvector(sql)
    if ('version' in state) return true
    log({ event: 'no pgvector', system, message: `films are searched in memory: ${state.missing}` })
    return false
  }

  /** What words say depends on all the texts there are: so does what they are known by. */
  function toMade(lexical: LexicalVectors, films: readonly Film[]): Made {
    const texts = films.map(toFilmText)
    const corpus = createHash('sha256').update(texts.join('\n')).digest('hex')
    const keys = texts.map((text) => toTextKey(`lexical ${corpus}`, text))
    return { model: 'lexical', keys, vectors: lexical, toVector: lexical.toVector }
  }

  async function embedFilms({ model, url, authorize }: Embedding, films: readonly Film[], signal: AbortSignal) {
    const store = createTextStore(sql, model)
    const texts = films.map((film) => cut(toFilmText(film), limits.textBytesMax))
    const keys = texts.map((text) => toTextKey(model, text))
    const known = await store.read()
    const missing = [...new Map(keys.map((key, at) => [key, texts[at]!]))].filter(([key]) => !known.has(key))
    const asking = { url: await url, model, authorize, withinMs: limits.embedTimeoutMs, signal }
    const startedAt = now()
    for (let at = 0, told = 0; at < missing.length; at += limits.embedBatchMax) {
      const batch = missing.slice(at, at + limits.embedBatchMax)
      const vectors = await embedPatiently(
        batch.map(([, text]) => text),
        asking,
        { limits },
      )
      const made = new Map(batch.map(([key], index) => [key, vectors[index]!]))
      await store.add(made)
      for (const [key, vector] of made) known.set(key, vector)
      const done = at + batch.length
      if (done < missing.length && done - told < missing.length / 10) continue
      told = done
      log({ event: 'embedding', system, model, done, of: missing.length, ms: Math.round(now() - startedAt) })
    }
    await store.forget(new Set(keys))
    return { model, keys, vectors: toVectors(keys, known), toVector: embedText } satisfies Made

    async function embedText(text: string, { authorization, deadlineAt, signal: left }: SimilarSearch) {
      const query: Asking = { url: asking.url, model, authorization, withinMs: deadlineAt - now(), signal: left }
      const [vector] = await embed([cut(text, limits.textBytesMax)], query)
      return vector!
    }
  }

  async function writeTable(films: readonly Film[], { model, keys, vectors }: Made) {
    const { dimension, values } = vectors
    const table = await openFilmTable(sql, { model, dimension, bounds: limits })
    await table.write(
      films.map((film, at) => ({
        ...film,
        textKey: keys[at]!,
        vector: values.subarray(at * dimension, (at + 1) * dimension),
      })),
    )
    const hasIndex = await table.hasIndex()
    // Building takes minutes, and on the embedded database nobody else would get an answer meanwhile.
    if (databaseUrl && !hasIndex && films.length >= limits.vectorIndexFilmsMin)
      indexing ??= buildIndex(table, films.length).finally(() => (indexing = undefined))
    return { nearest: table.nearest, hasIndex }
  }

  async function buildIndex(table: Awaited<ReturnType<typeof openFilmTable>>, films: number): Promise<void> {
    const startedAt = now()
    try {
      const isBuilt = await table.buildIndex()
      log({ event: 'index', system, films, state: isBuilt ? 'built' : 'being built elsewhere', ms: now() - startedAt })
      if (shown?.searched.nearest === table.nearest) shown.searched = { ...shown.searched, hasIndex: isBuilt }
    } catch (error) {
      tellOnce(error as Error)
    }
  }

  async function similar(asked: SimilarSearch): ReturnType<FilmVectors['similar']> {
    const current = shown
    if (!current)
      throw new WorkerError('recommender_unavailable', 'The films are not loaded yet', { retryAfterSeconds: 1 })
    const { of: what, authorization: _, ...rest } = asked
    const of = typeof what === 'number' ? what : await current.toVector(what, asked)
    const near = await search.search(current.searched, { ...rest, of })
    if (!near) throw new WorkerError('not_found', `There is no film ${of}`, { param: 'film_id' })
    const films = near.flatMap(({ movie_id, likeness }) => {
      const film = current.films.get(movie_id)
      return film ? [toSimilar(film, likeness)] : []
    })
    return { model: current.texts.model, films }
  }

  async function stop(): Promise<void> {
    stopping.abort(new Error('the worker stops'))
    await search.close()
    await making?.work
    await database.close()
    await indexing
  }
}

function toSimilar(film: Film, likeness: number): SimilarFilm {
  const { tags: _tags, adult: _adult, providers: _providers, ...rest } = film
  return { ...rest, likeness: Math.round(likeness * 10_000) / 10_000 }
}

function toVectors(keys: readonly string[], known: ReadonlyMap<string, Float32Array>): Vectors {
  const rows = keys.map((key) => known.get(key)!)
  const dimension = rows[0]?.length ?? 0
  if (rows.some(({ length }) => length !== dimension))
    throw new Error('the model gives vectors of another length than it did: delete its rows of vectors.texts')
  const values = new Float32Array(rows.length * dimension)
  for (const [at, row] of rows.entries()) values.set(row, at * dimension)
  return { dimension, values }
}

/** The text without what is beyond so many bytes of UTF-8. */
function cut(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text)
  return bytes.length <= bytesMax ? text : bytes.toString('utf8', 0, bytesMax).replace(/\uFFFD+$/, '')
}

/** Shorter vectors, made in a thread of their own: it takes seconds. */
async function project(vectors: Vectors, signal: AbortSignal): Promise<Vectors> {
  const { dimension, values } = vectors
  if (dimension <= shelfDimension || values.length / dimension <= shelfDimension) return vectors
  const workerData: ProjectionWorkerData = { vectors, dimension: shelfDimension }
  const worker = new Worker(new URL('./projection-worker.ts', import.meta.url), { workerData })
  try {
    const [projected] = (await once(worker, 'message', { signal })) as [Vectors]
    return projected
  } finally {
    await worker.terminate()
  }
}
