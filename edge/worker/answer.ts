import { toServerTiming } from '../actions/server-timing.ts'
import { refuse } from '../gateway.ts'
import type { Refusal } from '../error.ts'
import type { AnswerPlan, Plan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import type { PlatformResponseInit } from './platform.ts'

/** Ends a request's account: called exactly once for each. */
export type Finish = (plan: Plan, outcome: Outcome) => void

/** An answer of the gateway itself. */
export function toAnswer(
  plan: AnswerPlan,
  finish: Finish,
  outcome: Partial<Outcome> = {},
  account: Plan = plan,
): Response {
  const isBodiless = isNullBody(plan.status) || plan.exchange.method === 'HEAD'
  const bytes = new TextEncoder().encode(plan.body)
  finish(account, { status: plan.status, bytes: isBodiless ? 0 : bytes.length, end: 'done', ...outcome })
  const headers = toHeaders([...plan.headers, ...toServerTiming(plan.exchange, performance.now())])
  if (plan.exchange.method === 'HEAD' && !isNullBody(plan.status)) headers.set('Content-Length', String(bytes.length))
  return new Response(isBodiless ? null : bytes, { status: plan.status, headers })
}

/** What could not be carried out becomes an answer in the shape of the site. */
export function toRefusal(plan: Plan, refusal: Refusal, finish: Finish, outcome: Partial<Outcome> = {}): Response {
  return toAnswer(refuse(plan.exchange, refusal), finish, { refusal, ...outcome }, plan)
}

/** An answer whose body is encoded already stays as it is. */
export function toResponseInit(status: number, flat: string[]): PlatformResponseInit {
  const headers = toHeaders(flat)
  return { status, headers, ...(headers.has('content-encoding') && { encodeBody: 'manual' as const }) }
}

export function toHeaders(flat: string[]): Headers {
  const headers = new Headers()
  for (let i = 0; i < flat.length; i += 2) headers.append(flat[i] ?? '', flat[i + 1] ?? '')
  return headers
}

/** Fetch, "null body status". */
export const isNullBody = (status: number): boolean =>
  status === 101 || status === 204 || status === 205 || status === 304
