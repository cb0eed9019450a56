import { toServerTiming } from '../actions/server-timing.ts'
import type { Exchange } from '../exchange.ts'
import { limits } from '../limits.ts'
import type { AnswerPlan, Plan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import type { Finish, NodeIo, NodeRequest } from './exchange-io.ts'
import { lingerOnClose } from './linger.ts'

/** Sends an answer of the gateway itself. */
export function sendAnswer(
  plan: AnswerPlan,
  io: NodeIo,
  finish: Finish,
  outcome: Partial<Outcome> = {},
  account: Plan = plan,
): void {
  const { request, response } = io
  const body = Buffer.from(plan.body)
  const sent = plan.exchange.method === 'HEAD' ? 0 : body.length
  response.once('close', () => {
    const end = response.writableFinished ? 'done' : 'client_gone'
    finish(account, { status: plan.status, bytes: sent, end, ...outcome })
  })
  const headers = hasNoBody(plan.status) ? [...plan.headers] : [...plan.headers, 'Content-Length', String(body.length)]
  headers.push(...toServerTiming(plan.exchange, performance.now()))
  if (closes(io, plan)) headers.push('Connection', 'close')
  else request.resume()
  response.writeHead(plan.status, headers)
  response.end(sent > 0 ? body : undefined)
}

const hasNoBody = (status: number): boolean => status === 204 || status === 304

/** Behind faulty framing nobody knows where the next request begins; and a long body is not read to be thrown away. */
function closes({ request }: NodeIo, { refusal, exchange }: AnswerPlan): boolean {
  if (!isUnread(request, exchange) && !(refusal && faultyFraming.has(refusal.code))) return false
  lingerOnClose(request)
  return true
}

const faultyFraming: ReadonlySet<string> = new Set(['malformed_request', 'http_version', 'not_implemented'])

/** The client has a body to send that nobody will read, and it is too long to be read only to be thrown away. */
export function isUnread(request: NodeRequest, { hasBody, contentLength, expectsContinue }: Exchange): boolean {
  if (!hasBody || request.complete) return false
  return contentLength === null || contentLength > limits.drainBytesMax || expectsContinue
}
