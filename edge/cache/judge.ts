import type { UseCache } from './cache-plan.ts'
import { readSeconds } from './directives.ts'
import type { StoredHead } from './stored-head.ts'

/**
 * What a stored answer is good for now (RFC 9111 §4).
 * fresh: sent. refresh: sent, and another one fetched behind it. validate: the upstream is asked first.
 * unusable: as if it were not there.
 */
export interface Judgement {
  use: 'fresh' | 'refresh' | 'validate' | 'unusable'
  /** Seconds that it is still fresh; negative: since when it no longer is. */
  ttl: number
  /** Why the upstream is asked: what is kept is stale, or the request wants it. */
  forward: 'stale' | 'request' | 'uri-miss'
}

export function judgeStored({ directives, isPersonal }: UseCache, stored: StoredHead, now: number): Judgement {
  const ageMs = toAgeMs(stored, now)
  const leftMs = stored.freshMs - ageMs
  const ttl = Math.floor(leftMs / 1_000)
  if (isPersonal && !stored.isPublic) return { use: 'unusable', ttl, forward: 'uri-miss' }
  const validate = (forward: 'stale' | 'request'): Judgement => ({ use: 'validate', ttl, forward })
  if (directives.size > 0) {
    if (directives.has('no-cache')) return validate('request')
    const ageMax = readSeconds(directives, 'max-age')
    if (ageMax !== undefined && ageMs > ageMax * 1_000) return validate('request')
    const freshMin = readSeconds(directives, 'min-fresh')
    if (freshMin !== undefined && leftMs < freshMin * 1_000) return validate('request')
  }
  if (stored.noCache) return validate('stale')
  if (leftMs > 0) return { use: 'fresh', ttl, forward: 'stale' }
  if (!stored.mustRevalidate && takesStale(directives, -leftMs)) return { use: 'fresh', ttl, forward: 'stale' }
  return -leftMs < stored.staleWhileRevalidateMs ? { use: 'refresh', ttl, forward: 'stale' } : validate('stale')
}

/** max-stale without a number takes everything (RFC 9111 §5.2.1.2). */
function takesStale(directives: UseCache['directives'], staleMs: number): boolean {
  const argument = directives.get('max-stale')
  return argument === '' || (argument !== undefined && staleMs <= (readSeconds(directives, 'max-stale') ?? 0) * 1_000)
}

/** Whether a stale answer is better than none (RFC 5861 §4); not for who asks for a fresh one. */
export function mayServeOnError({ directives, isPersonal }: UseCache, stored: StoredHead, now: number): boolean {
  if (isPersonal && !stored.isPublic) return false
  if (directives.has('no-cache') || directives.has('max-age') || directives.has('min-fresh')) return false
  return !stored.noCache && toAgeMs(stored, now) - stored.freshMs < stored.staleIfErrorMs
}

/** Statuses that mean so (RFC 5861 §4). */
export const isError = (status: number): boolean => status === 500 || (status >= 502 && status <= 504)

/** RFC 9111 §4.2.3. */
export const toAgeMs = ({ initialAgeMs, receivedAt }: StoredHead, now: number): number =>
  initialAgeMs + Math.max(0, now - receivedAt)
