/**
 * When a certificate is renewed, and when a failed attempt is made again: decided from times alone, so that years of it
 * can be tested in a moment. Times are milliseconds since the epoch.
 */
export interface Life {
  notBefore: number
  notAfter: number
}

/** What the authority suggests (RFC 9773 §4.2). */
export interface RenewalWindow {
  start: number
  end: number
}

/**
 * From when on a new certificate is ordered: shortly before two thirds of its life are over, or earlier when the
 * authority wants it so. `spread`, from 0 to 1, stays the same for one certificate: it keeps those that were
 * ordered together from being renewed together.
 */
export function toRenewalTime({ notBefore, notAfter }: Life, spread: number, window?: RenewalWindow): number {
  const life = notAfter - notBefore
  const own = notBefore + life * (2 / 3 - spread * 0.05)
  if (!window || window.end < window.start) return own
  return Math.min(own, window.start + (window.end - window.start) * spread)
}

/** Less than a third of its life is left: renewing it has failed for a while, or nobody tries. */
export const isExpiring = ({ notBefore, notAfter }: Life, now: number): boolean =>
  notAfter - now < (notAfter - notBefore) / 3

export interface Failed {
  /** In a row. */
  failures: number
  /** What the authority asked for. */
  retryAfterMs: number | undefined
  /** How long certificates live there; undefined: there was none yet. */
  lifeMs: number | undefined
}

/**
 * How long to wait after a failure: twice as long each time, from two minutes up to a 180th of a certificate's life
 * (12 h of 90 days, 48 minutes of six), so that one that is due finds the hour in which its authority answers. What the
 * authority asks for is obeyed up to a day. `spread` is another number from 0 to 1 each time.
 */
export function toRetryDelay({ failures, retryAfterMs = 0, lifeMs = 90 * dayMs }: Failed, spread: number): number {
  const longest = Math.max(firstMs, lifeMs / 180)
  const own = Math.min(longest, firstMs * 2 ** Math.min(failures - 1, 30))
  return Math.max(own, Math.min(retryAfterMs, dayMs)) * (1 + spread / 4)
}

const dayMs = 86_400_000
/** So that five attempts fit in the first hour: as many failed validations are forgiven in one. */
const firstMs = 120_000
