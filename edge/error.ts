import type { ErrorShape } from './table.ts'

/**
 * Every error the gateway answers by itself: its status, a title for people, whose fault it is, and whether the same
 * request may be sent again. Codes are stable: clients and alerts may depend on them.
 */
const errors = {
  malformed_request: { status: 400, title: 'Malformed request', source: 'client', retryable: false },
  ambiguous_path: { status: 400, title: 'Ambiguous path', source: 'client', retryable: false },
  unauthorized: { status: 401, title: 'Unauthorized', source: 'client', retryable: false },
  forbidden: { status: 403, title: 'Forbidden', source: 'client', retryable: false },
  cors_refused: { status: 403, title: 'Refused to other origins', source: 'client', retryable: false },
  edge_required: { status: 403, title: 'Only through the edge', source: 'client', retryable: false },
  not_found: { status: 404, title: 'Not found', source: 'client', retryable: false },
  method_not_allowed: { status: 405, title: 'Method not allowed', source: 'client', retryable: false },
  request_timeout: { status: 408, title: 'Request timeout', source: 'client', retryable: true },
  body_too_large: { status: 413, title: 'Body too large', source: 'client', retryable: false },
  target_too_long: { status: 414, title: 'Target too long', source: 'client', retryable: false },
  range_not_satisfiable: { status: 416, title: 'Range not satisfiable', source: 'client', retryable: false },
  expectation_failed: { status: 417, title: 'Expectation failed', source: 'client', retryable: false },
  unknown_host: { status: 421, title: 'Unknown host', source: 'client', retryable: false },
  rate_limited: { status: 429, title: 'Too many requests', source: 'client', retryable: true },
  header_too_large: { status: 431, title: 'Header too large', source: 'client', retryable: false },
  internal: { status: 500, title: 'Internal error', source: 'gateway', retryable: false },
  not_implemented: { status: 501, title: 'Not implemented', source: 'client', retryable: false },
  upstream_unreachable: { status: 502, title: 'Upstream unreachable', source: 'upstream', retryable: true },
  upstream_malformed: { status: 502, title: 'Malformed upstream answer', source: 'upstream', retryable: false },
  keys_unavailable: { status: 503, title: 'Keys unavailable', source: 'gateway', retryable: true },
  limiter_unavailable: { status: 503, title: 'Limiter unavailable', source: 'gateway', retryable: true },
  upstream_down: { status: 503, title: 'Upstream down', source: 'upstream', retryable: true },
  upstream_busy: { status: 503, title: 'Upstream busy', source: 'gateway', retryable: true },
  upstream_timeout: { status: 504, title: 'Upstream timeout', source: 'upstream', retryable: true },
  not_cached: { status: 504, title: 'Not in the cache', source: 'client', retryable: false },
  http_version: { status: 505, title: 'HTTP version not supported', source: 'client', retryable: false },
} as const satisfies Record<string, ErrorFacts>

interface ErrorFacts {
  status: number
  title: string
  source: 'client' | 'upstream' | 'gateway'
  retryable: boolean
}

export type ErrorCode = keyof typeof errors

/** What the gateway will not or could not do: a value, not an exception. `detail` is for people and names no secret. */
export interface Refusal {
  code: ErrorCode
  detail: string
  /** The bound that was reached, by its name in the table or in `limits.ts`. */
  limit?: { name: string; value: number }
  /** Further fields of the answer, flat: name, value, … */
  headers?: string[]
}

export const errorFacts = (code: ErrorCode): ErrorFacts => errors[code]

/** The body of an error answer and its type, in the shape that the site's clients parse. */
export function toErrorBody(
  shape: ErrorShape,
  refusal: Refusal,
  context: { requestId: string; route: string | undefined },
): { type: string; body: string } {
  const { status, title } = errors[refusal.code]
  const common = {
    code: refusal.code,
    requestId: context.requestId,
    ...(context.route !== undefined && { route: context.route }),
    ...(refusal.limit && { limit: refusal.limit.name, value: refusal.limit.value }),
  }
  return shapes[shape](status, title, refusal.detail, common)
}

const json = 'application/json; charset=utf-8'

const shapes: Record<ErrorShape, (status: number, title: string, detail: string, common: object) => Body> = {
  // RFC 9457 §3
  problem: (status, title, detail, common) => ({
    type: 'application/problem+json',
    body: JSON.stringify({ type: 'about:blank', title, status, detail, ...common }),
  }),
  nest: (statusCode, error, message, common) => ({
    type: json,
    body: JSON.stringify({ message, error, statusCode, ...common }),
  }),
  fastapi: (_status, _title, detail, common) => ({ type: json, body: JSON.stringify({ detail, ...common }) }),
  drf: (_status, _title, detail, common) => ({
    type: json,
    body: JSON.stringify({ detail, error: detail, ...common }),
  }),
}

interface Body {
  type: string
  body: string
}
