import type { Band } from '#origin/kit/worker-tokens.ts'
import { bands } from '#origin/kit/worker-tokens.ts'
import type { Limits } from '../limits.ts'

/** What the queue needs to know of a request. */
export interface Waiting {
  tenant: string
  band: Band
  /** What it will take at most. */
  tokens: number
  bytes: number
  deadlineAt: number
  enqueuedAt: number
}

export interface QueueBounds {
  requestsMax: number
  tokensMax: number
  bytesMax: number
}

/**
 * Requests that wait: by band, and inside a band by tenant. A turn gives every tenant the same number of tokens
 * (deficit round robin, Shreedhar and Varghese 1995); among tenants with tokens left the earliest deadline goes first.
 * A request of a lower band that has waited long goes before all, once in so many grants.
 */
export interface Queue<T extends Waiting> {
  requests(): number
  tokens(): number
  /** Requests that would go before a new one of this band. */
  ahead(band: Band): number
  /** Whether one more fits. */
  hasRoom(waiting: T): boolean
  add(waiting: T): void
  /** The one that goes next; it stays until it is taken. */
  peek(now: number): T | undefined
  take(waiting: T): void
  /** Leaves without a turn. */
  remove(waiting: T): void
  /** The last in line of the lowest band, if it is a lower one than this: it may have to make room. */
  lastBelow(band: Band): T | undefined
  all(): T[]
}

interface Tenant<T> {
  /** By deadline. */
  line: T[]
  credit: number
}

export function createQueue<T extends Waiting>(bounds: QueueBounds, limits: Limits): Queue<T> {
  const tenantsOf = bands.map(() => new Map<string, Tenant<T>>())
  /** In the order in which they came. */
  const arrived = bands.map(() => new Set<T>())
  let [tokens, bytes, grants] = [0, 0, 0]

  const rank = (band: Band): number => bands.indexOf(band)
  const requests = (): number => arrived.reduce((sum, { size }) => sum + size, 0)

  function add(waiting: T): void {
    const tenants = tenantsOf[rank(waiting.band)] as Map<string, Tenant<T>>
    const tenant = tenants.get(waiting.tenant) ?? { line: [], credit: 0 }
    tenants.set(waiting.tenant, tenant)
    const at = tenant.line.findIndex(({ deadlineAt }) => deadlineAt > waiting.deadlineAt)
    tenant.line.splice(at === -1 ? tenant.line.length : at, 0, waiting)
    arrived[rank(waiting.band)]?.add(waiting)
    tokens += waiting.tokens
    bytes += waiting.bytes
  }

  function remove(waiting: T): void {
    if (!arrived[rank(waiting.band)]?.delete(waiting)) return
    const tenants = tenantsOf[rank(waiting.band)] as Map<string, Tenant<T>>
    const tenant = tenants.get(waiting.tenant) as Tenant<T>
    tenant.line.splice(tenant.line.indexOf(waiting), 1)
    if (tenant.line.length === 0) tenants.delete(waiting.tenant)
    tokens -= waiting.tokens
    bytes -= waiting.bytes
  }

  function peek(now: number): T | undefined {
    const promoted = grants % limits.promoteEvery === 0 ? findPromoted(now) : undefined
    if (promoted) return promoted
    const tenants = tenantsOf.find(({ size }) => size > 0)
    return tenants && nextOf([...tenants.values()], limits.turnTokens)
  }

  /** The oldest of the lower bands, if it has waited too long. */
  function findPromoted(now: number): T | undefined {
    const oldest = arrived.slice(1).flatMap((band) => [...band].slice(0, 1))
    return oldest.find(({ enqueuedAt }) => now - enqueuedAt > limits.promoteMs)
  }

  function take(waiting: T): void {
    const tenant = tenantsOf[rank(waiting.band)]?.get(waiting.tenant)
    if (tenant) tenant.credit -= waiting.tokens
    grants++
    remove(waiting)
  }

  return {
    requests,
    tokens: () => tokens,
    ahead: (band) => arrived.slice(0, rank(band) + 1).reduce((sum, { size }) => sum + size, 0),
    hasRoom: (waiting) =>
      requests() < bounds.requestsMax &&
      tokens + waiting.tokens <= bounds.tokensMax &&
      bytes + waiting.bytes <= bounds.bytesMax,
    add,
    peek,
    take,
    remove,
    lastBelow(band) {
      const lowest = arrived.slice(rank(band) + 1).findLast(({ size }) => size > 0)
      return lowest && [...lowest].at(-1)
    },
    all: () => arrived.flatMap((band) => [...band]),
  }
}

/** Among tenants with enough credit the earliest deadline; when none has enough, all get as many turns as it takes. */
function nextOf<T extends Waiting>(tenants: Tenant<T>[], turnTokens: number): T | undefined {
  const missing = Math.min(...tenants.map(({ line, credit }) => (line[0]?.tokens ?? Infinity) - credit))
  if (missing > 0) {
    const turns = Math.ceil(missing / turnTokens)
    for (const tenant of tenants) tenant.credit += turns * turnTokens
  }
  return tenants
    .filter(({ line, credit }) => (line[0]?.tokens ?? Infinity) <= credit)
    .map(({ line }) => line[0] as T)
    .reduce<T | undefined>((first, one) => (first && first.deadlineAt <= one.deadlineAt ? first : one), undefined)
}
