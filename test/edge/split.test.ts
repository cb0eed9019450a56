import { describe, expect, it } from 'vitest'
import { compileTables } from '#edge/compile.ts'
import type { CompiledSplit } from '#edge/compile.ts'
import type { Exchange } from '#edge/exchange.ts'
import type { Split, Table } from '#edge/table.ts'
import { p99Of, noCounts, toBucket } from '#edge/upstreams/outcome-window.ts'
import type { SideCounts } from '#edge/upstreams/outcome-window.ts'
import { createSplitControl } from '#edge/upstreams/split-control.ts'
import type { SavedSplits, SplitControl } from '#edge/upstreams/split-control.ts'
import { createSplitTally } from '#edge/upstreams/split-tally.ts'
import { chooseSide } from '#edge/upstreams/split.ts'

const blueGreen = (split: Partial<Split> = {}, weights = [90, 10]): Split => ({
  sides: {
    blue: { servers: ['http://127.0.0.1:1'], weight: weights[0] ?? 0 },
    green: { servers: ['http://127.0.0.1:2'], weight: weights[1] ?? 0 },
  },
  ...split,
})

async function compile(...splits: [string, Split][]): Promise<CompiledSplit[]> {
  const tables = splits.map(([name, split], index): { table: Table } => ({
    table: {
      name,
      upstreams: { app: { split } },
      sites: [{ hosts: [`h${index}.example`], routes: [{ path: '/*', proxy: { to: 'app' } }] }],
    },
  }))
  return (await compileTables(tables, { environment: {}, development: false })).splits
}

const only = async (split: Split): Promise<CompiledSplit> => (await compile(['shop', split]))[0] as CompiledSplit

const toExchange = (fields: Partial<Exchange> = {}): Exchange =>
  ({ requestId: 'r', headers: [], cookie: '', scheme: 'https', answerHeaders: [], ...fields }) as unknown as Exchange

describe('a side', () => {
  it('gets its share of requests that are drawn anew', async () => {
    const split = await only(blueGreen())
    let green = 0
    for (let i = 0; i < 20_000; i++)
      green += chooseSide(split, toExchange({ requestId: `request-${i}` }), [90, 10]).index
    expect(green / 20_000).toBeGreaterThan(0.09)
    expect(green / 20_000).toBeLessThan(0.11)
  })

  it('gets exactly its share of kept clients, more when it grows, and no client leaves it then', async () => {
    const split = await only(blueGreen({ sticky: { cookie: 'side' } }))
    const clients = Array.from({ length: 10_000 }, (_, index) => String(index).padStart(4, '0'))
    const greenAt = (share: number): Set<string> =>
      new Set(
        clients.filter(
          (client) => chooseSide(split, toExchange({ cookie: `side=${client}` }), [100 - share, share]).index === 1,
        ),
      )
    let before = greenAt(0)
    expect(before.size).toBe(0)
    for (const share of [1, 5, 25, 50, 100]) {
      const now = greenAt(share)
      expect(now.size).toBe(share * 100)
      expect([...before].filter((client) => !now.has(client))).toEqual([])
      before = now
    }
  })

  it('without weight gets nothing, first or last', async () => {
    const split = await only(blueGreen({ sticky: { cookie: 'side' } }))
    for (const number of ['0000', '9999']) {
      expect(chooseSide(split, toExchange({ cookie: `side=${number}` }), [0, 5]).index).toBe(1)
      expect(chooseSide(split, toExchange({ cookie: `side=${number}` }), [5, 0]).index).toBe(0)
    }
  })
})

it('the slowest hundredth is found within a fifth', () => {
  const counts = noCounts()
  const add = (ms: number, times: number): void => {
    counts.latencies[toBucket(ms)] = (counts.latencies[toBucket(ms)] ?? 0) + times
  }
  expect(p99Of(counts)).toBeUndefined()
  add(10, 990)
  add(400, 9)
  expect(p99Of(counts)).toBeLessThan(12)
  add(400, 5)
  expect(p99Of(counts)).toBeGreaterThanOrEqual(400)
  expect(p99Of(counts)).toBeLessThan(480)
  for (const ms of [0, 0.01, 1e9, Number.MAX_VALUE]) expect(counts.latencies[toBucket(ms)]).toBeDefined()
})

interface World {
  control: SplitControl
  weights(id?: string): readonly number[]
  lines: string[]
  saved: SavedSplits
  keep(splits: CompiledSplit[]): void
  /** Lets time pass, a second at a time, with so many requests to each side in each. */
  pass(seconds: number, traffic: Traffic): void
}

interface Traffic {
  /** Requests a second of both sides together. */
  rate: number
  failing?: number
  ms?: number
  stableFailing?: number
}

/** Requests fall to the sides as the weights say, which change on the way. */
async function start(splits: CompiledSplit[], saved: SavedSplits = {}): Promise<World> {
  let now = 1_000_000
  const lines: string[] = []
  const kept = structuredClone(saved)
  const tally = createSplitTally(splits)
  const control = createSplitControl({
    splits,
    now: () => now,
    apply: tally.setWeights,
    report: (line) => lines.push(line),
    saved,
    save: (all) => Object.assign(kept, all),
  })
  const first = splits[0] as CompiledSplit
  const owed = [0, 0]

  function pass(seconds: number, { rate, failing = 0, ms = 10, stableFailing = 0 }: Traffic): void {
    for (let second = 0; second < seconds; second++) {
      now += 1_000
      const weights = tally.weightsOf(first)
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      for (const [index, weight] of weights.entries()) {
        owed[index] = (owed[index] ?? 0) + (rate * weight) / total
        const requests = Math.floor(owed[index] ?? 0)
        owed[index] = (owed[index] ?? 0) - requests
        const bad = Math.round(requests * (index === 1 ? failing : stableFailing))
        for (let i = 0; i < requests; i++)
          tally.count(
            { split: first, index, forced: false },
            { status: i < bad ? 500 : 200, bytes: 0, end: 'done', upstreamMs: index === 1 ? ms : 10 },
          )
      }
      control.observe(tally.takeReports())
      control.judge()
    }
  }

  return {
    control,
    weights: (id = first.id) => tally.weightsOf(splits.find((one) => one.id === id) as CompiledSplit),
    lines,
    saved: kept,
    keep: (next) => {
      tally.keep(next)
      control.keep(next)
    },
    pass,
  }
}

const rollout = { to: 'green', everyMs: 60_000, minRequests: 50 }
const rolled = (more: Partial<Split['rollout']> = {}): Split => blueGreen({ rollout: { ...rollout, ...more } }, [1, 0])

describe('a rollout', () => {
  it('goes on step by step while all is well, each after its time and its requests, and says so', async () => {
    const world = await start([await only(rolled())])
    expect(world.weights()).toEqual([99, 1])
    world.pass(59, { rate: 200 })
    expect(world.weights()).toEqual([99, 1])
    world.pass(1, { rate: 200 })
    expect(world.weights()).toEqual([95, 5])
    world.pass(4 * 60 + 5, { rate: 200 })
    expect(world.weights()).toEqual([0, 100])
    expect(world.control.all()).toMatchObject([{ upstream: 'shop/app', state: 'done' }])
    expect(world.lines[0]).toBe('split shop/app: from blue 1, green 0 to blue 99, green 1 by the rollout: it begins')
    expect(world.lines[1]).toMatch(
      /^split shop\/app: from blue 99, green 1 to blue 95, green 5 by the rollout: green failed 0 of \d+$/,
    )
    expect(world.lines.map((line) => / to (.*) by/.exec(line)?.[1])).toEqual([
      'blue 99, green 1',
      'blue 95, green 5',
      'blue 75, green 25',
      'blue 50, green 50',
      'blue 0, green 100',
      'blue 0, green 100',
    ])
  })

  it('waits for its requests, however long that takes', async () => {
    const world = await start([await only(rolled())])
    world.pass(3_000, { rate: 1 })
    expect(world.weights()).toEqual([99, 1])
    world.pass(2_100, { rate: 1 })
    expect(world.weights()).toEqual([95, 5])
  })

  it('goes back at once when every answer is 5xx: within 30 s at 20 requests a second', async () => {
    const world = await start([await only(rolled())])
    let seconds = 0
    while (world.control.all()[0]?.state === 'rolling' && seconds < 100) {
      world.pass(1, { rate: 20, failing: 1 })
      seconds++
    }
    expect(seconds).toBeLessThanOrEqual(30)
    expect(world.weights()).toEqual([100, 0])
    expect(world.lines.at(-1)).toBe(
      'split shop/app: from blue 99, green 1 to blue 100, green 0 by the rollout: green failed 5 of 5, blue failed 0 of 495',
    )
    world.pass(600, { rate: 20 })
    expect(world.control.all()).toMatchObject([{ state: 'rolled back', weights: { blue: 100, green: 0 } }])
  })

  it('goes back after five failures and no good answer, however seldom it is asked', async () => {
    const world = await start([await only(rolled())])
    world.pass(600, { rate: 1, failing: 1 })
    expect(world.control.all()[0]?.state).toBe('rolled back')
  })

  it('goes back at a later step too, also at the last, when the other side is not asked any more', async () => {
    for (const minutes of [2, 4]) {
      const world = await start([await only(rolled())])
      world.pass(minutes * 60 + 10, { rate: 200 })
      if (minutes === 4) expect(world.weights()).toEqual([0, 100])
      world.pass(5, { rate: 200, failing: 0.2 })
      expect(world.weights()).toEqual([100, 0])
    }
  })

  it('stays while the stable side fails as often', async () => {
    const world = await start([await only(rolled())])
    world.pass(70, { rate: 2_000, failing: 0.05, stableFailing: 0.05 })
    expect(world.weights()).toEqual([95, 5])
  })

  it('goes back when its slowest hundredth takes too many times as long', async () => {
    const slow = await start([await only(rolled())])
    slow.pass(30, { rate: 1_000, ms: 60 })
    expect(slow.weights()).toEqual([100, 0])
    expect(slow.lines.at(-1)).toMatch(/: p99 of green is \d+ ms, of blue \d+ ms$/)
    const allowed = await start([await only(rolled({ p99TimesMax: 10 }))])
    allowed.pass(61, { rate: 1_000, ms: 60 })
    expect(allowed.weights()).toEqual([95, 5])
    const near = await start([await only(rolled())])
    near.pass(61, { rate: 1_000, ms: 25 })
    expect(near.weights()).toEqual([95, 5])
  })

  it('begins where the table is, and not at all where the table has all of it', async () => {
    const half = await start([await only(blueGreen({ rollout }, [40, 60]))])
    expect(half.weights()).toEqual([40, 60])
    half.pass(61, { rate: 100 })
    expect(half.weights()).toEqual([0, 100])
    const all = await start([await only(blueGreen({ rollout }, [0, 1]))])
    expect(all.control.all()[0]?.state).toBe('done')
    expect(all.lines).toEqual([])
  })

  it('is told nothing of requests that named their side, nor of clients that left', async () => {
    const split = await only(rolled())
    const tally = createSplitTally([split])
    tally.count({ split, index: 1, forced: true }, { status: 500, bytes: 0, end: 'done' })
    tally.count({ split, index: 1, forced: false }, { status: 0, bytes: 0, end: 'client_gone' })
    expect(tally.takeReports()[0]?.sides[1]).toMatchObject({ requests: 0, failures: 0 })
    expect(tally.totals()[0]?.sides[1]).toMatchObject({ requests: 1, failures: 1 })
    const outcomes: [SideCounts['failures'], Parameters<typeof tally.count>[1]][] = [
      [1, { status: 200, bytes: 0, end: 'upstream_cut' }],
      [1, { status: 200, bytes: 0, end: 'timed_out' }],
      [1, { status: 502, bytes: 0, end: 'done', refusal: { code: 'upstream_unreachable', detail: '' } }],
      [0, { status: 413, bytes: 0, end: 'done', refusal: { code: 'body_too_large', detail: '' } }],
      [0, { status: 404, bytes: 0, end: 'done' }],
    ]
    for (const [failures, outcome] of outcomes) {
      tally.count({ split, index: 1, forced: false }, outcome)
      expect(tally.takeReports()[0]?.sides[1]).toMatchObject({ requests: 1, failures })
    }
  })
})

describe('a change by hand', () => {
  it('ends a rollout, which can be begun anew', async () => {
    const world = await start([await only(rolled())])
    expect(world.control.setWeights('app', { blue: 90, green: 10 }, 'hand from 127.0.0.1')).toEqual({
      upstream: 'shop/app',
      weights: { blue: 90, green: 10 },
      state: 'by hand',
      changed: { by: 'hand from 127.0.0.1', reason: 'asked for' },
    })
    expect(world.lines.at(-1)).toBe(
      'split shop/app: from blue 99, green 1 to blue 90, green 10 by hand from 127.0.0.1: asked for',
    )
    world.pass(600, { rate: 100, failing: 1 })
    expect(world.weights()).toEqual([90, 10])
    expect(world.control.startRollout('shop/app', 'hand')).toMatchObject({ state: 'rolling' })
    expect(world.weights()).toEqual([99, 1])
    world.pass(5, { rate: 200, failing: 1 })
    expect(world.weights()).toEqual([100, 0])
  })

  it.each([
    [{ blue: 1 }, "shop/app: say the weight of 'green' too: blue=… green=…"],
    [{ blue: 1, gren: 2 }, "shop/app: there is no side 'gren': did you mean 'green'?"],
    [{ blue: 0, green: 0 }, 'shop/app: give one side a weight above 0'],
    [{ blue: 0.5, green: 1 }, "shop/app: the weight of 'blue' must be a whole number from 0 to 1000"],
    [{ blue: -1, green: 1 }, "shop/app: the weight of 'blue' must be a whole number from 0 to 1000"],
    [{ blue: 1, green: 1_001 }, "shop/app: the weight of 'green' must be a whole number from 0 to 1000"],
  ])('to %j is refused, and nothing is changed', async (weights, detail) => {
    const world = await start([await only(blueGreen())])
    expect(world.control.setWeights('app', weights, 'hand')).toEqual({ status: 400, detail })
    expect([world.weights(), world.lines]).toEqual([[90, 10], []])
  })

  it('names one split of several by its table', async () => {
    const world = await start(await compile(['shop', blueGreen()], ['blog', blueGreen()]))
    const set = (name: string) => world.control.setWeights(name, { blue: 1, green: 1 }, 'hand')
    expect(set('app')).toEqual({ status: 409, detail: "'app' is in several tables: write shop/app or blog/app" })
    expect(set('apps')).toMatchObject({ status: 404 })
    expect(set('blog/app')).toMatchObject({ upstream: 'blog/app' })
    expect([world.weights('shop/app'), world.weights('blog/app')]).toEqual([
      [90, 10],
      [1, 1],
    ])
    expect(world.control.startRollout('blog/app', 'hand')).toMatchObject({ status: 409 })
  })
})

describe('other tables while it runs', () => {
  it('leave a split of which they say the same as it is, and begin with any other', async () => {
    const world = await start([await only(rolled())])
    world.pass(61, { rate: 200 })
    expect(world.weights()).toEqual([95, 5])
    const lines = world.lines.length
    world.keep([await only(rolled())])
    expect([world.weights(), world.lines.length]).toEqual([[95, 5], lines])
    world.pass(5, { rate: 200, failing: 1 })
    expect(world.weights()).toEqual([100, 0])
    world.keep([await only(rolled())])
    expect(world.control.all()).toMatchObject([{ state: 'rolled back' }])
    world.keep([await only(rolled({ minRequests: 51 }))])
    expect(world.control.all()).toMatchObject([{ state: 'rolling', weights: { blue: 99, green: 1 } }])
    world.keep([])
    expect(world.control.all()).toEqual([])
  })

  it('are not confused by requests of the ones before', async () => {
    const before = await only(blueGreen())
    const tally = createSplitTally([before])
    const three = blueGreen()
    three.sides['red'] = { servers: ['http://127.0.0.1:3'], weight: 1 }
    tally.keep([await only(three)])
    tally.count({ split: before, index: 0, forced: false }, { status: 200, bytes: 0, end: 'done' })
    expect(tally.totals()[0]?.sides.map(({ requests }) => requests)).toEqual([0, 0, 0])
    tally.keep([])
    tally.count({ split: before, index: 0, forced: false }, { status: 200, bytes: 0, end: 'done' })
    expect(tally.weightsOf(before)).toEqual([90, 10])
  })
})

describe('what outlives the process', () => {
  it('is every change, as long as the table says the same of the split', async () => {
    const split = await only(rolled())
    const world = await start([split])
    world.pass(130, { rate: 200 })
    const again = await start([await only(rolled())], world.saved)
    expect(again.weights()).toEqual(world.weights())
    expect(again.control.all()[0]?.state).toBe('rolling')
    again.pass(5, { rate: 200, failing: 1 })
    expect((await start([split], again.saved)).weights()).toEqual([100, 0])
    expect((await start([split], again.saved)).control.all()[0]?.state).toBe('rolled back')
    const other = rolled()
    other.sides['green'] = { servers: ['http://127.0.0.1:3'], weight: 0 }
    expect((await start([await only(other)], again.saved)).control.all()[0]).toMatchObject({
      state: 'rolling',
      weights: { blue: 99, green: 1 },
    })
  })
})
