import type { Refusal } from '../error.ts'
import { limits } from '../limits.ts'
import type { ProxyPlan } from '../plan.ts'
import type { Failure } from '../upstreams/retry.ts'

/** What an upstream's failure is to the client: 504 when time ran out, else 502, with the bound that was reached. */
export function toUpstreamRefusal(error: Error, plan: ProxyPlan, attempts: number): Refusal {
  const code = codeOf(error)
  if (code === 'connect_timeout')
    return timeout('the upstream took no connection in time', 'connectTimeoutMs', plan.upstream.connectTimeoutMs)
  if (code === 'silent' || code === 'stalled')
    return timeout('the upstream gave no answer in time', 'readTimeoutMs', plan.readTimeoutMs)
  if (code === 'head_too_large')
    return malformed(
      "the head of the upstream's answer is too large",
      'upstreamHeaderBytesMax',
      limits.upstreamHeaderBytesMax,
    )
  if (error.message === 'too many informational answers')
    return malformed('the upstream sent too many informational answers', 'informationalMax', limits.informationalMax)
  const limit = { name: 'attempts', value: attempts }
  if (isConnectionLoss(code)) return { code: 'upstream_unreachable', detail: 'the upstream cannot be reached', limit }
  return { code: 'upstream_malformed', detail: "the upstream's answer is not valid HTTP", limit }
}

/** What the error says of the server, when no byte of its answer has come. */
export function toFailure(error: Error): Failure {
  const code = codeOf(error)
  if (code === 'connect_timeout' || code === 'ETIMEDOUT') return 'connect_timeout'
  if (code === 'silent' || code === 'stalled') return 'silent'
  if (code === 'closed' || code === 'ECONNRESET' || code === 'EPIPE') return 'lost'
  return isConnectionLoss(code) ? 'unconnected' : 'malformed'
}

export const toDeadlineRefusal = (timeoutMs: number): Refusal =>
  timeout('the answer did not come in time', 'timeoutMs', timeoutMs)

export const toBusyRefusal = (inFlightMax: number): Refusal => ({
  code: 'upstream_busy',
  detail: 'too many requests are with the upstream',
  limit: { name: 'inFlightMax', value: inFlightMax },
  headers: ['Retry-After', '1'],
})

const isConnectionLoss = (code: string): boolean => /^E[A-Z_]+$/.test(code) || code === 'closed'

const codeOf = (error: Error): string => ('code' in error && typeof error.code === 'string' ? error.code : '')

const timeout = (detail: string, name: string, value: number): Refusal => ({
  code: 'upstream_timeout',
  detail,
  limit: { name, value },
})
const malformed = (detail: string, name: string, value: number): Refusal => ({
  code: 'upstream_malformed',
  detail,
  limit: { name, value },
})
