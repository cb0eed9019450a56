import { limits } from './limits.ts'
import type { Limiter, LimitRule, LimitVerdict } from './runtime.ts'

/** Counts in this process, at once. */
export interface LocalLimiter extends Limiter {
  take(rule: LimitRule, key: string): LimitVerdict
  /** How many callers are remembered. */
  size(): number
}

/**
 * A limiter in this process, with the arithmetic of the scripts of @upstash/ratelimit 2.2.0: the same requests at the
 * same times get the same verdicts as from a shared store. Of `entriesMax` callers the least recently seen is forgotten.
 */
export function createLocalLimiter(options: { now: () => number; entriesMax?: number }): LocalLimiter {
  const { now, entriesMax = limits.limiterEntriesMax } = options
  const recency = new Recency(entriesMax)
  const counters = new Map<string, Counter>()
  return {
    take(rule, key) {
      let counter = counters.get(rule.id)
      if (counter?.rule !== rule) {
        counter = renewCounter(counter, rule, recency)
        counters.set(rule.id, counter)
      }
      return counter.take(toCountedKey(key), now())
    },
    size: () => recency.size,
  }
}

/** A bucket of `capacity` tokens into which `refill` fall each `intervalMs`. */
export interface Bucket {
  capacity: number
  refill: number
  intervalMs: number
}

/** The bucket of a rule, in the smallest steps of whole tokens and milliseconds: 30 per 1 s are 3 per 100 ms. */
export function toBucket(rule: LimitRule & { burst: number }): Bucket {
  const divisor = greatestCommonDivisor(rule.requests, rule.windowMs)
  return { capacity: rule.burst + 1, refill: rule.requests / divisor, intervalMs: rule.windowMs / divisor }
}

export function hasBurst(rule: LimitRule): rule is LimitRule & { burst: number } {
  return rule.burst !== undefined
}

/** What is remembered of a key: all of it, or of a long one its length, head and tail (where tokens differ). */
export function toCountedKey(key: string): string {
  return key.length <= 256 ? key : `${key.length}:${key.slice(0, 64)}:${key.slice(-180)}`
}

/** The callers of one rule. */
interface Counter {
  rule: LimitRule
  take(key: string, now: number): LimitVerdict
}

/** Counts go on when tables are read again, unless the rule's numbers changed. */
function renewCounter(known: Counter | undefined, rule: LimitRule, recency: Recency): Counter {
  if (known && isSameLimit(known.rule, rule)) return { rule, take: known.take }
  return { rule, take: hasBurst(rule) ? countInBuckets(toBucket(rule), recency) : countInWindows(rule, recency) }
}

function isSameLimit(a: LimitRule, b: LimitRule): boolean {
  return a.requests === b.requests && a.windowMs === b.windowMs && a.burst === b.burst
}

/** The sliding window: what was allowed in this window, plus the share of the one before that still reaches in. */
function countInWindows({ requests, windowMs }: LimitRule, recency: Recency): Counter['take'] {
  const callers = new Map<string, WindowCaller>()
  return function takeInWindow(key, now) {
    let caller = callers.get(key)
    if (caller) recency.touch(caller)
    else {
      caller = new WindowCaller(key, callers)
      callers.set(key, caller)
      recency.add(caller)
    }
    let window = Math.floor(now / windowMs)
    let elapsedMs = now % windowMs
    if (window === caller.window - 1) {
      // The clock was set back over the end of a window: that frees nothing.
      window = caller.window
      elapsedMs = 0
    } else if (window !== caller.window) {
      caller.previous = window === caller.window + 1 ? caller.current : 0
      caller.current = 0
      caller.window = window
    }
    const previous = Math.floor((1 - elapsedMs / windowMs) * caller.previous)
    const resetAt = (window + 1) * windowMs
    if (previous + caller.current >= requests) return { outcome: 'refused', remaining: 0, resetAt }
    caller.current += 1
    return { outcome: 'allowed', remaining: requests - (caller.current + previous), resetAt }
  }
}

/** The token bucket. */
function countInBuckets({ capacity, refill, intervalMs }: Bucket, recency: Recency): Counter['take'] {
  const callers = new Map<string, BucketCaller>()
  const fillMs = Math.ceil(capacity / refill) * intervalMs
  return function takeFromBucket(key, now) {
    let caller = callers.get(key)
    if (caller) recency.touch(caller)
    else {
      caller = new BucketCaller(key, callers)
      callers.set(key, caller)
      recency.add(caller)
    }
    // A store forgets a bucket once it is full, which moves the time of its next refill. The second half: the clock was
    // set back so far that waiting for it would be worse than starting again.
    if (now > caller.fullAt || caller.fullAt - now > 2 * fillMs) {
      caller.refilledAt = now
      caller.tokens = capacity
    } else if (now >= caller.refilledAt + intervalMs) {
      const refills = Math.floor((now - caller.refilledAt) / intervalMs)
      caller.tokens = Math.min(capacity, caller.tokens + refills * refill)
      caller.refilledAt += refills * intervalMs
    }
    const resetAt = caller.refilledAt + intervalMs
    if (caller.tokens < 1) return { outcome: 'refused', remaining: 0, resetAt }
    caller.tokens -= 1
    caller.fullAt = now + Math.ceil((capacity - caller.tokens) / refill) * intervalMs
    return { outcome: 'allowed', remaining: caller.tokens, resetAt }
  }
}

/** One caller under one rule, and its neighbours in the order of being seen. */
class Caller {
  older: Caller = this
  newer: Caller = this
  readonly key: string
  readonly home: Map<string, Caller>
  constructor(key: string, home: Map<string, Caller>) {
    this.key = key
    this.home = home
  }
}

class WindowCaller extends Caller {
  window = -2
  current = 0
  previous = 0
}

class BucketCaller extends Caller {
  refilledAt = 0
  tokens = 0
  fullAt = -1
}

/** The callers of all rules in a ring, from the least to the most recently seen; `end` stands between the two. */
class Recency {
  size = 0
  readonly #sizeMax: number
  readonly #end = new Caller('', new Map())
  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax
  }

  add(caller: Caller): void {
    if (this.size === this.#sizeMax) this.#forget(this.#end.newer)
    this.#append(caller)
    this.size += 1
  }

  touch(caller: Caller): void {
    if (caller === this.#end.older) return
    caller.older.newer = caller.newer
    caller.newer.older = caller.older
    this.#append(caller)
  }

  #append(caller: Caller): void {
    caller.older = this.#end.older
    caller.newer = this.#end
    this.#end.older.newer = caller
    this.#end.older = caller
  }

  #forget(caller: Caller): void {
    caller.older.newer = caller.newer
    caller.newer.older = caller.older
    caller.home.delete(caller.key)
    this.size -= 1
  }
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b)
}
