import { createDurations, quantile } from './durations.ts'
import { limits } from './limits.ts'
import type { RouteCounts } from './metrics.ts'

/**
 * What the counters said over time, of each row, each site and all together: taken every `limits.historyStepMs` from
 * what is counted anyway, so that no request pays for it. One that has had traffic takes about 28 KB, the others
 * nothing.
 */
export interface History {
  /** Looks at the counters; called at the end of every step. */
  take(counts: RouteCounts[], now: number): void
  /** The last minute and the total; undefined: there never was a request. */
  traffic(scope: Scope): Traffic | undefined
  points(scope: Scope, range: Range, now: number): Points
}

/** A row of a site, a site with all its rows, or, with an empty table, everything. */
export interface Scope {
  table?: string
  site?: string
  /** undefined: the whole site; empty: what none of its rows matched. */
  route?: string
}

export interface Traffic {
  /** Since the start. */
  requests: number
  errors: number
  clientErrors: number
  /** Of the last minute. */
  requestsPerSecond: number
  errorsPerSecond: number
  clientErrorsPerSecond: number
  p50Ms: number | null
  p99Ms: number | null
  /** Requests per second over the last 15 minutes, in 45 steps; null: before the start. */
  recent: (number | null)[]
}

export const ranges = ['15m', '6h'] as const
export type Range = (typeof ranges)[number]

/** The oldest first; null: nothing was seen then. */
export interface Points {
  /** Milliseconds since the epoch: the beginning of the first step. */
  from: number
  stepMs: number
  requestsPerSecond: (number | null)[]
  errorsPerSecond: (number | null)[]
  clientErrorsPerSecond: (number | null)[]
  p50Ms: (number | null)[]
  p99Ms: (number | null)[]
}

const stepsPerMinute = 60_000 / limits.historyStepMs
const measures = ['requestsPerSecond', 'errorsPerSecond', 'clientErrorsPerSecond', 'p50Ms', 'p99Ms'] as const
const recentSteps = 45

/** `startedAt`: milliseconds since the epoch, when counting began. */
export function createHistory(startedAt: number): History {
  const tracks = new Map<string, Track>()
  let startedAtStep: number | undefined

  function take(counts: RouteCounts[], now: number): void {
    const step = Math.round(now / limits.historyStepMs) - 1
    startedAtStep ??= step
    for (const [key, sum] of sumUp(counts)) {
      const track = tracks.get(key) ?? createTrack(startedAt)
      tracks.set(key, track)
      track.take(sum, step, now)
    }
  }

  function points(scope: Scope, range: Range, now: number): Points {
    const stepMs = range === '15m' ? limits.historyStepMs : 60_000
    const count = range === '15m' ? limits.historySteps : limits.historyMinutes
    const last = Math.floor(now / stepMs) - 1
    const first = last - count + 1
    const started = Math.floor(((startedAtStep ?? last + 1) * limits.historyStepMs) / stepMs)
    const ring = tracks.get(toKey(scope))?.[range === '15m' ? 'steps' : 'minutes']
    const series = measures.map((measure) => [
      measure,
      Array.from({ length: count }, (_, index) =>
        first + index < started ? null : read(ring, measure, first + index),
      ),
    ])
    return { from: first * stepMs, stepMs, ...Object.fromEntries(series) }
  }

  /** A step in which nothing was counted had no requests. */
  function read(ring: Ring | undefined, measure: Measure, step: number): number | null {
    const value = ring?.at(measure, step) ?? null
    return value === null && measure.endsWith('PerSecond') ? 0 : value
  }

  return { take, points, traffic: (scope) => tracks.get(toKey(scope))?.traffic() }
}

type Measure = (typeof measures)[number]

interface Sum {
  requests: number
  errors: number
  clientErrors: number
  durations: Uint32Array
}

/** One row, site, or all: its counters as they were over the last minute, and what came of those before. */
interface Track {
  steps: Ring
  minutes: Ring
  take(sum: Sum, step: number, now: number): void
  traffic(): Traffic
}

function createTrack(startedAt: number): Track {
  const steps = createRing(limits.historySteps)
  const minutes = createRing(limits.historyMinutes)
  /** The newest last; one more than there are steps in a minute. */
  let seen: (Sum & { step: number })[] = []
  let ofLastMinute = toValues(nothing, nothing, 1)

  function take(sum: Sum, step: number, now: number): void {
    const before = seen.at(-1) ?? { ...nothing, step: step - 1 }
    // A clock that was set back, or two looks at once.
    if (step <= before.step) return
    const last = { ...sum, durations: sum.durations.slice(), step }
    const sinceStartMs = Math.max(1, now - startedAt)
    steps.put(step, toValues(last, before, Math.min(sinceStartMs, (step - before.step) * limits.historyStepMs)))
    seen = [...seen.slice(-stepsPerMinute), last]
    const first = seen.findLast((one) => one.step <= step - stepsPerMinute) ?? nothing
    ofLastMinute = toValues(last, first, Math.min(sinceStartMs, 60_000))
    if ((step + 1) % stepsPerMinute === 0) minutes.put((step + 1) / stepsPerMinute - 1, ofLastMinute)
  }

  function traffic(): Traffic {
    const { requests, errors, clientErrors, step } = seen.at(-1) ?? { ...nothing, step: 0 }
    const perRecent = limits.historySteps / recentSteps
    const recent = Array.from({ length: recentSteps }, (_, index) => {
      const first = step - limits.historySteps + 1 + index * perRecent
      const values = Array.from({ length: perRecent }, (__, at) => steps.at('requestsPerSecond', first + at))
      const known = values.filter((value) => value !== null)
      return known.length === 0 ? null : round(known.reduce((sum, value) => sum + value, 0) / known.length)
    })
    return { requests, errors, clientErrors, ...(ofLastMinute as LastMinute), recent }
  }

  return { steps, minutes, take, traffic }
}

type LastMinute = Pick<Traffic, Measure>

const nothing: Sum = { requests: 0, errors: 0, clientErrors: 0, durations: createDurations() }

function toValues(now: Sum, before: Sum, milliseconds: number): Record<Measure, number | null> {
  const rate = (name: 'requests' | 'errors' | 'clientErrors'): number =>
    round((Math.max(0, now[name] - before[name]) * 1_000) / milliseconds)
  return {
    requestsPerSecond: rate('requests'),
    errorsPerSecond: rate('errors'),
    clientErrorsPerSecond: rate('clientErrors'),
    p50Ms: quantile(now.durations, before.durations, 0.5),
    p99Ms: quantile(now.durations, before.durations, 0.99),
  }
}

const round = (value: number): number => Math.round(value * 1_000) / 1_000

/** The values of the last `size` steps; NaN where there is none. */
interface Ring {
  put(step: number, values: Record<Measure, number | null>): void
  at(measure: Measure, step: number): number | null
}

function createRing(size: number): Ring {
  const values = new Float32Array(size * measures.length).fill(Number.NaN)
  const written = new Float64Array(size).fill(-1)
  return {
    put(step, of) {
      written[step % size] = step
      for (const [index, measure] of measures.entries())
        values[(step % size) * measures.length + index] = of[measure] ?? Number.NaN
    },
    at(measure, step) {
      if (written[step % size] !== step) return null
      const value = values[(step % size) * measures.length + measures.indexOf(measure)] ?? Number.NaN
      return Number.isNaN(value) ? null : round(value)
    },
  }
}

/** The counters of rows, and their sums for sites and for all. */
function sumUp(counts: RouteCounts[]): Map<string, Sum> {
  const sums = new Map<string, Sum>()
  for (const one of counts) {
    sums.set(toKey(one), one)
    for (const key of [toKey({ table: one.table, site: one.site }), toKey({})]) {
      const sum = sums.get(key) ?? { ...nothing, durations: createDurations() }
      sums.set(key, sum)
      sum.requests += one.requests
      sum.errors += one.errors
      sum.clientErrors += one.clientErrors
      for (let bucket = 0; bucket < one.durations.length; bucket++)
        sum.durations[bucket] = (sum.durations[bucket] ?? 0) + (one.durations[bucket] ?? 0)
    }
  }
  return sums
}

const toKey = ({ table = '', site, route }: Scope): string => JSON.stringify([table, site, route])
