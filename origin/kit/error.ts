/** Every way an origin refuses a request, and the status that says so. */
const statusOf = {
  bad_request: 400,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  cursor_unknown: 410,
  body_too_large: 413,
  unsupported_media_type: 415,
  invalid: 422,
  rate_limited: 429,
  internal: 500,
  busy: 503,
  database_unavailable: 503,
  service_unavailable: 503,
  service_timeout: 504,
  config_invalid: 500,
  directory_in_use: 500,
  migration_changed: 500,
} as const

export type OriginErrorCode = keyof typeof statusOf

/** One fault of a request, in the shape FastAPI's clients parse. `loc` starts with body, query, path or header. */
export type Fault = { loc: (string | number)[]; msg: string; type: string; input?: string | number | boolean | null }

/** A refusal that clients tell apart by its code, in the shape of MovieSir's external API. */
export type CodedDetail = { code: string; message: string; [fact: string]: string | number }

type OriginErrorOptions = { headers?: Record<string, string>; cause?: unknown }

/**
 * The one error class of the origins. `code` is stable, `status` follows from it, and `detail` is what the
 * client reads: a sentence, a code with facts, or the list of faults for `invalid`. Never put a secret into `detail`.
 */
export class OriginError extends Error {
  readonly code: OriginErrorCode
  readonly status: number
  readonly detail: string | Fault[] | CodedDetail
  readonly headers: Record<string, string>
  readonly retryable: boolean

  constructor(code: OriginErrorCode, detail: string | Fault[] | CodedDetail, options: OriginErrorOptions = {}) {
    super(toMessage(detail), { cause: options.cause })
    this.name = 'OriginError'
    this.code = code
    this.status = statusOf[code]
    this.detail = detail
    this.headers = options.headers ?? {}
    this.retryable = this.status === 503
  }
}

function toMessage(detail: OriginError['detail']): string {
  if (typeof detail === 'string') return detail
  return Array.isArray(detail) ? `${detail.length} faults` : detail.code
}
