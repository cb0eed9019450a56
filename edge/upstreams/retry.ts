import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { limits } from '../limits.ts'

/** What became of one attempt, before a byte of its answer went to the client. */
export type Failure =
  | 'unconnected' // no connection came about: nothing was sent
  | 'connect_timeout' // the same, after waiting for it
  | 'lost' // the connection broke before the answer began
  | 'silent' // no answer in time
  | 'malformed' // no HTTP
  | 'status' // 502, 503 or 504

/**
 * Whether a failed request may be sent once more, wherever. Only what the method or the client's Idempotency-Key says
 * may be repeated (RFC 9110 §9.2.2), and only without a body: bodies are passed on, not kept.
 */
export function mayRepeat({ method, hasBody, headers }: Exchange): boolean {
  if (hasBody) return false
  return idempotent.has(method) || fieldValue(headers, 'idempotency-key') !== undefined
}

const idempotent: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])
export const isIdempotent = (method: string): boolean => idempotent.has(method)

/** Failures after which asking again can help. A server that was silent had its time, and time is what is short. */
export const isWorthRepeating = (failure: Failure): boolean => failure !== 'silent' && failure !== 'malformed'

/** Bounds the second attempts of an upstream to a part of its requests, so that retries cannot make an outage worse. */
export interface RetryBudget {
  /** A request came in. */
  count(now: number): void
  /** Takes one retry out of the budget; false when it is used up. */
  take(now: number): boolean
  /** Retries that were ever taken. */
  taken(): number
}

/** `retryBudgetPercent` of the requests of the last one to two windows, and in each window at least `retryFloor`. */
export function createRetryBudget(): RetryBudget {
  let start = Number.NEGATIVE_INFINITY
  let requests = 0
  let before = 0
  let retries = 0
  let taken = 0

  function turn(now: number): void {
    if (now - start < limits.retryWindowMs) return
    before = now - start < 2 * limits.retryWindowMs ? requests : 0
    start = now
    requests = 0
    retries = 0
  }

  return {
    count: (now) => {
      turn(now)
      requests++
    },
    take: (now) => {
      turn(now)
      const allowed = Math.max(limits.retryFloor, (Math.max(requests, before) * limits.retryBudgetPercent) / 100)
      if (retries >= allowed) return false
      retries++
      taken++
      return true
    },
    taken: () => taken,
  }
}
