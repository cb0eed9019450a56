import { Redis } from '@upstash/redis/cloudflare'
import { limits } from '../limits.ts'
import { createLocalLimiter, hasBurst, toCountedKey } from '../local-limiter.ts'
import type { LocalLimiter } from '../local-limiter.ts'
import type { Limiter, LimitRule, LimitVerdict } from '../runtime.ts'
import { within } from '../shared-limiter.ts'
import { createUpstashLimiter } from '../upstash-limiter.ts'

/** The platform's counter (one per location, approximate). */
interface RateLimitBinding {
  limit(options: { key: string }): Promise<{ success: boolean }>
}

export type Bindings = Readonly<Record<string, unknown>>

export interface WorkerLimiterOptions {
  /** Milliseconds since the epoch. */
  now: () => number
  /** Hears once per change whether Upstash answers. */
  log: (message: string) => void
  /** Default limits.limiterTimeoutMs. */
  timeoutMs?: number
}

/**
 * The limiter of a Worker: Upstash's Redis when UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN are bound; else, for
 * rules that one fits, the platform's counters, bound as LIMIT_<requests>_<seconds>; else the isolate counts alone.
 */
export function createWorkerLimiter(bindings: Bindings, options: WorkerLimiterOptions): Limiter {
  const { now, log, timeoutMs = limits.limiterTimeoutMs } = options
  const local = createLocalLimiter({ now })
  const { UPSTASH_REDIS_REST_URL: url, UPSTASH_REDIS_REST_TOKEN: token } = bindings
  if (typeof url === 'string' && url !== '' && typeof token === 'string' && token !== '')
    return createUpstashLimiter({
      store: connect(url, token, timeoutMs),
      local,
      now,
      timeoutMs,
      onAnswer: createReport(log),
    })
  return createPlatformLimiter(bindings, local, timeoutMs)
}

function connect(url: string, token: string, timeoutMs: number): Redis {
  return new Redis({
    url,
    token,
    retry: { retries: 0 },
    // As a function: an aborted request then rejects. A plain signal makes the client answer with the abort's reason.
    signal: () => AbortSignal.timeout(timeoutMs),
    readYourWrites: false,
    // Pipelining would put commands of several requests into one fetch, which must not outlive the request it is made in.
    enableAutoPipelining: false,
    enableTelemetry: false,
  })
}

/** Logs each change. Of a fault only its name: its text can repeat a whole script. */
function createReport(log: (message: string) => void): (fault: unknown) => void {
  let isUp = true
  return function report(fault) {
    if (isUp === (fault === undefined)) return
    isUp = fault === undefined
    log(isUp ? 'upstash answers' : `upstash is down: ${fault instanceof Error ? fault.name : 'unknown'}`)
  }
}

/** The isolate's own exact count comes first and supplies the numbers that the platform does not tell. */
function createPlatformLimiter(bindings: Bindings, local: LocalLimiter, timeoutMs: number): Limiter {
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
      const answer = binding.limit({ key: `${encodeURIComponent(rule.id)}:${toCountedKey(key)}` })
      return confirm(verdict, within(answer, timeoutMs), rule)
    },
  }
}

async function confirm(
  verdict: LimitVerdict,
  answer: Promise<{ success: boolean }>,
  rule: LimitRule,
): Promise<LimitVerdict> {
  try {
    return (await answer).success ? verdict : { outcome: 'refused', remaining: 0, resetAt: verdict.resetAt }
  } catch {
    return rule.whenDown === 'local' ? verdict : { outcome: 'down', remaining: 0, resetAt: verdict.resetAt }
  }
}

/** The platform knows windows of 10 and 60 seconds and no bursts. */
function findBinding(bindings: Bindings, rule: LimitRule): RateLimitBinding | null {
  if (hasBurst(rule) || (rule.windowMs !== 10_000 && rule.windowMs !== 60_000)) return null
  const binding = bindings[`LIMIT_${rule.requests}_${rule.windowMs / 1_000}`]
  return isRateLimitBinding(binding) ? binding : null
}

function isRateLimitBinding(value: unknown): value is RateLimitBinding {
  return typeof value === 'object' && value !== null && 'limit' in value && typeof value.limit === 'function'
}
