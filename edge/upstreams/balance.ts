import type { CompiledServer } from '../compile.ts'
import type { Exchange } from '../exchange.ts'
import { fieldValue } from '../exchange.ts'
import type { Balance } from '../table.ts'

/** What balancing knows of the servers at this moment. */
export interface Load {
  /** How much of its weight a server takes: 0 not any, 1 all of it, between them while it recovers. */
  share(index: number): number
  /** Requests that are with it. */
  inFlight(index: number): number
}

/** Chooses a server for a request. */
export interface Balancer {
  /** The server's index, never one of `tried`; -1 when none may be asked. Backups only when no other may. */
  pick(key: string, tried?: readonly number[]): number
}

export function createBalancer(servers: readonly CompiledServer[], balance: Balance, load: Load): Balancer {
  const choose = createChoice(servers, balance, load)
  const weights = servers.map(() => 0)

  function pick(key: string, tried?: readonly number[]): number {
    return weigh(false, tried) || weigh(true, tried) ? choose(weights, key) : -1
  }

  /** Fills in what each server weighs now; says whether any weighs something. */
  function weigh(backup: boolean, tried: readonly number[] | undefined): boolean {
    let any = false
    for (const [index, server] of servers.entries()) {
      const isAsked = server.backup === backup && tried?.includes(index) !== true
      const weight = isAsked ? server.weight * load.share(index) : 0
      weights[index] = weight
      any ||= weight > 0
    }
    return any
  }

  return { pick }
}

/** Chooses among servers whose weight is not 0; there is at least one. */
type Choice = (weights: readonly number[], key: string) => number

function createChoice(servers: readonly CompiledServer[], balance: Balance, load: Load): Choice {
  if (balance === 'round-robin') return createTurns(servers.length)
  if (balance === 'least-connections') return createLeast(servers.length, load)
  return createRendezvous(servers)
}

/** Smooth weighted round-robin: each gets its weight in every cycle, spread over the cycle rather than in a row. */
function createTurns(count: number): Choice {
  const credits = Array.from({ length: count }, () => 0)
  return (weights) => {
    let best = -1
    let total = 0
    for (let index = 0; index < count; index++) {
      const weight = weights[index] ?? 0
      if (weight === 0) continue
      const credit = (credits[index] ?? 0) + weight
      credits[index] = credit
      total += weight
      if (best === -1 || credit > (credits[best] ?? 0)) best = index
    }
    credits[best] = (credits[best] ?? 0) - total
    return best
  }
}

/** The server with the fewest requests for its weight; those that have equally few take turns. */
function createLeast(count: number, load: Load): Choice {
  const turns = createTurns(count)
  const least = Array.from({ length: count }, () => 0)
  return (weights, key) => {
    let fewest = Number.POSITIVE_INFINITY
    for (let index = 0; index < count; index++) fewest = Math.min(fewest, fullness(weights, load, index))
    for (let index = 0; index < count; index++)
      least[index] = fullness(weights, load, index) === fewest ? (weights[index] ?? 0) : 0
    return turns(least, key)
  }
}

function fullness(weights: readonly number[], load: Load, index: number): number {
  const weight = weights[index] ?? 0
  return weight === 0 ? Number.POSITIVE_INFINITY : (load.inFlight(index) + 1) / weight
}

/**
 * Rendezvous hashing: every server draws a number for the key, and the highest for its weight wins. Without a server,
 * only the keys that it had move; a new one takes its share of each of the others.
 */
function createRendezvous(servers: readonly CompiledServer[]): Choice {
  const seeds = servers.map(({ origin }) => hashText(origin))
  return (weights, key) => {
    const hashed = hashText(key)
    let best = -1
    let highest = Number.NEGATIVE_INFINITY
    for (let index = 0; index < seeds.length; index++) {
      const weight = weights[index] ?? 0
      if (weight === 0) continue
      const drawn = (mix(Math.imul(hashed, 0x9e3779b1) ^ (seeds[index] ?? 0)) + 0.5) / 2 ** 32
      const score = -weight / Math.log(drawn)
      if (score <= highest) continue
      highest = score
      best = index
    }
    return best
  }
}

/** FNV-1a, then MurmurHash3's last step: 32 bits. */
export function hashText(text: string): number {
  let bits = 0x811c9dc5
  for (let at = 0; at < text.length; at++) bits = Math.imul(bits ^ text.charCodeAt(at), 0x01000193)
  return mix(bits)
}

function mix(bits: number): number {
  let mixed = bits ^ (bits >>> 16)
  mixed = Math.imul(mixed, 0x85ebca6b)
  mixed ^= mixed >>> 13
  mixed = Math.imul(mixed, 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

/** What a request is known by to consistent hashing; without the field or the cookie it is the client's address. */
export function toBalanceKey(balance: Balance, exchange: Exchange): string {
  if (typeof balance === 'string') return ''
  const { hash: by } = balance
  if (by === 'address') return exchange.client.bucket
  const value = 'header' in by ? fieldValue(exchange.headers, by.header.toLowerCase()) : readCookie(exchange, by.cookie)
  return value ?? exchange.client.bucket
}

export function readCookie({ cookie }: Exchange, name: string): string | undefined {
  for (const pair of cookie.split(';')) {
    const [key = '', ...rest] = pair.split('=')
    if (key.trim() === name && rest.length > 0) return rest.join('=').trim()
  }
  return undefined
}

/** 'round-robin', 'hash of the cookie session'. */
export function describeBalance(balance: Balance): string {
  if (typeof balance === 'string') return balance
  const { hash: by } = balance
  if (by === 'address') return "hash of the client's address"
  return 'header' in by ? `hash of the field ${by.header}` : `hash of the cookie ${by.cookie}`
}
