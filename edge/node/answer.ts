import { limits } from '../limits.ts'
import type { AnswerPlan, Plan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import type { Finish, NodeIo } from './exchange-io.ts'

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
  const headers = hasNoBody(plan.status) ? plan.headers : [...plan.headers, 'Content-Length', String(body.length)]
  if (isUnread(io, plan)) return sendThenDrain(plan, io, headers, sent > 0 ? body : undefined)
  response.writeHead(plan.status, headers)
  response.end(sent > 0 ? body : undefined)
  request.resume()
}

const hasNoBody = (status: number): boolean => status === 204 || status === 304

/** The client has a body to send that nobody will read, and it is too long to be read only to be thrown away. */
function isUnread({ request }: NodeIo, { exchange }: AnswerPlan): boolean {
  if (!exchange.hasBody || request.complete) return false
  return exchange.contentLength === null || exchange.contentLength > limits.drainBytesMax || exchange.expectsContinue
}

/**
 * Answers before a body was read, then closes the connection. Closing at once would reset it while the client still
 * sends, and the client could lose the answer: so what comes is thrown away, up to a bound and for at most a second.
 */
function sendThenDrain(
  plan: AnswerPlan,
  { request, response }: NodeIo,
  headers: string[],
  body: Buffer | undefined,
): void {
  response.writeHead(plan.status, [...headers, 'Connection', 'close'])
  if (plan.exchange.expectsContinue) return void response.end(body)
  if (body) response.write(body)
  else response.flushHeaders()
  let drained = 0
  const done = (): void => {
    clearTimeout(timer)
    response.end()
  }
  const timer = setTimeout(done, 1_000)
  request.on('data', (chunk: Buffer) => {
    drained += chunk.length
    if (drained > lingerBytesMax) done()
  })
  request.once('end', done)
  request.once('error', done)
}

const lingerBytesMax = 16 * limits.drainBytesMax
