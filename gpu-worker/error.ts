/** Every way in which the worker refuses, and the status and OpenAI `type` that say so. */
const facts = {
  invalid_request: { status: 400, type: 'invalid_request_error' },
  context_length_exceeded: { status: 400, type: 'invalid_request_error' },
  schema_too_costly: { status: 400, type: 'invalid_request_error' },
  unauthenticated: { status: 401, type: 'authentication_error' },
  not_found: { status: 404, type: 'invalid_request_error' },
  model_not_found: { status: 404, type: 'invalid_request_error' },
  method_not_allowed: { status: 405, type: 'invalid_request_error' },
  body_timeout: { status: 408, type: 'invalid_request_error' },
  body_too_large: { status: 413, type: 'invalid_request_error' },
  unsupported_media_type: { status: 415, type: 'invalid_request_error' },
  queue_full: { status: 429, type: 'rate_limit_error' },
  insufficient_quota: { status: 429, type: 'insufficient_quota' },
  internal: { status: 500, type: 'server_error' },
  upstream_invalid: { status: 502, type: 'server_error' },
  upstream_failed: { status: 502, type: 'server_error' },
  recommender_unavailable: { status: 503, type: 'server_error' },
  upstream_unavailable: { status: 503, type: 'server_error' },
  overloaded: { status: 503, type: 'server_error' },
  deadline_exceeded_estimate: { status: 503, type: 'server_error' },
  deadline_exceeded: { status: 504, type: 'server_error' },
} as const

export type WorkerErrorCode = keyof typeof facts

type Options = { param?: string; retryAfterSeconds?: number; cause?: unknown }

/** A refusal. `message` is what the client reads: never a secret, never what a provider said in confidence. */
export class WorkerError extends Error {
  readonly code: WorkerErrorCode
  readonly status: number
  readonly param: string | undefined
  readonly retryAfterSeconds: number | undefined

  constructor(code: WorkerErrorCode, message: string, { param, retryAfterSeconds, cause }: Options = {}) {
    super(message, { cause })
    this.name = 'WorkerError'
    this.code = code
    this.status = facts[code].status
    this.param = param
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** The refusal of a worker that was asked over the wire; of one that has other words, that it failed. */
export function toWorkerError(status: number, body: unknown, retryAfter: string | null): WorkerError {
  const { code, message } = (body as { error?: { code?: unknown; message?: unknown } } | null)?.error ?? {}
  const retryAfterSeconds = retryAfter !== null && /^\d{1,5}$/.test(retryAfter) ? Number(retryAfter) : undefined
  if (isCode(code) && typeof message === 'string')
    return new WorkerError(code, message, { ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
  const isTheirs = status >= 400 && status < 500
  return new WorkerError(isTheirs ? 'upstream_invalid' : 'upstream_failed', `Its server answered ${status}`)
}

const isCode = (code: unknown): code is WorkerErrorCode => typeof code === 'string' && Object.hasOwn(facts, code)

/** The body of a refusal, as OpenAI's clients read it. */
export function toErrorBody({ code, message, param = undefined }: WorkerError): string {
  return JSON.stringify({ error: { message, type: facts[code].type, param: param ?? null, code } })
}
