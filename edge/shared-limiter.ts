import { limits } from './limits.ts'
import type { LocalLimiter } from './local-limiter.ts'
import type { Limiter, LimitRule, LimitVerdict } from './runtime.ts'

export interface SharedLimiterOptions {
  /** Counts where others count too; rejects when nobody answers. */
  takeShared: (rule: LimitRule, key: string) => Promise<LimitVerdict>
  /** Counts while nobody does. */
  local: LocalLimiter
  /** Milliseconds since the epoch. */
  now: () => number
  /** Default limits.limiterTimeoutMs. */
  timeoutMs?: number
  /** Hears after each request that was counted elsewhere whether there was an answer. */
  onAnswer?: (fault: unknown) => void
}

/** After a failure nobody is asked for this long; then one request tries it again. */
const coolDownMs = 1_000

/**
 * Counts with others. When that fails or is slow, a rule's `whenDown` decides: 'local' counts in this process, 'closed'
 * lets nobody through. It never lets everybody through.
 */
export function createSharedLimiter(options: SharedLimiterOptions): Limiter {
  const { takeShared, local, now, timeoutMs = limits.limiterTimeoutMs, onAnswer } = options
  let failedAt: number | undefined

  return {
    take(rule, key) {
      if (failedAt !== undefined) {
        const at = now()
        // A clock that was set back must not keep the others out of use.
        if (at >= failedAt && at < failedAt + coolDownMs) return takeAlone(rule, key)
        // This request is the trial; the others wait for its outcome. It may never settle (a Worker's request can be
        // cancelled), so that the cool-down starts anew instead of being held by it.
        failedAt = at
      }
      return takeTogether(rule, key)
    },
  }

  async function takeTogether(rule: LimitRule, key: string): Promise<LimitVerdict> {
    try {
      const verdict = await within(takeShared(rule, key), timeoutMs)
      failedAt = undefined
      onAnswer?.(undefined)
      return verdict
    } catch (fault) {
      failedAt = now()
      onAnswer?.(fault)
      return takeAlone(rule, key)
    }
  }

  function takeAlone(rule: LimitRule, key: string): LimitVerdict {
    if (rule.whenDown === 'local') return local.take(rule, key)
    return { outcome: 'down', remaining: 0, resetAt: (failedAt ?? now()) + coolDownMs }
  }
}

/** What `work` comes to, or a rejection when that takes longer. */
export function within<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
    void work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
