import * as fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createLocalLimiter, toBucket } from '../../edge/local-limiter.ts'
import { createRedisLimiter, toLimiterStore } from '../../edge/node/redis-limiter.ts'
import type { RedisLimiter } from '../../edge/node/redis-limiter.ts'
import type { Limiter, LimitRule, LimitVerdict } from '../../edge/runtime.ts'
import { createUpstashLimiter } from '../../edge/upstash-limiter.ts'
import type { LimiterStore } from '../../edge/upstash-limiter.ts'
import { createWorkerLimiter } from '../../edge/worker/limiter.ts'
import { noPrivateRedis, noRedis, openRedis, startPrivateRedis } from '../support/redis.ts'
import type { PrivateRedis, TestRedis } from '../support/redis.ts'

/** The start of a minute, an hour and a day. */
const start = Date.UTC(2026, 0, 1)

let ruleCount = 0
function toRule(limit: { requests: number; per: number; burst?: number; whenDown?: 'local' | 'closed' }): LimitRule {
  const { requests, per, burst, whenDown = 'local' } = limit
  ruleCount += 1
  return { id: `rule:${ruleCount}`, requests, windowMs: per, burst, whenDown }
}

const toClosed = (limit: Sequence['limit']): LimitRule => toRule({ ...limit, whenDown: 'closed' })

/** `times` requests of `key`, `after` milliseconds after the step before. */
interface Step {
  after: number
  key?: string
  times?: number
}

interface Sequence {
  name: string
  limit: { requests: number; per: number; burst?: number }
  steps: Step[]
  /** Per step: how many are allowed, what remains after it and when it resets, in milliseconds after the start. */
  verdicts: [allowed: number, remaining: number, resetAfter: number][]
}

const sequences: Sequence[] = [
  {
    name: 'a window admits its requests and refuses the next',
    limit: { requests: 3, per: 1_000 },
    steps: [{ after: 0 }, { after: 10 }, { after: 10 }, { after: 10 }],
    verdicts: [
      [1, 2, 1_000],
      [1, 1, 1_000],
      [1, 0, 1_000],
      [0, 0, 1_000],
    ],
  },
  {
    name: 'a window slides: the one before counts by the share that reaches in',
    limit: { requests: 10, per: 60_000 },
    steps: [
      { after: 0, times: 12 },
      { after: 60_000, times: 2 },
      { after: 30_000, times: 7 },
      { after: 15_000, times: 5 },
      { after: 75_000, times: 12 },
      { after: 120_000, times: 12 },
    ],
    verdicts: [
      [10, 0, 60_000],
      [0, 0, 120_000],
      [5, 0, 120_000],
      [3, 0, 120_000],
      [10, 0, 240_000],
      [10, 0, 360_000],
    ],
  },
  {
    name: 'a window of a day is counted from midnight',
    limit: { requests: 2, per: 86_400_000 },
    steps: [{ after: 86_399_999, times: 3 }, { after: 1 }, { after: 43_200_000 }, { after: 43_199_999 }],
    verdicts: [
      [2, 0, 86_400_000],
      [0, 0, 172_800_000],
      [1, 0, 172_800_000],
      [1, 0, 172_800_000],
    ],
  },
  {
    name: 'callers are counted apart, whatever their keys look like',
    limit: { requests: 2, per: 1_000 },
    steps: [
      { after: 0, key: '10.0.0.1', times: 3 },
      { after: 0, key: '10.0.0.1:1767225600', times: 1 },
      { after: 0, key: '', times: 3 },
      { after: 0, key: `${'x'.repeat(5_000)}a`, times: 3 },
      { after: 0, key: `${'x'.repeat(5_000)}b`, times: 1 },
      { after: 0, key: 'ü 한국어 \u0000', times: 3 },
    ],
    verdicts: [
      [2, 0, 1_000],
      [1, 1, 1_000],
      [2, 0, 1_000],
      [2, 0, 1_000],
      [1, 1, 1_000],
      [2, 0, 1_000],
    ],
  },
  {
    name: '10 per second with a burst of 20 admit 21 at once, then one each 100 ms',
    limit: { requests: 10, per: 1_000, burst: 20 },
    steps: [
      { after: 0, times: 30 },
      { after: 99, times: 2 },
      { after: 1, times: 2 },
      { after: 250, times: 5 },
      { after: 50, times: 5 },
      { after: 1_000, times: 15 },
    ],
    verdicts: [
      [21, 0, 100],
      [0, 0, 100],
      [1, 0, 200],
      [2, 0, 400],
      [1, 0, 500],
      [10, 0, 1_500],
    ],
  },
  {
    name: '30 per second with a burst of 50 admit 51 at once, then three each 100 ms',
    limit: { requests: 30, per: 1_000, burst: 50 },
    steps: [
      { after: 0, times: 60 },
      { after: 100, times: 5 },
      { after: 200, times: 7 },
      { after: 1_000, times: 40 },
    ],
    verdicts: [
      [51, 0, 100],
      [3, 0, 200],
      [6, 0, 400],
      [30, 0, 1_400],
    ],
  },
  {
    name: 'a bucket that was forgotten because it was full refills from the next request on',
    limit: { requests: 10, per: 1_000, burst: 1 },
    steps: [
      { after: 0, times: 2 },
      { after: 130, times: 1 },
      { after: 20, times: 1 },
      { after: 1_005, times: 3 },
      { after: 99, times: 1 },
      { after: 1, times: 2 },
    ],
    verdicts: [
      [2, 0, 100],
      [1, 0, 200],
      [0, 0, 200],
      [2, 0, 1_255],
      [0, 0, 1_255],
      [1, 0, 1_355],
    ],
  },
  {
    name: 'a bucket without room for more than one spaces requests out',
    limit: { requests: 1, per: 1_000, burst: 0 },
    steps: [{ after: 0, times: 2 }, { after: 999 }, { after: 1 }, { after: 1_000 }],
    verdicts: [
      [1, 0, 1_000],
      [0, 0, 1_000],
      [1, 0, 2_000],
      [1, 0, 3_000],
    ],
  },
]

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: start })
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

const now = (): number => Date.now()

async function run(limiter: Limiter, rule: LimitRule, steps: Step[]): Promise<LimitVerdict[][]> {
  vi.setSystemTime(start)
  const verdicts: LimitVerdict[][] = []
  for (const { after, key = 'somebody', times = 1 } of steps) {
    vi.setSystemTime(Date.now() + after)
    const step: LimitVerdict[] = []
    for (let i = 0; i < times; i++) step.push(await limiter.take(rule, key))
    verdicts.push(step)
  }
  return verdicts
}

function summarize(verdicts: LimitVerdict[][]): Sequence['verdicts'] {
  return verdicts.map((step) => {
    expect(step.map(({ outcome }) => outcome)).not.toContain('down')
    const last = step.at(-1)
    return [step.filter(isAllowed).length, last?.remaining ?? -1, (last?.resetAt ?? 0) - start]
  })
}

const isAllowed = ({ outcome }: LimitVerdict): boolean => outcome === 'allowed'

function countAllowed(limiter: Limiter, rule: LimitRule, times: number): Promise<number> {
  const taken = Array.from({ length: times }, () => limiter.take(rule, 'somebody'))
  return Promise.all(taken).then((verdicts) => verdicts.filter(isAllowed).length)
}

/** Rules of any shape, with steps that gather around the times at which something changes. */
const anySequence = fc
  .record({
    requests: fc.integer({ min: 1, max: 12 }),
    per: fc.constantFrom(500, 1_000, 10_000, 60_000),
    burst: fc.option(fc.integer({ min: 0, max: 8 }), { nil: undefined }),
  })
  .chain((limit) =>
    fc.record({
      limit: fc.constant(limit),
      steps: fc.array(
        fc.record({
          after: fc.oneof(
            fc.constantFrom(0, 1, limit.per / 2, limit.per - 1, limit.per, limit.per + 1),
            fc.integer({ min: 0, max: limit.per }),
            fc.integer({ min: 0, max: limit.per * 3 }),
          ),
          key: fc.constantFrom('a', 'b'),
          times: fc.integer({ min: 1, max: 4 }),
        }),
        { maxLength: 25 },
      ),
    }),
  )

describe('in this process', () => {
  it.each(sequences)('$name', async ({ limit, steps, verdicts }) => {
    expect(summarize(await run(createLocalLimiter({ now }), toRule(limit), steps))).toEqual(verdicts)
  })

  it('answers at once', () => {
    expect(createLocalLimiter({ now }).take(toRule({ requests: 1, per: 1_000 }), 'a').outcome).toBe('allowed')
  })

  it('forgets the least recently seen caller, of whatever rule, when it knows too many', () => {
    const limiter = createLocalLimiter({ now, entriesMax: 3 })
    const one = toRule({ requests: 1, per: 60_000 })
    const other = toRule({ requests: 1, per: 60_000, burst: 0 })
    for (const key of ['a', 'b']) limiter.take(one, key)
    limiter.take(other, 'c')
    expect(limiter.take(one, 'a').outcome).toBe('refused')
    limiter.take(other, 'd')
    expect(limiter.size()).toBe(3)
    const outcomes = [limiter.take(one, 'a'), limiter.take(other, 'c'), limiter.take(other, 'd')].map((v) => v.outcome)
    expect(outcomes).toEqual(['refused', 'refused', 'refused'])
    expect(limiter.take(one, 'b').outcome).toBe('allowed')
  })

  it('stays at its bound under a flood of callers', () => {
    const limiter = createLocalLimiter({ now, entriesMax: 100 })
    const rule = toRule({ requests: 1, per: 60_000 })
    for (let i = 0; i < 10_000; i++) limiter.take(rule, `caller ${i}`)
    expect(limiter.size()).toBe(100)
    expect(limiter.take(rule, 'caller 9900').outcome).toBe('refused')
    expect(limiter.take(rule, 'caller 9899').outcome).toBe('allowed')
  })

  it('goes on counting when the same rule is read again, and starts again when its numbers changed', () => {
    const limiter = createLocalLimiter({ now })
    const rule = toRule({ requests: 1, per: 60_000 })
    limiter.take(rule, 'a')
    expect(limiter.take({ ...rule }, 'a').outcome).toBe('refused')
    expect(limiter.take({ ...rule, requests: 2 }, 'a')).toMatchObject({ outcome: 'allowed', remaining: 1 })
  })

  it.each([
    ['window', toRule({ requests: 5, per: 1_000 })],
    ['bucket', toRule({ requests: 5, per: 1_000, burst: 4 })],
  ])('frees nothing of a %s when the clock is set back a little, and does not lock up when far', (_, rule) => {
    const limiter = createLocalLimiter({ now })
    for (let i = 0; i < 5; i++) limiter.take(rule, 'a')
    vi.setSystemTime(start - 200)
    expect(limiter.take(rule, 'a').outcome).toBe('refused')
    vi.setSystemTime(start - 3_600_000)
    expect(limiter.take(rule, 'a').outcome).toBe('allowed')
  })

  it.each([
    [10, 1_000, 1, 100],
    [30, 1_000, 3, 100],
    [7, 1_000, 7, 1_000],
    [3_000, 1_000, 3, 1],
    [60, 60_000, 1, 1_000],
  ])('%i per %i ms refill a bucket by %i each %i ms', (requests, windowMs, refill, intervalMs) => {
    const rule = { ...toRule({ requests, per: windowMs }), burst: 4 }
    expect(toBucket(rule)).toEqual({ capacity: 5, refill, intervalMs })
  })
})

describe.skipIf(noRedis)(`in Redis ${noRedis ?? ''}`, () => {
  let server: TestRedis
  let client: Redis
  beforeAll(async () => {
    server = await openRedis()
    client = new Redis(server.url)
  })
  afterAll(async () => {
    client.disconnect()
    await server.stop()
  })

  /** A generous timeout, so that no verdict comes from elsewhere; 'closed' would show one that did. */
  const connect = (store: LimiterStore): Limiter => {
    const local = createLocalLimiter({ now })
    return createUpstashLimiter({ store, local, now, prefix: server.prefix, timeoutMs: 10_000 })
  }

  it.each(sequences)('$name', async ({ limit, steps, verdicts }) => {
    const limiter = connect(onFakeTime(toLimiterStore(client), client))
    expect(summarize(await run(limiter, toClosed(limit), steps))).toEqual(verdicts)
  })

  it('gives the same verdicts as in this process for any sequence', async () => {
    await fc.assert(
      fc.asyncProperty(anySequence, async ({ limit, steps }) => {
        const rule = toClosed(limit)
        const shared = await run(connect(onFakeTime(toLimiterStore(client), client)), rule, steps)
        expect(shared).toEqual(await run(createLocalLimiter({ now }), rule, steps))
      }),
      { numRuns: 60 },
    )
  })

  it.each(sequences)('over its REST interface in a Worker: $name', async ({ limit, steps, verdicts }) => {
    vi.stubGlobal('fetch', createRestFetch(onFakeTime(toLimiterStore(client), client)))
    const bindings = { UPSTASH_REDIS_REST_URL: 'https://redis.example', UPSTASH_REDIS_REST_TOKEN: 'token' }
    const options = { now, log: () => {}, timeoutMs: 10_000 }
    const rule = { ...toClosed(limit), id: `${server.prefix}:${ruleCount}` }
    expect(summarize(await run(createWorkerLimiter(bindings, options), rule, steps))).toEqual(verdicts)
    await client.del(await client.keys(`daemun:${server.prefix}*`))
  })

  it.each([
    ['window', { requests: 100, per: 3_600_000 }],
    ['bucket', { requests: 100, per: 3_600_000, burst: 99 }],
  ])('admits exactly 100 of 500 at once through two gateways, with a %s', async (_, limit) => {
    const options = { url: server.url, now, log: () => {}, prefix: server.prefix, timeoutMs: 10_000 }
    const gateways = [1, 2].map(() => createRedisLimiter({ ...options, local: createLocalLimiter({ now }) }))
    await Promise.all(gateways.map(({ ready }) => ready))
    const rule = toClosed(limit)
    const allowed = await Promise.all(gateways.map((gateway) => countAllowed(gateway, rule, 250)))
    expect(allowed.reduce((sum, count) => sum + count)).toBe(100)
    for (const gateway of gateways) gateway.close()
  })

  it('goes on when the server lost its scripts', async () => {
    const limiter = connect(toLimiterStore(client))
    const rule = toClosed({ requests: 2, per: 60_000 })
    expect((await limiter.take(rule, 'a')).remaining).toBe(1)
    await client.script('FLUSH')
    expect((await limiter.take(rule, 'a')).remaining).toBe(0)
  })

  it('keeps rules apart whose ids and keys run together', async () => {
    const limiter = connect(toLimiterStore(client))
    const rule = toClosed({ requests: 1, per: 60_000 })
    expect((await limiter.take(rule, 'x:a')).outcome).toBe('allowed')
    expect((await limiter.take({ ...rule, id: `${rule.id}:x` }, 'a')).outcome).toBe('allowed')
  })

  it('keeps all its keys below its prefix, each with an end', async () => {
    const limiter = connect(toLimiterStore(client))
    const rules = [toClosed({ requests: 1, per: 1_000 }), toClosed({ requests: 1, per: 1_000, burst: 3 })]
    for (const rule of rules) await limiter.take(rule, 'end')
    const keys = await client.keys(`${server.prefix}:*end*`)
    expect(keys).toHaveLength(2)
    for (const key of keys) expect(await client.pttl(key)).toBeGreaterThan(0)
  })
})

describe.skipIf(noPrivateRedis)(`when Redis fails ${noPrivateRedis ?? ''}`, () => {
  let server: PrivateRedis
  let limiter: RedisLimiter
  const messages: string[] = []
  beforeEach(async () => {
    server = await startPrivateRedis()
    messages.length = 0
    limiter = createRedisLimiter({
      url: server.url,
      local: createLocalLimiter({ now }),
      now,
      log: (message) => messages.push(message),
    })
    await limiter.ready
  })
  afterEach(async () => {
    limiter.close()
    await server.stop()
  })

  /** Waits until Redis counts, each time after the cool-down. */
  const waitForRedis = async (): Promise<void> => {
    const rule = toRule({ requests: 5, per: 3_600_000, whenDown: 'closed' })
    await vi.waitFor(async () => {
      vi.setSystemTime(Date.now() + 1_000)
      expect((await limiter.take(rule, 'anybody')).outcome).not.toBe('down')
    }, 10_000)
  }

  const outages = [
    { name: 'is killed', begin: () => server.kill(), end: () => server.restart() },
    { name: 'hangs', begin: async () => server.signal('SIGSTOP'), end: async () => server.signal('SIGCONT') },
  ]

  it.each(outages)(
    'counts in this process within 60 ms when it $name, and in Redis when it is back',
    async (outage) => {
      const rule = toRule({ requests: 5, per: 3_600_000 })
      expect(await countAllowed(limiter, rule, 2)).toBe(2)
      await outage.begin()

      const durations: number[] = []
      const verdicts: LimitVerdict[] = []
      for (let i = 0; i < 9; i++) {
        const from = performance.now()
        verdicts.push(await limiter.take(rule, 'somebody'))
        durations.push(performance.now() - from)
        // After its cool-down each request tries the store again.
        vi.setSystemTime(Date.now() + 1_000)
      }
      expect(verdicts.filter(isAllowed)).toHaveLength(5)
      expect(verdicts.map(({ remaining }) => remaining)).toEqual([4, 3, 2, 1, 0, 0, 0, 0, 0])
      // The median: a busy machine may be late once.
      expect(durations.sort((a, b) => a - b)[4]).toBeLessThanOrEqual(60)
      expect(await countAllowed(limiter, rule, 1_000)).toBe(0)

      await outage.end()
      await waitForRedis()
      expect(messages.map((message) => message.replace(/^redis at \S+ (is down|answers).*/s, '$1'))).toEqual([
        'answers',
        'is down',
        'answers',
      ])
    },
  )

  it.each(outages)('says that it is down to a rule that is closed, when it $name', async (outage) => {
    const rule = toRule({ requests: 5, per: 3_600_000, whenDown: 'closed' })
    await waitForRedis()
    await outage.begin()
    expect(await limiter.take(rule, 'somebody')).toMatchObject({ outcome: 'down', remaining: 0 })
    const { outcome, resetAt } = await limiter.take(rule, 'somebody')
    expect({ outcome, resetAt }).toEqual({ outcome: 'down', resetAt: Date.now() + 1_000 })
  })

  it.each(outages)('admits of many at once what this process allows, when it $name', async (outage) => {
    const rule = toRule({ requests: 100, per: 3_600_000 })
    await outage.begin()
    expect(await countAllowed(limiter, rule, 500)).toBe(100)
  })

  it('does not count later what was counted here', async () => {
    const rule = toRule({ requests: 5, per: 3_600_000 })
    await waitForRedis()
    await server.kill()
    for (let i = 0; i < 3; i++) {
      await limiter.take(rule, 'somebody')
      vi.setSystemTime(Date.now() + 1_000)
    }
    await server.restart()
    await waitForRedis()
    const client = new Redis(server.url)
    expect(await client.keys('*:somebody:*')).toEqual([])
    expect(await client.keys('*:anybody:*')).toHaveLength(1)
    client.disconnect()
  })

  it('starts without it, and never logs its password', async () => {
    await server.kill()
    const lines: string[] = []
    const url = 'redis://user:a%20secret@127.0.0.1:1'
    const lonely = createRedisLimiter({ url, local: createLocalLimiter({ now }), now, log: (line) => lines.push(line) })
    await lonely.ready
    expect(await countAllowed(lonely, toRule({ requests: 3, per: 3_600_000 }), 10)).toBe(3)
    lonely.close()
    expect(lines).toEqual(['redis at 127.0.0.1:1 is down: ECONNREFUSED'])
  })

  it('goes on in this process after it was closed, and logs nothing more', async () => {
    limiter.close()
    expect(await countAllowed(limiter, toRule({ requests: 3, per: 3_600_000 }), 10)).toBe(3)
    expect(messages).toHaveLength(1)
  })
})

it.each(['redis://user:a secret@:bad', 'http://user:secret@redis', 'redis', ''])(
  'refuses the Redis URL %j without repeating it',
  (url) => {
    const options = { url, local: createLocalLimiter({ now }), now, log: () => {} }
    expect(() => createRedisLimiter(options)).toThrow(/^the URL of a Redis is redis:\/\/…, rediss:\/\/… or the path of/)
  },
)

describe('a store that fails', () => {
  it.each(['OOM command not allowed', 'READONLY You can’t write', 'LOADING', 'BUSY', 'MOVED 1 a:1', 'WRONGTYPE'])(
    'is down when it says %s',
    async (message) => {
      const { limiter } = failing(() => Promise.reject(new Error(message)))
      expect(await countAllowed(limiter, toRule({ requests: 2, per: 60_000 }), 10)).toBe(2)
    },
  )

  it('is asked once a second', async () => {
    const { ask, limiter } = failing(() => Promise.reject(new Error('down')))
    const rule = toRule({ requests: 2, per: 60_000 })
    for (let second = 0; second < 3; second++) {
      for (let i = 0; i < 50; i++) await limiter.take(rule, 'a')
      vi.setSystemTime(Date.now() + 1_000)
    }
    expect(ask).toHaveBeenCalledTimes(3)
  })

  it('is asked by one request while that waits, even when no answer ever comes', async () => {
    const { ask, limiter } = failing(() => new Promise(() => {}))
    const rule = toRule({ requests: 2, per: 60_000 })
    await limiter.take(rule, 'a')
    vi.setSystemTime(Date.now() + 1_000)
    const trial = limiter.take(rule, 'a')
    for (let i = 0; i < 50; i++) expect(limiter.take(rule, 'a')).not.toBeInstanceOf(Promise)
    expect(ask).toHaveBeenCalledTimes(2)
    vi.setSystemTime(Date.now() + 1_000)
    await Promise.all([trial, limiter.take(rule, 'a')])
    expect(ask).toHaveBeenCalledTimes(3)
  })

  it('is used again at once when the clock was set back', async () => {
    const { ask, limiter } = failing(() => Promise.reject(new Error('down')))
    const rule = toRule({ requests: 2, per: 60_000 })
    await limiter.take(rule, 'a')
    vi.setSystemTime(start - 3_600_000)
    await limiter.take(rule, 'a')
    expect(ask).toHaveBeenCalledTimes(2)
  })

  it('is not heard when it answers too late', async () => {
    const { promise, resolve } = Promise.withResolvers<unknown>()
    const { limiter } = failing(() => promise)
    const rule = toRule({ requests: 2, per: 60_000, whenDown: 'closed' })
    expect((await limiter.take(rule, 'a')).outcome).toBe('down')
    resolve([1, 2])
    expect((await limiter.take(rule, 'a')).outcome).toBe('down')
  })
})

describe('in a Worker', () => {
  const rule = toRule({ requests: 20, per: 10_000 })
  it.each(sequences)('without bindings: $name', async ({ limit, steps, verdicts }) => {
    expect(summarize(await run(createWorkerLimiter({}, { now, log: () => {} }), toRule(limit), steps))).toEqual(
      verdicts,
    )
  })

  it('asks the binding that fits the rule, with a key of the rule’s own', async () => {
    const { asked, limiter } = bind(() => Promise.resolve({ success: true }))
    const verdict = await limiter.take({ ...rule, id: 'a:b' }, '10.0.0.1')
    expect(verdict).toEqual({ outcome: 'allowed', remaining: 19, resetAt: start + 10_000 })
    expect(asked).toHaveBeenCalledWith({ key: 'a%3Ab:10.0.0.1' })
  })

  it('refuses what the platform refuses', async () => {
    const { limiter } = bind(() => Promise.resolve({ success: false }))
    const verdict = await limiter.take(rule, 'a')
    expect(verdict).toEqual({ outcome: 'refused', remaining: 0, resetAt: start + 10_000 })
  })

  it('refuses what the isolate has counted itself, without asking', async () => {
    const { asked, limiter } = bind(() => Promise.resolve({ success: true }))
    expect(await countAllowed(limiter, rule, 50)).toBe(20)
    expect(asked).toHaveBeenCalledTimes(20)
  })

  it.each([
    ['fails', () => Promise.reject(new Error('down'))],
    ['hangs', () => new Promise<never>(() => {})],
  ])('counts in the isolate when the platform %s, unless the rule is closed', async (_, limit) => {
    const { limiter } = bind(limit)
    expect(await countAllowed(limiter, rule, 50)).toBe(20)
    expect((await limiter.take({ ...rule, id: 'closed', whenDown: 'closed' }, 'a')).outcome).toBe('down')
  })

  it.each([
    ['other numbers', { requests: 21, per: 10_000 }],
    ['another window', { requests: 20, per: 60_000 }],
    ['a burst', { requests: 20, per: 10_000, burst: 5 }],
  ])('does not ask it for a rule with %s', async (_, limit) => {
    const { asked, limiter } = bind(() => Promise.resolve({ success: false }))
    expect((await limiter.take(toRule(limit), 'a')).outcome).toBe('allowed')
    expect(asked).not.toHaveBeenCalled()
  })

  it.each([
    ['fails', () => Promise.reject(new TypeError('fetch failed'))],
    ['answers 500', () => Promise.resolve(new Response('{"error":"no"}', { status: 500 }))],
    ['answers no JSON', () => Promise.resolve(new Response('<html>'))],
    ['hangs', (_: string, { signal }: { signal: AbortSignal }) => once(signal, 'abort')],
  ])('counts in the isolate when Upstash %s, unless the rule is closed', async (_, fetch) => {
    vi.stubGlobal('fetch', fetch)
    const bindings = { UPSTASH_REDIS_REST_URL: 'https://redis.example', UPSTASH_REDIS_REST_TOKEN: 'token' }
    const log = vi.fn()
    const limiter = createWorkerLimiter(bindings, { now, log })
    expect(await countAllowed(limiter, rule, 50)).toBe(20)
    expect(log.mock.calls).toEqual([[expect.stringMatching(/^upstash is down: \w+$/)]])
    expect((await limiter.take({ ...rule, id: 'closed', whenDown: 'closed' }, 'a')).outcome).toBe('down')
  })
})

function failing(answer: () => Promise<unknown>) {
  const ask = vi.fn(answer)
  const store: LimiterStore = { evalsha: ask, eval: ask, get: ask, set: ask }
  const limiter = createUpstashLimiter({ store, local: createLocalLimiter({ now }), now, timeoutMs: 20 })
  return { ask, limiter }
}

function bind(limit: () => Promise<{ success: boolean }>) {
  const asked = vi.fn(limit)
  return { asked, limiter: createWorkerLimiter({ LIMIT_20_10: { limit: asked } }, { now, log: () => {} }) }
}

/** Rejects when the event comes, as an aborted fetch does. */
function once(target: EventTarget, type: string): Promise<never> {
  return new Promise((_, reject) => target.addEventListener(type, () => reject(new Error(type)), { once: true }))
}

/**
 * Lets keys end by the test's clock instead of the server's: takes their end off as soon as a script has set it, and
 * deletes them when the test's clock has passed it.
 */
function onFakeTime(store: LimiterStore, client: Redis): LimiterStore {
  const ends = new Map<string, number>()
  const onTime = (script: LimiterStore['eval']): LimiterStore['eval'] =>
    async function runScript(text, keys, args) {
      for (const [key, end] of ends) if (Date.now() > end && ends.delete(key)) void client.del(key)
      // On one connection: nothing comes between.
      const [answer, lives] = await Promise.all([
        script(text, keys, args),
        Promise.all(keys.map((key) => client.pttl(key))),
        ...keys.map((key) => client.persist(key)),
      ])
      keys.forEach((key, index) => {
        const left = lives[index] ?? -1
        // The server's clock went on by a moment since. A bucket's end is a multiple of its interval.
        const unit = keys.length === 1 ? Number(args[1]) : 50
        if (left >= 0) ends.set(key, Date.now() + Math.ceil(left / unit) * unit)
      })
      return answer
    }
  return { ...store, evalsha: onTime(store.evalsha), eval: onTime(store.eval) }
}

/** Upstash's REST interface as far as it is used here: a command as a JSON array in, {"result"} out. */
function createRestFetch(store: LimiterStore): typeof fetch {
  return async function fetchRest(_, init) {
    const [command, script, count, ...rest] = JSON.parse(String(init?.body)) as [string, string, number, ...unknown[]]
    const keys = rest.slice(0, count).map(String)
    const runScript = command === 'evalsha' ? store.evalsha : store.eval
    try {
      return Response.json({ result: await runScript(script, keys, rest.slice(count)) })
    } catch (error) {
      return Response.json({ error: String(error) }, { status: 400 })
    }
  }
}
