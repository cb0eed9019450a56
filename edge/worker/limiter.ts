import { Redis } from '@upstash/redis/cloudflare'
import { limits } from '../limits.ts'
import { createLocalLimiter, hasBurst, toCountedKey } from '../local-limiter.ts'
import type { LocalLimiter } from '../local-limiter.ts'
import type { Limiter, LimitRule, LimitVerdict } from '../runtime.ts'
import { createUpstashLimiter, within } from '../upstash-limiter.ts'

/** The platform's counter (one per location, approximate). */
export interface RateLimitBinding {
  limit(options: { key: string }): Promise<{ success: boolean }>
}

/**
 * The limiter of a Worker: Upstash's Redis when UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN are bound; else, for
 * rules that one fits, the platform's counters, bound as LIMIT_<requests>_<seconds>; else the isolate counts alone.
 */
export function createWorkerLimiter(bindings: Readonly<Record<string, unknown>>, now: () => number): Limiter {
  const local = createLocalLimiter({ now })
  const { UPSTASH_REDIS_REST_URL: url, UPSTASH_REDIS_REST_TOKEN: token } = bindings
  if (typeof url === 'string' && url !== '' && typeof token === 'string' && token !== '')
    return createUpstashLimiter({ store: connect(url, token), local, now })
  return createPlatformLimiter(bindings, local)
}

function connect(url: string, token: string): Redis {
  return new Redis({
    url,
    token,
    retry: { retries: 0 },
    // As a function: an aborted request then rejects. A plain signal makes the client answer with the abort's reason.
    signal: () => AbortSignal.timeout(limits.limiterTimeoutMs),
    readYourWrites: false,
    enableTelemetry: false,
  })
}

/** The isolate's own exact count comes first and supplies the numbers that the platform does not tell. */
function createPlatformLimiter(bindings: Readonly<Record<string, unknown>>, local: LocalLimiter): Limiter {
  const found = new WeakMap<LimitRule, RateLimitBinding | null>()
  return {
    take(rule, key) {
      let binding = found.get(rule)
      if (binding === undefined) {
        binding = findBinding(bindings, rule)
        found.set(rule, binding)
      }
      const verdict = local.take(rule, key)
      if (binding === null || verdict.outcome !== 'allowed') return verdict
      return confirm(binding, verdict, { rule, key })
    },
  }
}

async function confirm(
  binding: RateLimitBinding,
  verdict: LimitVerdict,
  { rule, key }: { rule: LimitRule; key: string },
): Promise<LimitVerdict> {
  try {
    const answer = binding.limit({ key: `${encodeURIComponent(rule.id)}:${toCountedKey(key)}` })
    const { success } = await within(answer, limits.limiterTimeoutMs)
    return success ? verdict : { outcome: 'refused', remaining: 0, resetAt: verdict.resetAt }
  } catch {
    return rule.whenDown === 'local' ? verdict : { outcome: 'down', remaining: 0, resetAt: verdict.resetAt }
  }
}

/** The platform knows windows of 10 and 60 seconds and no bursts. */
function findBinding(bindings: Readonly<Record<string, unknown>>, rule: LimitRule): RateLimitBinding | null {
  if (hasBurst(rule) || (rule.windowMs !== 10_000 && rule.windowMs !== 60_000)) return null
  const binding = bindings[`LIMIT_${rule.requests}_${rule.windowMs / 1_000}`]
  return isRateLimitBinding(binding) ? binding : null
}

function isRateLimitBinding(value: unknown): value is RateLimitBinding {
  return typeof value === 'object' && value !== null && 'limit' in value && typeof value.limit === 'function'
}
