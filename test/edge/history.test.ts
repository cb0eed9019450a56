import { describe, expect, it } from 'vitest'
import { addDuration, createDurations, quantile } from '#edge/durations.ts'
import { createHistory } from '#edge/history.ts'
import { limits } from '#edge/limits.ts'
import type { RouteCounts } from '#edge/metrics.ts'
import { start } from '../support/decisions.ts'

describe('durations', () => {
  it.each([0.004, 0.9, 1, 7.3, 250, 12_345, 1_000_000])('has a quantile of %d ms within 7 %%', (milliseconds) => {
    const counts = createDurations()
    for (let times = 0; times < 100; times++) addDuration(counts, milliseconds)
    for (const share of [0, 0.5, 0.99, 1])
      expect(Math.abs((quantile(counts, undefined, share) ?? 0) - milliseconds)).toBeLessThan(milliseconds * 0.07)
  })

  it('tells the middle from the slowest', () => {
    const counts = createDurations()
    for (let milliseconds = 1; milliseconds <= 1_000; milliseconds++) addDuration(counts, milliseconds)
    expect(quantile(counts, undefined, 0.5)).toBeGreaterThan(465)
    expect(quantile(counts, undefined, 0.5)).toBeLessThan(535)
    expect(quantile(counts, undefined, 0.99)).toBeGreaterThan(920)
  })

  it('counts only what came since', () => {
    const counts = createDurations()
    addDuration(counts, 1_000)
    const before = counts.slice()
    expect(quantile(counts, before, 0.5)).toBeNull()
    addDuration(counts, 2)
    expect(quantile(counts, before, 0.99)).toBeLessThan(3)
  })

  it.each([-1, 2 ** 40, Number.MAX_VALUE])('keeps %d inside its bounds', (milliseconds) => {
    const counts = createDurations()
    addDuration(counts, milliseconds)
    expect(counts.reduce((sum, count) => sum + count)).toBe(1)
  })
})

/** A history whose clock is moved by steps, and rows that are counted. */
function createWorld() {
  const history = createHistory(start)
  const rows = new Map<string, RouteCounts>()
  let now = start

  function count(route: string, { site = 'shop.example', errors = 0, clientErrors = 0, times = 1, ms = 10 } = {}) {
    const key = `${site} ${route}`
    const row = rows.get(key) ?? {
      table: 'shop',
      site,
      route,
      requests: 0,
      errors: 0,
      clientErrors: 0,
      durations: createDurations(),
      limits: {},
      auth: {},
      cache: {},
    }
    rows.set(key, row)
    row.requests += times
    row.errors += errors
    row.clientErrors += clientErrors
    for (let time = 0; time < times; time++) addDuration(row.durations, ms)
  }

  function pass(steps = 1): void {
    for (let step = 0; step < steps; step++) {
      now += limits.historyStepMs
      history.take([...rows.values()], now)
    }
  }

  return { history, count, pass, now: () => now, points: (range: '15m' | '6h') => history.points({}, range, now) }
}

const row = { table: 'shop', site: 'shop.example', route: 'shop /a' }

describe('the history', () => {
  it('tells rates and quantiles of rows, of sites and of all', () => {
    const { history, count, pass } = createWorld()
    pass(12)
    count('shop /a', { times: 60, ms: 10 })
    count('shop /b', { times: 30, errors: 6, clientErrors: 3, ms: 500 })
    count('other /', { site: 'other.example', times: 30 })
    pass()
    expect(history.traffic(row)).toMatchObject({ requests: 60, requestsPerSecond: 1, errorsPerSecond: 0 })
    expect(history.traffic({ table: 'shop', site: 'shop.example' })).toMatchObject({
      requestsPerSecond: 1.5,
      errorsPerSecond: 0.1,
      clientErrorsPerSecond: 0.05,
    })
    expect(history.traffic({})).toMatchObject({ requests: 120, requestsPerSecond: 2 })
    expect(history.traffic({})?.p50Ms).toBeLessThan(11)
    expect(history.traffic({})?.p99Ms).toBeGreaterThan(450)
    expect(history.traffic({ ...row, route: 'shop /never' })).toBeUndefined()
  })

  it('forgets what is older than a minute where it tells of the last minute', () => {
    const { history, count, pass } = createWorld()
    count('shop /a', { times: 100, ms: 900 })
    pass(12)
    expect(history.traffic(row)?.p99Ms).toBeGreaterThan(800)
    pass()
    expect(history.traffic(row)).toMatchObject({ requests: 100, requestsPerSecond: 0, p50Ms: null, p99Ms: null })
  })

  it('does not spread the first seconds over a minute', () => {
    const { history, count, pass, points } = createWorld()
    count('shop /a', { times: 50 })
    pass()
    expect(history.traffic(row)?.requestsPerSecond).toBe(10)
    expect(points('15m').requestsPerSecond.at(-1)).toBe(10)
  })

  it('has a point for each step of the last 15 minutes, none from before the start', () => {
    const { count, pass, points } = createWorld()
    pass(2)
    count('shop /a', { times: 20, errors: 5, ms: 40 })
    pass()
    const { requestsPerSecond, errorsPerSecond, p50Ms, stepMs, from } = points('15m')
    expect(requestsPerSecond).toHaveLength(limits.historySteps)
    expect(requestsPerSecond.slice(-4)).toEqual([null, 0, 0, 4])
    expect(errorsPerSecond.at(-1)).toBe(1)
    expect(p50Ms.slice(-2)).toEqual([null, expect.closeTo(40, -1)])
    expect(stepMs).toBe(5_000)
    expect(from + stepMs * limits.historySteps).toBe(start + 3 * stepMs)
  })

  it('has a point for each minute of the last 6 hours', () => {
    const { count, pass, points } = createWorld()
    for (let minute = 0; minute < 400; minute++) {
      count('shop /a', { times: 60 * minute })
      pass(12)
    }
    const { requestsPerSecond, stepMs } = points('6h')
    expect(stepMs).toBe(60_000)
    expect(requestsPerSecond).toHaveLength(limits.historyMinutes)
    expect(requestsPerSecond.slice(-2)).toEqual([398, 399])
    expect(requestsPerSecond[0]).toBe(40)
  })

  it('is not confused by a clock that is set back or leaps', () => {
    const history = createHistory(start)
    const counts = [
      {
        ...row,
        requests: 5,
        errors: 0,
        clientErrors: 0,
        durations: createDurations(),
        limits: {},
        auth: {},
        cache: {},
      },
    ]
    history.take(counts, start)
    history.take(counts, start - 3_600_000)
    history.take(counts, start + 86_400_000)
    expect(history.points({}, '15m', start + 86_400_000).requestsPerSecond.at(-1)).toBe(0)
  })
})
