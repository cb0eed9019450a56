import { describe, expect, it } from 'vitest'
import { compileTables } from '#edge/compile.ts'
import type { CompiledServer } from '#edge/compile.ts'
import { limits } from '#edge/limits.ts'
import type { ProxyPlan } from '#edge/plan.ts'
import type { Balance, Upstream } from '#edge/table.ts'
import { createBalancer, toBalanceKey } from '#edge/upstreams/balance.ts'
import type { Load } from '#edge/upstreams/balance.ts'
import { createGroup } from '#edge/upstreams/group.ts'
import type { Group } from '#edge/upstreams/group.ts'
import { createHealth } from '#edge/upstreams/health.ts'
import type { Health, HealthChange } from '#edge/upstreams/health.ts'
import { createRetryBudget, isWorthRepeating, mayRepeat } from '#edge/upstreams/retry.ts'
import { createDecisions, toTable } from '../support/decisions.ts'
import type { Asked } from '../support/decisions.ts'

const serversOf = (...weights: number[]): CompiledServer[] =>
  weights.map((weight, index) => {
    const url = new URL(`http://10.0.0.${index + 1}:80`)
    return { url, origin: url.origin, weight, backup: false }
  })
const backup = (server: CompiledServer): CompiledServer => ({ ...server, backup: true })
const allUp: Load = { share: () => 1, inFlight: () => 0 }

/** How often each server is picked. */
function countPicks(servers: CompiledServer[], pick: (turn: number) => number, turns: number): number[] {
  const counts = servers.map(() => 0)
  for (let turn = 0; turn < turns; turn++) {
    const index = pick(turn)
    counts[index] = (counts[index] ?? 0) + 1
  }
  return counts
}

describe('round-robin', () => {
  it('gives each server exactly its weight in every cycle, spread over it', () => {
    const balancer = createBalancer(serversOf(5, 1, 1), 'round-robin', allUp)
    const picks = Array.from({ length: 14 }, () => balancer.pick(''))
    expect(picks).toEqual([0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0])
  })

  it('never asks a server without weight, and a backup only when no other can be asked', () => {
    const servers = [...serversOf(1, 0, 1), backup(serversOf(1, 1, 1, 1)[3]!)]
    const shares = [1, 1, 1, 1]
    const balancer = createBalancer(servers, 'round-robin', { ...allUp, share: (index) => shares[index] ?? 0 })
    expect(countPicks(servers, () => balancer.pick(''), 100)).toEqual([50, 0, 50, 0])
    shares[0] = 0
    expect(countPicks(servers, () => balancer.pick(''), 100)).toEqual([0, 0, 100, 0])
    shares[2] = 0
    expect(countPicks(servers, () => balancer.pick(''), 100)).toEqual([0, 0, 0, 100])
    shares[3] = 0
    expect(balancer.pick('')).toBe(-1)
  })

  it('does not pick one that was tried', () => {
    const balancer = createBalancer(serversOf(9, 1), 'round-robin', allUp)
    expect(countPicks(serversOf(9, 1), () => balancer.pick('', [0]), 5)).toEqual([0, 5])
    expect(balancer.pick('', [0, 1])).toBe(-1)
  })

  it('gives a server that warms up the part of its weight that it may have', () => {
    const balancer = createBalancer(serversOf(2, 2), 'round-robin', { ...allUp, share: (index) => (index ? 0.25 : 1) })
    expect(countPicks(serversOf(2, 2), () => balancer.pick(''), 100)).toEqual([80, 20])
  })
})

describe('least-connections', () => {
  it('asks the server with the fewest requests for its weight, in turn among equals', () => {
    const inFlight = [0, 0, 0]
    const balancer = createBalancer(serversOf(1, 1, 2), 'least-connections', {
      ...allUp,
      inFlight: (index) => inFlight[index] ?? 0,
    })
    const counts = countPicks(
      serversOf(1, 1, 2),
      () => {
        const index = balancer.pick('')
        inFlight[index] = (inFlight[index] ?? 0) + 1
        return index
      },
      40,
    )
    expect(counts).toEqual([10, 10, 20])
    inFlight[1] = 0
    expect(balancer.pick('')).toBe(1)
  })
})

describe('consistent hash', () => {
  const keys = Array.from({ length: 20_000 }, (_, index) => `client-${index}`)
  const placeAll = (servers: CompiledServer[], load = allUp): string[] => {
    const balancer = createBalancer(servers, { hash: 'address' }, load)
    return keys.map((key) => servers[balancer.pick(key)]?.origin ?? '')
  }
  const part = (placed: string[], origin: string): number => placed.filter((one) => one === origin).length / keys.length

  it('gives each server its weight of the keys, and a key always the same server', () => {
    const servers = serversOf(1, 1, 2)
    const placed = placeAll(servers)
    expect(placeAll(servers)).toEqual(placed)
    for (const { origin, weight } of servers) expect(part(placed, origin)).toBeCloseTo(weight / 4, 1)
  })

  it('moves the keys of a server that is taken away, and no other', () => {
    const servers = serversOf(1, 1, 1, 1, 1)
    const before = placeAll(servers)
    const gone = servers[2]?.origin
    const after = placeAll(servers.filter(({ origin }) => origin !== gone))
    expect(before.filter((origin, index) => origin !== after[index] && origin !== gone)).toEqual([])
    expect(part(before, gone ?? '')).toBeGreaterThan(0.18)
    expect(part(before, gone ?? '')).toBeLessThan(0.22)
  })

  it('moves about one in N to a server that is added, whatever the order', () => {
    const after = serversOf(1, 1, 1, 1, 1)
    const before = placeAll(after.slice(0, 4).reverse())
    const placed = placeAll(after)
    const moved = placed.filter((origin, index) => origin !== before[index])
    expect(new Set(moved)).toEqual(new Set([after[4]?.origin]))
    expect(moved.length / keys.length).toBeGreaterThan(0.18)
    expect(moved.length / keys.length).toBeLessThan(0.22)
  })

  it('finds another server for a key while its own is put aside', () => {
    const servers = serversOf(1, 1, 1)
    const placed = placeAll(servers, { ...allUp, share: (index) => (index === 0 ? 0 : 1) })
    expect(part(placed, servers[0]?.origin ?? '')).toBe(0)
    expect(part(placed, servers[1]?.origin ?? '')).toBeCloseTo(0.5, 1)
  })
})

const decisions = await createDecisions(toTable([{ path: '/*', proxy: { to: 'core' } }]))
const exchangeOf = async (asked: Asked = {}) => ((await decisions.ask(asked)) as ProxyPlan).exchange

describe('the key of a request', () => {
  const keyOf = async (balance: Balance, headers: Record<string, string> = {}, peer = '203.0.113.9') =>
    toBalanceKey(balance, await exchangeOf({ headers, peer }))

  it.each<[Balance, Record<string, string>, string]>([
    [{ hash: 'address' }, {}, '203.0.113.9'],
    [{ hash: { header: 'X-Tenant' } }, { 'x-tenant': 'a' }, 'a'],
    [{ hash: { header: 'x-tenant' } }, {}, '203.0.113.9'],
    [{ hash: { cookie: 'session' } }, { Cookie: 'other=1; session=a=b' }, 'a=b'],
    [{ hash: { cookie: 'session' } }, { Cookie: 'xsession=1; session' }, '203.0.113.9'],
  ])('of %j with %j is %s', async (balance, headers, key) => {
    expect(await keyOf(balance, headers)).toBe(key)
  })

  it('is one for an IPv6 network of one client', async () => {
    expect(await keyOf({ hash: 'address' }, {}, '2001:db8::1')).toBe(
      await keyOf({ hash: 'address' }, {}, '2001:db8::2'),
    )
  })
})

interface World {
  health: Health
  changes: string[]
  now: number
  /** Fails until the server is put aside, or as often as that should take. */
  breakDown(index: number, failure?: 'lost' | 'connect_timeout'): void
}

function createWorld(count: number, options: Partial<Parameters<typeof createHealth>[0]> = {}): World {
  const world: World = {
    now: 1_000_000,
    changes: [],
    breakDown: (index, failure = 'lost') => {
      for (let i = 0; i < limits.upstreamFailuresMax; i++) world.health.failed(index, failure, 'ECONNRESET')
    },
    health: createHealth({
      count,
      slowStartMs: 0,
      healthyAfter: 2,
      unhealthyAfter: 3,
      now: () => world.now,
      onChange: ({ index, up }: HealthChange) => void world.changes.push(`${index} ${up ? 'up' : 'down'}`),
      ...options,
    }),
  }
  return world
}

describe('servers judged by their answers', () => {
  it('are put aside after so many failures in a row, not before, and not when one answer was good', () => {
    const { health, changes } = createWorld(2)
    for (let i = 1; i < limits.upstreamFailuresMax; i++) health.failed(0, 'lost', 'x')
    health.succeeded(0, 1)
    for (let i = 1; i < limits.upstreamFailuresMax; i++) health.failed(0, 'lost', 'x')
    expect(changes).toEqual([])
    health.failed(0, 'lost', 'x')
    expect(changes).toEqual(['0 down'])
    expect([health.share(0), health.share(1), health.isUp(0), health.ejections(0)]).toEqual([0, 1, false, 1])
  })

  it('are never put aside when none would be left', () => {
    const world = createWorld(2)
    world.breakDown(0)
    world.breakDown(1)
    expect(world.changes).toEqual(['0 down'])
  })

  it('that take no connection in time are put aside even then, and tried again soon', () => {
    const world = createWorld(1)
    world.breakDown(0, 'connect_timeout')
    expect(world.changes).toEqual(['0 down'])
    expect(world.health.closed()).toEqual({ name: 'upstreamFailuresMax', value: 5, againMs: limits.ejectionMs })
    expect(world.health.due()).toBe(-1)
    world.now += limits.ejectionMs
    expect(world.health.due()).toBe(0)
  })

  it('come back by requests that are let through one at a time when the time is over', () => {
    const world = createWorld(2)
    world.breakDown(0)
    world.now += limits.ejectionMs - 1
    expect(world.health.due()).toBe(-1)
    world.now += 1
    for (let trial = 0; trial < limits.healthyAfter; trial++) {
      expect(world.changes).toEqual(['0 down'])
      expect(world.health.due()).toBe(0)
      world.health.begin(0)
      expect(world.health.due()).toBe(-1)
      world.health.succeeded(0, 1)
    }
    expect(world.changes).toEqual(['0 down', '0 up'])
  })

  it('do not flap: one good answer among bad ones brings nobody back', () => {
    const world = createWorld(2)
    world.breakDown(0)
    for (let i = 0; i < 20; i++) {
      while (world.health.due() === -1) world.now += 1_000
      world.health.begin(0)
      if (i % 2 === 0) world.health.succeeded(0, 1)
      else world.health.failed(0, 'lost', 'x')
      world.health.abandoned(0)
    }
    expect(world.changes).toEqual(['0 down'])
  })

  it('stay aside longer with each relapse, up to a bound', () => {
    const world = createWorld(2)
    world.breakDown(0)
    const waits: number[] = []
    for (let i = 0; i < 8; i++) {
      const from = world.now
      while (world.health.due() === -1) world.now += 1_000
      waits.push((world.now - from) / 1_000)
      world.health.begin(0)
      world.health.failed(0, 'lost', 'x')
      world.health.abandoned(0)
    }
    expect(waits).toEqual([10, 20, 40, 80, 160, 300, 300, 300])
  })

  it('whose trial ended without a word are tried again', () => {
    const world = createWorld(2)
    world.breakDown(0)
    world.now += limits.ejectionMs
    world.health.begin(0)
    world.health.abandoned(0)
    expect(world.health.due()).toBe(0)
  })

  it('are let warm up when they are back, not when the gateway starts', () => {
    const world = createWorld(2, { slowStartMs: 10_000 })
    expect(world.health.share(0)).toBe(1)
    world.breakDown(0)
    world.now += limits.ejectionMs
    for (let trial = 0; trial < limits.healthyAfter; trial++) {
      world.health.begin(0)
      world.health.succeeded(0, 1)
    }
    expect(world.health.share(0)).toBe(0.1)
    world.now += 5_000
    expect(world.health.share(0)).toBe(0.5)
    world.now += 5_000
    expect(world.health.share(0)).toBe(1)
  })

  it('are put aside when one is far slower than the others', () => {
    const { health, changes } = createWorld(3)
    for (let i = 0; i < 10; i++) for (const index of [0, 1, 2]) health.succeeded(index, index === 2 ? 5_000 : 20)
    expect(changes).toEqual(['2 down'])
  })

  it('are not when all are slow, or when it is a little', () => {
    const { health, changes } = createWorld(3)
    for (let i = 0; i < 50; i++) for (const index of [0, 1, 2]) health.succeeded(index, 2_000 + 2_000 * index)
    expect(changes).toEqual([])
    const other = createWorld(2)
    for (let i = 0; i < 50; i++) for (const index of [0, 1]) other.health.succeeded(index, 10 + 500 * index)
    expect(other.changes).toEqual([])
  })
})

describe('servers judged by checks', () => {
  const rows: [string, string, string[]][] = [
    ['one bad check changes nothing', 'bg', []],
    ['two bad checks change nothing', 'bbg', []],
    ['three in a row put aside', 'bbb', ['0 down']],
    ['three that are not in a row do not', 'bbgbgb', []],
    ['two good ones in a row bring back, once it has been aside for its time', 'bbbggggg', ['0 down', '0 up']],
    ['one good one does not', 'bbbbbbbbg', ['0 down']],
  ]
  it.each(rows)('%s (%s)', (_name, checks, changes) => {
    const world = createWorld(1)
    for (const check of checks) {
      world.health.checked(0, check === 'g', 'status 500')
      world.now += 5_000
    }
    expect(world.changes).toEqual(changes)
  })

  it('may all be put aside; the bound that closed them is named', () => {
    const world = createWorld(2)
    for (const index of [0, 0, 0, 1, 1, 1]) world.health.checked(index, false, 'x')
    expect(world.changes).toEqual(['0 down', '1 down'])
    expect(world.health.closed()).toMatchObject({ name: 'unhealthyAfter', value: 3 })
    expect(world.health.due()).toBe(-1)
  })

  it('change at most once in ten seconds, however they flap', () => {
    const times: number[] = []
    const world = createWorld(2, { healthyAfter: 1, unhealthyAfter: 1, onChange: () => void times.push(world.now) })
    let seed = 42
    for (let i = 0; i < 6_000; i++) {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0
      world.health.checked(0, seed > 2 ** 31, 'x')
      world.now += 100
    }
    expect(times.length).toBeGreaterThan(4)
    for (const [index, time] of times.entries())
      if (index > 0) expect(time - (times[index - 1] ?? 0)).toBeGreaterThanOrEqual(limits.healthChangeMs)
  })
})

describe('requests that may be sent again', () => {
  it.each<[Asked, boolean]>([
    [{ method: 'GET' }, true],
    [{ method: 'HEAD' }, true],
    [{ method: 'DELETE' }, true],
    [{ method: 'POST' }, false],
    [{ method: 'PATCH' }, false],
    [{ method: 'POST', headers: { 'Idempotency-Key': '1' } }, true],
    [{ method: 'POST', headers: { 'Idempotency-Key': '1', 'Content-Length': '1' } }, false],
    [{ method: 'PUT', headers: { 'Content-Length': '1' } }, false],
    [{ method: 'GET', headers: { 'Transfer-Encoding': 'chunked' } }, false],
  ])('%j: %s', async (asked, may) => {
    expect(mayRepeat(await exchangeOf(asked))).toBe(may)
  })

  it('are not when the server had all its time, or answered what is no HTTP', () => {
    expect((['lost', 'unconnected', 'connect_timeout', 'status'] as const).every(isWorthRepeating)).toBe(true)
    expect((['silent', 'malformed'] as const).some(isWorthRepeating)).toBe(false)
  })
})

describe('the budget of retries', () => {
  const takeAll = (budget: ReturnType<typeof createRetryBudget>, now: number): number => {
    let taken = 0
    while (budget.take(now)) taken++
    return taken
  }

  it('is a tenth of the requests, and never less than its floor', () => {
    const budget = createRetryBudget()
    expect(takeAll(budget, 0)).toBe(limits.retryFloor)
    const busy = createRetryBudget()
    for (let i = 0; i < 5_000; i++) busy.count(100)
    expect(takeAll(busy, 200)).toBe(500)
    expect(busy.taken()).toBe(500)
  })

  it('is there again in the next window, by what came in the last', () => {
    const budget = createRetryBudget()
    for (let i = 0; i < 5_000; i++) budget.count(100)
    takeAll(budget, 200)
    expect(takeAll(budget, 100 + limits.retryWindowMs)).toBe(500)
    expect(takeAll(budget, 100 + 3 * limits.retryWindowMs)).toBe(limits.retryFloor)
  })
})

describe('the servers of an upstream', () => {
  async function createGroupOf(upstream: Upstream): Promise<{ group: Group; world: { now: number } }> {
    const table = { ...toTable([{ path: '/*', proxy: { to: 'core' } }]), upstreams: { core: upstream } }
    const { upstreams } = await compileTables([{ table }], { environment: {}, development: false })
    const world = { now: 0 }
    return { group: createGroup(upstreams[0]!, { now: () => world.now }), world }
  }
  const three = ['http://10.0.0.1', 'http://10.0.0.2', 'http://10.0.0.3']
  const twice = { attempts: 2, statuses: [] }
  const breakDown = ({ health }: Group, index: number): void => {
    for (let i = 0; i < limits.upstreamFailuresMax; i++) health.failed(index, 'lost', 'x')
  }

  it('are tried again with a request that can go elsewhere, not with one that cannot', async () => {
    const { group, world } = await createGroupOf({ servers: three })
    breakDown(group, 1)
    world.now += limits.ejectionMs
    const post = await exchangeOf({ method: 'POST' })
    expect(Array.from({ length: 6 }, () => group.choose(post, twice))).not.toContain(1)
    expect(group.choose(await exchangeOf(), { attempts: 1, statuses: [] })).not.toBe(1)
    expect(group.choose(await exchangeOf(), twice)).toBe(1)
  })

  it('are tried again with any request when no such comes', async () => {
    const { group, world } = await createGroupOf({ servers: three })
    breakDown(group, 1)
    const post = await exchangeOf({ method: 'POST' })
    world.now += 2 * limits.ejectionMs
    expect(group.choose(post, twice)).toBe(1)
    group.begin(1)
    expect(Array.from({ length: 6 }, () => group.choose(post, twice))).not.toContain(1)
  })

  it('refuse at once when none can be asked, with the bound and when to ask again', async () => {
    const { group } = await createGroupOf({ servers: three, health: { path: '/' } })
    for (const index of [0, 1, 2]) for (let i = 0; i < 3; i++) group.health.checked(index, false, 'x')
    expect(group.choose(await exchangeOf(), twice)).toBe(-1)
    expect(group.toRefusal()).toMatchObject({
      code: 'upstream_down',
      limit: { name: 'unhealthyAfter', value: 3 },
      headers: ['Retry-After', '10'],
    })
  })

  it('count what is with them, whatever becomes of it', async () => {
    const { group } = await createGroupOf({ servers: three, balance: 'least-connections' })
    const exchange = await exchangeOf()
    for (let i = 0; i < 9; i++) group.begin(group.choose(exchange, twice))
    expect(group.inFlight()).toBe(9)
    group.end(2)
    expect(group.choose(exchange, twice)).toBe(2)
  })
})
