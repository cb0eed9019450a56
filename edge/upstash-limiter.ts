import { Ratelimit } from '@upstash/ratelimit'
import { hasBurst, toBucket, toCountedKey } from './local-limiter.ts'
import type { Limiter, LimitRule, LimitVerdict } from './runtime.ts'
import { createSharedLimiter } from './shared-limiter.ts'
import type { SharedLimiterOptions } from './shared-limiter.ts'

/** What @upstash/ratelimit needs of a Redis. Every member rejects when the store does not answer. */
export interface LimiterStore {
  evalsha(hash: string, keys: string[], args: unknown[]): Promise<unknown>
  eval(script: string, keys: string[], args: unknown[]): Promise<unknown>
  get(key: string): Promise<unknown>
  set(key: string, value: unknown): Promise<unknown>
}

export interface UpstashLimiterOptions extends Omit<SharedLimiterOptions, 'takeShared'> {
  store: LimiterStore
  /** What all keys begin with. Default 'daemun'. */
  prefix?: string
}

/** Counts in a store that several gateways share, with the scripts of @upstash/ratelimit. */
export function createUpstashLimiter({ store, prefix = 'daemun', ...options }: UpstashLimiterOptions): Limiter {
  const ratelimits = new WeakMap<LimitRule, Ratelimit>()
  return createSharedLimiter({ ...options, takeShared: takeFromStore })

  async function takeFromStore(rule: LimitRule, key: string): Promise<LimitVerdict> {
    const { success, remaining, reset } = await ratelimitOf(rule).limit(toCountedKey(key))
    return { outcome: success ? 'allowed' : 'refused', remaining, resetAt: reset }
  }

  function ratelimitOf(rule: LimitRule): Ratelimit {
    const known = ratelimits.get(rule)
    if (known) return known
    const made = new Ratelimit({
      // Its type asks for the members of one client and leaves out `eval`, which it calls.
      redis: store as ConstructorParameters<typeof Ratelimit>[0]['redis'],
      limiter: toAlgorithm(rule),
      // An id with a ':' must not run into the key behind it.
      prefix: `${prefix}:${encodeURIComponent(rule.id)}`,
      // Its own timeout lets requests through; its cache refuses a caller for the rest of a window that slides.
      timeout: 0,
      ephemeralCache: false,
      analytics: false,
    })
    ratelimits.set(rule, made)
    return made
  }
}

function toAlgorithm(rule: LimitRule) {
  if (!hasBurst(rule)) return Ratelimit.slidingWindow(rule.requests, `${rule.windowMs} ms`)
  const { capacity, refill, intervalMs } = toBucket(rule)
  return Ratelimit.tokenBucket(refill, `${intervalMs} ms`, capacity)
}
