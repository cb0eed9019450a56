import { isUnavailable } from '#origin/kit/database.ts'
import { OriginError } from '#origin/kit/error.ts'
import type { WorkerCaller } from '#origin/kit/worker-tokens.ts'
import { admit } from '../admission/admit.ts'
import type { Grant, Lane, Pool } from '../admission/pool.ts'
import { createPool } from '../admission/pool.ts'
import type { QueueBounds } from '../admission/queue.ts'
import { WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'
import type { Random } from '../recommender/random.ts'
import type { VectorTelemetry } from '../telemetry.ts'
import type { FilmTable, Near, Question } from './film-table.ts'
import type { FilmFilter, Histogram, Plan } from './plan.ts'
import { choosePlan, estimateShare } from './plan.ts'

/** Where films are looked for at the moment, and what is known of them. */
export type SearchedFilms = { nearest: FilmTable['nearest']; histogram: Histogram; hasIndex: boolean }

export type Search = {
  caller: Pick<WorkerCaller, 'tenant' | 'band'>
  /** A vector of length 1, or the number of a film. */
  of: Float32Array | number
  filter: FilmFilter
  /** How many at most. */
  count: number
  deadlineAt: number
  /** The client has left. */
  signal: AbortSignal
}

export type FilmSearch = {
  pool: Pool
  /** The nearest first; undefined when there is no such film. Throws a WorkerError. */
  search(films: SearchedFilms, search: Search): Promise<Near[] | undefined>
  /** Lets the searches end that only measure. */
  close(): Promise<void>
}

type Options = {
  /** Searches at once. */
  searchesMax: number
  bounds: QueueBounds
  limits: Limits
  telemetry: VectorTelemetry
  now: () => number
  random?: Random
}

/**
 * Searches wait as requests for a model do, in a line of their own: what a search takes of the database is the rows that
 * it is expected to compare, as what a request takes of a model is tokens.
 */
export function createFilmSearch(options: Options): FilmSearch {
  const { searchesMax, bounds, limits, telemetry, now, random = Math.random } = options
  const lane: Lane = {
    name: 'database',
    requestsMax: searchesMax,
    tokensMax: Infinity,
    requests: 0,
    tokens: 0,
    usable: true,
    saturated: false,
  }
  const pool = createPool({ name: 'vectors', lanes: [lane], bounds, limits, now })
  const leaving = new AbortController()
  const measuring = new Set<Promise<void>>()
  /** What a search takes, on the mean of late, by how it is done. */
  const meanMs: Record<Plan['kind'], number> = { exact: 0, hnsw: 0 }
  return { pool, search, close }

  async function search(films: SearchedFilms, asked: Search): Promise<Near[] | undefined> {
    const { histogram, hasIndex } = films
    const { filter, count } = asked
    const share = estimateShare(histogram, filter)
    const plan = choosePlan({ films: histogram.films, share, count, hasIndex }, limits)
    const found = await inSlot(films, asked, plan)
    if (plan.kind === 'hnsw' && found && random() < limits.vectorMonitorShare) measure(films, asked, found)
    return found
  }

  async function inSlot(films: SearchedFilms, asked: Search, plan: Plan): Promise<Near[] | undefined> {
    const { caller, deadlineAt, signal, count, filter } = asked
    const { tenant, band } = caller
    const grant = await enter({ tenant, band, ...toShareOf(plan), deadlineAt, enqueuedAt: now() }, signal)
    try {
      const found = await timed(films, { ...toQuestion(asked), plan: plan.kind })
      const expected = Math.min(count, estimateShare(films.histogram, filter) * films.histogram.films)
      // The index gave up, or fewer fit than was thought: only comparing all tells.
      if (plan.kind === 'exact' || !found || found.length >= expected) return found
      telemetry.short.add({})
      return await timed(films, { ...toQuestion(asked), plan: 'exact' })
    } catch (error) {
      throw toRefusal(error)
    } finally {
      grant.release()
    }
  }

  async function enter(waiting: Parameters<typeof admit>[1], signal: AbortSignal): Promise<Grant> {
    try {
      const grant = await admit(pool, waiting, signal)
      telemetry.admission.add({ outcome: 'admitted' })
      telemetry.queue.observe({ band: waiting.band }, grant.waitedMs / 1_000)
      return grant
    } catch (error) {
      if (error instanceof WorkerError) telemetry.admission.add({ outcome: error.code })
      throw error
    }
  }

  /** What it takes of the line. */
  function toShareOf({ kind, rows }: Plan) {
    return { tokens: 1 + Math.ceil(rows / rowsPerToken), bytes: 0, needsMs: meanMs[kind] }
  }

  function toQuestion({ of, filter, count, deadlineAt }: Search): Omit<Question, 'plan'> {
    return { of, filter, count, withinMs: deadlineAt - now() }
  }

  async function timed(films: SearchedFilms, question: Question): Promise<Near[] | undefined> {
    const startedAt = now()
    const found = await films.nearest(question)
    const ms = now() - startedAt
    meanMs[question.plan] += (ms - meanMs[question.plan]) * 0.1
    telemetry.search.observe({ plan: question.plan }, ms / 1_000)
    return found
  }

  /** Asks once more, exactly, behind everybody else, and counts how many of the first ten the index has found. */
  function measure(films: SearchedFilms, asked: Search, found: readonly Near[]): void {
    if (measuring.size >= measuringMax) return
    const again: Search = {
      ...asked,
      caller: { ...asked.caller, band: 'batch' },
      count: Math.min(recallAt, asked.count),
      deadlineAt: now() + limits.vectorDeadlineMs,
      signal: leaving.signal,
    }
    const work = recall(films, again, found).finally(() => measuring.delete(work))
    measuring.add(work)
  }

  async function recall(films: SearchedFilms, again: Search, found: readonly Near[]): Promise<void> {
    const { histogram } = films
    const rows = Math.ceil(histogram.films * estimateShare(histogram, again.filter))
    try {
      const exact = await inSlot(films, again, { kind: 'exact', rows })
      if (exact && exact.length > 0) telemetry.recall.observe({}, toRecall(found, exact))
    } catch {
      // Who only measures gives way.
    }
  }

  async function close(): Promise<void> {
    leaving.abort()
    await Promise.all(measuring)
  }
}

const recallAt = 10
const measuringMax = 4
/** What counts as a token in the line: a turn of a tenant is worth about 200,000 rows. */
const rowsPerToken = 100

function toRecall(found: readonly Near[], exact: readonly Near[]): number {
  const first = new Set(found.slice(0, exact.length).map(({ movie_id }) => movie_id))
  return exact.filter(({ movie_id }) => first.has(movie_id)).length / exact.length
}

const canceled = '57014'

function toRefusal(error: unknown): unknown {
  const isGone = error instanceof OriginError && error.code === 'database_unavailable'
  if (isGone || isUnavailable(error))
    return new WorkerError('upstream_unavailable', 'The database cannot be reached', {
      cause: error,
      retryAfterSeconds: 5,
    })
  if (error instanceof Error && 'code' in error && error.code === canceled)
    return new WorkerError('deadline_exceeded', 'The answer was not ready in time', { cause: error })
  return error
}
