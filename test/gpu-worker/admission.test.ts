import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createBudget } from '#gpu-worker/admission/budget.ts'
import type { Grant, Lane, Ticket } from '#gpu-worker/admission/pool.ts'
import { createPool } from '#gpu-worker/admission/pool.ts'
import { WorkerError } from '#gpu-worker/error.ts'
import { limits } from '#gpu-worker/limits.ts'

/** A pool of one lane on a clock that stands still until it is told to go on. */
function createStand({ requestsMax = 1, tokensMax = 100_000, requests = 100, tokens = 1e6, lanes = 1 } = {}) {
  const all: Lane[] = Array.from({ length: lanes }, (_, index) => ({
    name: `lane-${index}`,
    requestsMax,
    tokensMax,
    requests: 0,
    tokens: 0,
    usable: true,
    saturated: false,
  }))
  const now = (): number => Date.now()
  const pool = createPool({
    name: 'test',
    lanes: all,
    bounds: { requestsMax: requests, tokensMax: tokens, bytesMax: 1e6 },
    limits,
    now,
  })
  const order: string[] = []
  const grants = new Map<string, Grant>()
  const refusals = new Map<string, WorkerError>()
  const tickets = new Map<string, Ticket>()

  function enter(name: string, more: Partial<Ticket> = {}): void {
    const ticket: Ticket = {
      tenant: 'a',
      band: 'standard',
      tokens: 1_000,
      bytes: 100,
      deadlineAt: now() + 60_000,
      enqueuedAt: now(),
      needsMs: 100,
      tried: new Set(),
      onGrant(grant) {
        order.push(name)
        grants.set(name, grant)
      },
      onRefuse: (error) => void refusals.set(name, error),
      ...more,
    }
    tickets.set(name, ticket)
    pool.enter(ticket)
  }

  /** Lets whoever runs end, one after the other, each after so long. */
  function drain(eachMs = 10): string[] {
    for (let at = 0; at < order.length; at++) {
      vi.advanceTimersByTime(eachMs)
      grants.get(order[at] ?? '')?.release()
    }
    return order
  }
  return { pool, lanes: all, order, grants, refusals, tickets, enter, drain }
}

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

describe('slots', () => {
  it('are given at once while there are some, and to those who wait when they come free', () => {
    const { enter, order, grants } = createStand({ requestsMax: 2 })
    for (const name of ['1', '2', '3']) enter(name)
    expect(order).toEqual(['1', '2'])
    grants.get('1')?.release()
    grants.get('1')?.release()
    expect(order).toEqual(['1', '2', '3'])
  })

  it('are bounded by tokens as well', () => {
    const { enter, order, grants } = createStand({ requestsMax: 8, tokensMax: 10_000 })
    enter('1', { tokens: 6_000 })
    enter('2', { tokens: 6_000 })
    enter('3', { tokens: 1_000 })
    expect(order).toEqual(['1'])
    grants.get('1')?.release()
    expect(order).toEqual(['1', '2', '3'])
  })

  it('go to the server with most of its tokens free', () => {
    const { enter, grants } = createStand({ requestsMax: 8, lanes: 2 })
    for (const name of ['1', '2', '3', '4']) enter(name)
    expect([...grants.values()].map(({ lane }) => lane.name)).toEqual(['lane-0', 'lane-1', 'lane-0', 'lane-1'])
  })

  it('are kept in part for the interactive band', () => {
    const { enter, order } = createStand({ requestsMax: 8 })
    for (let index = 1; index <= 8; index++) enter(`${index}`)
    expect(order).toHaveLength(7)
    enter('urgent', { band: 'interactive' })
    expect(order.at(-1)).toBe('urgent')
  })

  it('of a server that says it has enough to do are one at a time', () => {
    const { enter, order, lanes } = createStand({ requestsMax: 8 })
    ;(lanes[0] as Lane).saturated = true
    for (const name of ['1', '2']) enter(name)
    expect(order).toEqual(['1'])
  })
})

describe('the queue', () => {
  it('takes the more urgent band first', () => {
    const { enter, drain } = createStand()
    enter('first')
    enter('batch', { band: 'batch' })
    enter('standard')
    enter('interactive', { band: 'interactive' })
    expect(drain()).toEqual(['first', 'interactive', 'standard', 'batch'])
  })

  it('takes the earliest deadline first', () => {
    const { enter, drain } = createStand()
    for (const [name, ms] of [
      ['first', 60_000],
      ['late', 50_000],
      ['soon', 20_000],
      ['later', 55_000],
    ] as const)
      enter(name, { deadlineAt: Date.now() + ms })
    expect(drain()).toEqual(['first', 'soon', 'late', 'later'])
  })

  it('gives a tenant with two requests its turn before one with twenty has had its own', () => {
    const { enter, drain } = createStand()
    enter('first')
    for (let index = 0; index < 20; index++) enter(`flood-${index}`, { tenant: 'flood' })
    enter('few-1', { tenant: 'few', deadlineAt: Date.now() + 90_000 })
    enter('few-2', { tenant: 'few', deadlineAt: Date.now() + 90_000 })
    const order = drain()
    expect(order.indexOf('few-2')).toBeLessThan(8)
  })

  it('counts turns in tokens: ten small requests go for one large', () => {
    const { enter, drain } = createStand({ tokensMax: 1e6 })
    enter('first')
    for (let index = 0; index < 5; index++) enter(`large-${index}`, { tenant: 'large', tokens: 10_000 })
    for (let index = 0; index < 20; index++)
      enter(`small-${index}`, { tenant: 'small', tokens: 1_000, deadlineAt: Date.now() + 61_000 })
    const order = drain().slice(0, 12)
    expect(order.filter((name) => name.startsWith('small')).length).toBeGreaterThanOrEqual(8)
  })

  it('does not let a lower band wait for ever', () => {
    const { enter, drain } = createStand()
    enter('first')
    enter('old', { band: 'batch', enqueuedAt: Date.now() - 20_000 })
    for (let index = 0; index < 30; index++) enter(`new-${index}`, { band: 'interactive' })
    expect(drain().indexOf('old')).toBeLessThanOrEqual(8)
  })

  it.each([
    ['requests', { requests: 2 }],
    ['tokens', { tokens: 2_000 }],
  ])('has an end, in %s: whoever comes then hears when it is worth coming again', (_, bounds) => {
    const { enter, refusals } = createStand(bounds)
    for (const name of ['1', '2', '3', '4']) enter(name)
    expect(refusals.get('4')).toMatchObject({ code: 'queue_full', status: 429, retryAfterSeconds: expect.any(Number) })
  })

  it('makes room for a higher band at the cost of the last in the lowest', () => {
    const { enter, refusals, drain } = createStand({ requests: 2 })
    enter('first')
    enter('batch-1', { band: 'batch' })
    enter('batch-2', { band: 'batch' })
    enter('urgent', { band: 'interactive' })
    expect([...refusals.keys()]).toEqual(['batch-2'])
    expect(drain()).toEqual(['first', 'urgent', 'batch-1'])
  })

  it('forgets a client that leaves', () => {
    const { enter, pool, tickets, drain } = createStand()
    for (const name of ['1', '2', '3']) enter(name)
    pool.leave(tickets.get('2') as Ticket)
    expect(drain()).toEqual(['1', '3'])
    expect(pool.waiting()).toEqual({ requests: 0, tokens: 0 })
  })
})

describe('deadlines', () => {
  it('that cannot be met are refused at once, with the time after which they could', () => {
    const { enter, drain, refusals } = createStand()
    for (const name of ['1', '2']) enter(name)
    drain(4_000)
    for (const name of ['3', '4', '5']) enter(name)
    enter('6', { deadlineAt: Date.now() + 5_000 })
    const refused = refusals.get('6')
    expect(refused).toMatchObject({ code: 'deadline_exceeded_estimate', status: 503 })
    expect(refused?.retryAfterSeconds).toBeGreaterThan(2)
  })

  it('that pass in the queue end the wait: nothing of it reaches a server', () => {
    const { enter, refusals, order, grants } = createStand()
    enter('1')
    enter('2', { deadlineAt: Date.now() + 1_000 })
    vi.advanceTimersByTime(1_001)
    expect(refusals.get('2')?.code).toBe('deadline_exceeded_estimate')
    grants.get('1')?.release()
    expect(order).toEqual(['1'])
  })

  it('are no reason to refuse what an idle server could try, whatever was learned', () => {
    const { enter, drain, refusals } = createStand()
    enter('1')
    drain(100_000)
    enter('2', { needsMs: 100_000, deadlineAt: Date.now() + 1_000 })
    expect(refusals.size).toBe(0)
  })
})

describe('servers that cannot be asked', () => {
  it('refuse whoever waits for them and whoever comes', () => {
    const { enter, pool, lanes, refusals } = createStand()
    for (const name of ['1', '2']) enter(name)
    ;(lanes[0] as Lane).usable = false
    pool.schedule()
    enter('3')
    expect([...refusals].map(([name, { code }]) => [name, code])).toEqual([
      ['2', 'upstream_unavailable'],
      ['3', 'upstream_unavailable'],
    ])
  })

  it('are not asked again for the request they have failed', () => {
    const { enter, lanes, grants, refusals } = createStand({ lanes: 2 })
    enter('1', { tried: new Set([lanes[0] as Lane]) })
    expect(grants.get('1')?.lane.name).toBe('lane-1')
    enter('2', { tried: new Set(lanes) })
    expect(refusals.get('2')?.code).toBe('upstream_unavailable')
  })
})

describe('a budget of tokens', () => {
  const create = (tokensPerMinute: number | undefined) => createBudget({ tokensPerMinute, limits, now: Date.now })

  it('is not overdrawn by requests that come at once', () => {
    const budget = create(1_000)
    const taken = Array.from({ length: 100 }, () => budget.reserve('a', 300))
    expect(taken.filter((lease) => !(lease instanceof WorkerError))).toHaveLength(3)
    expect(taken.at(-1)).toMatchObject({ code: 'insufficient_quota', status: 429 })
  })

  it('gets back what was not used, once', () => {
    const budget = create(1_000)
    const lease = budget.reserve('a', 900)
    if (lease instanceof WorkerError) throw lease
    lease.settle(100)
    lease.settle(0)
    expect(budget.reserve('a', 900)).not.toBeInstanceOf(WorkerError)
    expect(budget.reserve('a', 1)).toBeInstanceOf(WorkerError)
    expect(budget.reserve('b', 1_000)).not.toBeInstanceOf(WorkerError)
  })

  it('is whole again in the next minute, but for what is still held back', () => {
    const budget = create(1_000)
    budget.reserve('a', 400)
    expect(budget.reserve('a', 700)).toMatchObject({ retryAfterSeconds: expect.any(Number) })
    vi.advanceTimersByTime(60_000)
    expect(budget.reserve('a', 700)).toBeInstanceOf(WorkerError)
    expect(budget.reserve('a', 600)).not.toBeInstanceOf(WorkerError)
  })

  it('does not say when to come again for what it can never give', () => {
    expect(create(1_000).reserve('a', 2_000)).toMatchObject({ retryAfterSeconds: undefined })
  })
})
