/** Every way an origin refuses a request, and the status that says so. */
const statusOf = {
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  cursor_unknown: 410,
  body_too_large: 413,
  unsupported_media_type: 415,
  invalid: 422,
  internal: 500,
  busy: 503,
  database_unavailable: 503,
  config_invalid: 500,
  directory_in_use: 500,
  migration_changed: 500,
} as const

export type OriginErrorCode = keyof typeof statusOf

/** One fault of a request, in the shape FastAPI's clients parse. `loc` starts with body, query, path or header. */
export type Fault = { loc: (string | number)[]; msg: string; type: string; input?: string | number | boolean | null }

type OriginErrorOptions = { headers?: Record<string, string>; cause?: unknown }

/**
 * The one error class of the origins. `code` is stable, `status` follows from it, and `detail` is what the
 * client reads: a sentence, or the list of faults for `invalid`. Never put a secret into `detail`.
 */
export class OriginError extends Error {
  readonly code: OriginErrorCode
  readonly status: number
  readonly detail: string | Fault[]
  readonly headers: Record<string, string>
  readonly retryable: boolean

  constructor(code: OriginErrorCode, detail: string | Fault[], options: OriginErrorOptions = {}) {
    super(typeof detail === 'string' ? detail : `${detail.length} faults`, { cause: options.cause })
    this.name = 'OriginError'
    this.code = code
    this.status = statusOf[code]
    this.detail = detail
    this.headers = options.headers ?? {}
    this.retryable = this.status === 503
  }
}
