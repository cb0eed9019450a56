import { WorkerError } from '../error.ts'

/** How an attempt failed. */
export interface Failure {
  reason:
    | 'connect' // no connection: nothing was asked
    | 'reset' // asked, and the connection was lost
    | 'status' // an answer that is no success
    | 'error_event' // an error inside a stream
    | 'abort' // a success in all but its finish_reason
    | 'truncated' // it ended without an end
    | 'garbage' // no answer of this kind
    | 'first_token' // nothing came
    | 'stall' // nothing more came
    | 'too_large'
  /** Of the answer, or of the error inside a stream. */
  status?: number
  /** The body of an answer that is no success. */
  body?: Buffer
  retryAfterMs?: number
  /** For the log. */
  cause?: string
}

/** What may be done about a failure before anything was committed. */
export type Remedy =
  | 'none' // the request is at fault, or nobody can help
  | 'other' // another server, or another provider
  | 'any' // this server again, too, a little later
  | 'later' // this provider again, when it says

export function toRemedy({ reason, status = 0, retryAfterMs }: Failure): Remedy {
  if (reason === 'status' || reason === 'error_event') return remedyOf(status, retryAfterMs)
  if (reason === 'connect' || reason === 'reset' || reason === 'abort') return 'any'
  return reason === 'too_large' ? 'none' : 'other'
}

function remedyOf(status: number, retryAfterMs: number | undefined): Remedy {
  // A 429 that does not say when to come again is a limit on spending: it will not pass.
  if (status === 408 || status === 425 || status === 429) return retryAfterMs === undefined ? 'other' : 'later'
  if (status === 502 || status === 503 || status === 504 || status === 529) return 'any'
  return status >= 500 || status === 0 ? 'other' : 'none'
}

const connectCodes = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
  'CERT_HAS_EXPIRED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
])

/** The failure behind an error of a connection. */
export function toConnectionFailure(error: Error): Failure {
  const code = 'code' in error ? String(error.code) : error.name
  return { reason: connectCodes.has(code) ? 'connect' : 'reset', cause: code }
}

/** What the client is told when no attempt is left. */
export function toRefusal(failure: Failure): WorkerError {
  if (failure.reason === 'status' && failure.status === 429)
    return new WorkerError('overloaded', 'The model has too much to do', toRetry(failure))
  if (toRemedy(failure) === 'any')
    return new WorkerError('upstream_unavailable', 'The model cannot be reached at the moment', toRetry(failure))
  const message =
    failure.reason === 'stall' || failure.reason === 'first_token' ? 'The model stopped answering' : 'The model failed'
  return new WorkerError('upstream_failed', message, { retryAfterSeconds: 1 })
}

const toRetry = ({ retryAfterMs = 2_000 }: Failure) => ({
  retryAfterSeconds: Math.max(1, Math.ceil(retryAfterMs / 1_000)),
})

/** Retry-After in milliseconds (RFC 9110 §10.2.3), of seconds or of a date. */
export function readRetryAfter(field: string | undefined, now: number): number | undefined {
  if (field === undefined) return undefined
  if (/^\d{1,6}$/.test(field)) return Number(field) * 1_000
  const at = Date.parse(field)
  return Number.isNaN(at) ? undefined : Math.max(0, at - now)
}
