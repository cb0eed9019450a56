import type { CompiledRetry, CompiledServer, CompiledUpstream } from '../compile.ts'
import type { Refusal } from '../error.ts'
import type { Exchange } from '../exchange.ts'
import { limits } from '../limits.ts'
import { createBalancer, toBalanceKey } from './balance.ts'
import { createHealth } from './health.ts'
import type { Health, HealthChange } from './health.ts'
import { createRetryBudget, mayRepeat } from './retry.ts'
import type { RetryBudget } from './retry.ts'

/** The servers of one upstream as they are now. Deciding only: who sends tells it what came of that. */
export interface Group {
  readonly upstream: CompiledUpstream
  readonly health: Health
  readonly budget: RetryBudget
  /** Requests that are with its servers. */
  inFlight(): number
  inFlightAt(index: number): number
  /** The index of the server to ask, none of `tried`; -1: no server may be asked. */
  choose(exchange: Exchange, retry: CompiledRetry, tried?: readonly number[]): number
  /** A request goes to this server; `end` follows, whatever became of it. */
  begin(index: number): void
  end(index: number): void
  serverAt(index: number): CompiledServer
  /** Why `choose` found none. */
  toRefusal(): Refusal
}

export interface GroupOptions {
  /** Milliseconds that only grow. */
  now: () => number
  onChange?: (change: HealthChange) => void
}

export function createGroup(upstream: CompiledUpstream, { now, onChange = () => {} }: GroupOptions): Group {
  const { servers, balance } = upstream
  const counts = servers.map(() => 0)
  const health = createHealth({
    count: servers.length,
    slowStartMs: upstream.slowStartMs,
    healthyAfter: upstream.health?.healthyAfter ?? limits.healthyAfter,
    unhealthyAfter: upstream.health?.unhealthyAfter ?? limits.unhealthyAfter,
    now,
    onChange,
  })
  const balancer = createBalancer(servers, balance, { share: health.share, inFlight: (index) => counts[index] ?? 0 })
  let total = 0

  function choose(exchange: Exchange, retry: CompiledRetry, tried?: readonly number[]): number {
    if (servers.length === 1) {
      if (tried !== undefined) return -1
      return health.isUp(0) ? 0 : health.due()
    }
    const due = tried === undefined ? findDue(exchange, retry) : -1
    if (due !== -1) return due
    const picked = balancer.pick(toBalanceKey(balance, exchange), tried)
    if (picked !== -1) return picked
    const last = health.due()
    return tried?.includes(last) === true ? -1 : last
  }

  /** A request that can go elsewhere when this fails is the one to try it with; when none comes, any other. */
  function findDue(exchange: Exchange, { attempts }: CompiledRetry): number {
    const due = health.due()
    return due === -1 || (attempts > 1 && mayRepeat(exchange)) ? due : health.due(limits.ejectionMs)
  }

  function toRefusal(): Refusal {
    const { name, value, againMs } = health.closed()
    return {
      code: 'upstream_down',
      detail: 'no server of the upstream can be asked',
      limit: { name, value },
      headers: ['Retry-After', String(Math.max(1, Math.ceil(againMs / 1_000)))],
    }
  }

  return {
    upstream,
    health,
    budget: createRetryBudget(),
    inFlight: () => total,
    inFlightAt: (index) => counts[index] ?? 0,
    choose,
    begin: (index) => {
      total++
      counts[index] = (counts[index] ?? 0) + 1
      health.begin(index)
    },
    end: (index) => {
      total--
      counts[index] = (counts[index] ?? 0) - 1
      health.abandoned(index)
    },
    serverAt: (index) => servers[index] as CompiledServer,
    toRefusal,
  }
}
