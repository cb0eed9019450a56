import { Ratelimit } from '@upstash/ratelimit'
import { limits } from './limits.ts'
import { hasBurst, toBucket, toCountedKey } from './local-limiter.ts'
import type { LocalLimiter } from './local-limiter.ts'
import type { Limiter, LimitRule, LimitVerdict } from './runtime.ts'

/** What @upstash/ratelimit needs of a Redis. Every member rejects when the store does not answer. */
export interface LimiterStore {
  evalsha(hash: string, keys: string[], args: unknown[]): Promise<unknown>
  eval(script: string, keys: string[], args: unknown[]): Promise<unknown>
  get(key: string): Promise<unknown>
  set(key: string, value: unknown): Promise<unknown>
}

export interface UpstashLimiterOptions {
  store: LimiterStore
  /** Counts while the store is down. */
  local: LocalLimiter
  /** Milliseconds since the epoch. */
  now: () => number
  /** Default limits.limiterTimeoutMs. */
  timeoutMs?: number
  /** What all keys begin with. Default 'daemun'. */
  prefix?: string
  /** Hears after each request that went to the store whether it answered. */
  onAnswer?: (fault: unknown) => void
}

/** After a failure the store is left alone for this long; then one request tries it again. */
const coolDownMs = 1_000

/**
 * Counts in a store that several gateways share. When it fails or is slow, a rule's `whenDown` decides: 'local' counts
 * in this process, 'closed' lets nobody through. It never lets everybody through.
 */
export function createUpstashLimiter(options: UpstashLimiterOptions): Limiter {
  const { store, local, now, timeoutMs = limits.limiterTimeoutMs, prefix = 'daemun', onAnswer } = options
  const ratelimits = new WeakMap<LimitRule, Ratelimit>()
  let failedAt: number | undefined

  return {
    take(rule, key) {
      if (failedAt !== undefined) {
        const at = now()
        // A clock that was set back must not keep the store out of use.
        if (at >= failedAt && at < failedAt + coolDownMs) return takeWithoutStore(rule, key)
        // This request is the trial; the others wait for its outcome. It may never settle (a Worker's request can be
        // cancelled), so that the cool-down starts anew instead of being held by it.
        failedAt = at
      }
      return takeFromStore(rule, key)
    },
  }

  async function takeFromStore(rule: LimitRule, key: string): Promise<LimitVerdict> {
    try {
      const { success, remaining, reset } = await within(ratelimitOf(rule).limit(toCountedKey(key)), timeoutMs)
      failedAt = undefined
      onAnswer?.(undefined)
      return { outcome: success ? 'allowed' : 'refused', remaining, resetAt: reset }
    } catch (fault) {
      failedAt = now()
      onAnswer?.(fault)
      return takeWithoutStore(rule, key)
    }
  }

  function takeWithoutStore(rule: LimitRule, key: string): LimitVerdict {
    if (rule.whenDown === 'local') return local.take(rule, key)
    return { outcome: 'down', remaining: 0, resetAt: (failedAt ?? now()) + coolDownMs }
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

/** What `work` comes to, or a rejection when that takes longer. */
export function within<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
    void work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
