import { toClientHeaders } from '../actions/headers.ts'
import { toServerTiming } from '../actions/server-timing.ts'
import type { Refusal } from '../error.ts'
import { deadlineField } from '../identity.ts'
import type { ProxyPlan } from '../plan.ts'
import { toBodyRefusal } from '../policies/body-size.ts'
import type { Outcome } from '../runtime.ts'
import { isNullBody, toHeaders, toRefusal, toResponseInit } from './answer.ts'
import type { Finish } from './answer.ts'
import type { PlatformRequestInit, WorkerIo } from './platform.ts'
import { createPipe, pump, watchSilence } from './pump.ts'
import type { Target } from './target.ts'

/** What bounds one subrequest. */
type Bounds = Pick<ProxyPlan, 'readTimeoutMs' | 'bodyBytesMax' | 'websocket' | 'timeoutMs' | 'retry'>

/** Sees an answer come, to keep it or to answer the client instead. */
export interface Tap {
  /** The client's answer instead of this one, of whose body no more is read then but by the tap. */
  head(answer: Response, received: string[]): Response | Promise<Response> | undefined
  data(chunk: Uint8Array): void
  /** All of it was there. */
  end(): void
  /** There is none; what the client gets instead of the refusal. */
  fail(refusal: Refusal): Response | undefined
}

/**
 * Passes a request on and the answer back, as it comes. Whoever leaves takes the other side along; an answer that breaks
 * off is broken off for the client too.
 */
export async function forward(
  plan: ProxyPlan,
  target: Target,
  { request, context }: WorkerIo,
  account: Finish,
  { bounds = plan, tap }: { bounds?: Bounds; tap?: Tap } = {},
): Promise<Response> {
  const { exchange } = plan
  const finish: Finish = (finished, outcome) => {
    clearTimeout(deadline)
    target.end()
    account(finished, outcome)
  }
  const { timeoutMs } = bounds
  const leftMs = (): number => Math.ceil(exchange.startedAt + (timeoutMs ?? 0) - performance.now())
  let deadline: ReturnType<typeof setTimeout> | undefined
  if (request.body && (exchange.method === 'GET' || exchange.method === 'HEAD'))
    return toRefusal(plan, noBody, finish, { server: target.current().server })
  let sentAt = performance.now()
  const controller = new AbortController()
  let fault: Fault | undefined
  const stopFor = (why: Fault) => (): void => {
    fault ??= why
    controller.abort(new Error(why))
  }
  const watch = watchSilence(bounds.readTimeoutMs, stopFor('silent'))
  request.signal.addEventListener('abort', stopFor('client_gone'))
  if (timeoutMs !== undefined) deadline = setTimeout(stopFor('late'), Math.max(0, leftMs()))
  const toServer = (): Pick<Outcome, 'server' | 'attempts'> & { server: string } => ({
    server: target.current().server,
    ...(target.attempts() > 1 && { attempts: target.attempts() }),
  })
  const toOutcome = (rest: Omit<Outcome, 'server'>): Outcome => ({ ...rest, ...toServer() })

  function sendBody(source: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
    const pipe = createPipe(exchange.contentLength)
    const onChunk = (total: number): void => {
      watch.heard()
      if (total <= bounds.bodyBytesMax) return
      stopFor('too_large')()
      throw new Error('body too large')
    }
    void pump(source, pipe.writable, { onChunk }).then(({ end }) => end === 'read_failed' && stopFor('client_gone')())
    return pipe.readable
  }

  /** The answer's body on its way; the account ends with it. */
  async function passOn(
    source: ReadableStream<Uint8Array>,
    sink: WritableStream<Uint8Array>,
    head: Omit<Outcome, 'bytes' | 'end'>,
  ): Promise<void> {
    const onChunk = (_total: number, chunk: Uint8Array | undefined): void => {
      watch.pause()
      if (chunk) tap?.data(chunk)
    }
    const { end, bytes, error } = await pump(source, sink, { beforeRead: watch.heard, onChunk })
    watch.stop()
    if (end === 'done') tap?.end()
    else controller.abort(error)
    finish(plan, toOutcome({ ...head, bytes, ...toEnd(end, fault) }))
  }

  /** The first answer that is wanted; of servers that fail, or answer with a status the row repeats, another is asked. */
  async function ask(): Promise<Response & { webSocket?: unknown }> {
    for (;;) {
      const { url, headers } = target.current()
      const left = timeoutMs === undefined ? [] : [deadlineField, String(Math.max(1, leftMs()))]
      const init: PlatformRequestInit = {
        method: exchange.method,
        headers: toSentHeaders([...headers, ...left], bounds.websocket),
        body: request.body && sendBody(request.body),
        redirect: 'manual',
        signal: controller.signal,
        encodeResponseBody: 'manual',
      }
      sentAt = performance.now()
      const answer = await fetch(url, init).catch((error: unknown) => {
        if (fault || !target.failed('lost', toCause(error))) throw error
      })
      if (!answer) continue
      if (answer.status < 502 || answer.status > 504) {
        target.answered(performance.now() - sentAt)
        return answer
      }
      if (!bounds.retry.statuses.includes(answer.status) || !target.failed('status', `status ${answer.status}`))
        return answer
      await answer.body?.cancel()
    }
  }

  try {
    const answer = await ask()
    exchange.answerHeaders.push(...toServerTiming(exchange, performance.now(), performance.now() - sentAt))
    const head = { status: answer.status, upstreamMs: performance.now() - sentAt }
    const received = toReceived(answer.headers)
    const taken = tap?.head(answer, received)
    if (taken) {
      watch.stop()
      clearTimeout(deadline)
      target.end()
      if (!answer.bodyUsed) await answer.body?.cancel()
      return await taken
    }
    const edited = toClientHeaders(exchange, plan.response, answer.status, received)
    const responseInit = toResponseInit(answer.status, edited)
    if (answer.webSocket) {
      watch.stop()
      finish(plan, toOutcome({ ...head, bytes: 0, end: 'done' }))
      return new Response(null, { ...responseInit, webSocket: answer.webSocket } as ResponseInit)
    }
    if (!answer.body || isNullBody(answer.status)) {
      watch.stop()
      tap?.end()
      finish(plan, toOutcome({ ...head, bytes: 0, end: 'done' }))
      return new Response(null, responseInit)
    }
    const pipe = createPipe(readLength(answer.headers))
    context.waitUntil(passOn(answer.body, pipe.writable, head))
    return new Response(pipe.readable, responseInit)
  } catch (error) {
    watch.stop()
    controller.abort(error)
    if (fault === 'client_gone') {
      finish(plan, toOutcome({ status: 0, bytes: 0, end: 'client_gone' }))
      return new Response(null, { status: 499 })
    }
    if (fault === 'silent' || fault === 'late') target.failed('silent', fault)
    const refusal = fault ? refusals[fault](bounds) : toUnreachable(target.attempts())
    const instead = tap?.fail(refusal)
    if (instead) {
      clearTimeout(deadline)
      target.end()
      return instead
    }
    return toRefusal(plan, refusal, finish, { ...toServer(), ...(!fault && { cause: toCause(error) }) })
  }
}

type Fault = 'silent' | 'late' | 'too_large' | 'client_gone'

/** What fetch cannot do is said, not left away. */
const noBody: Refusal = {
  code: 'not_implemented',
  detail: 'a body cannot be passed on with GET or HEAD here',
}

const toUnreachable = (attempts: number): Refusal => ({
  code: 'upstream_unreachable',
  detail: 'the upstream cannot be reached',
  limit: { name: 'attempts', value: attempts },
})

const refusals: Record<Exclude<Fault, 'client_gone'>, (bounds: Bounds) => Refusal> = {
  silent: ({ readTimeoutMs }) => ({
    code: 'upstream_timeout',
    detail: 'the upstream gave no answer in time',
    limit: { name: 'readTimeoutMs', value: readTimeoutMs },
  }),
  late: ({ timeoutMs }) => ({
    code: 'upstream_timeout',
    detail: 'the answer did not come in time',
    limit: { name: 'timeoutMs', value: timeoutMs ?? 0 },
  }),
  too_large: ({ bodyBytesMax }) => toBodyRefusal(bodyBytesMax),
}

function toEnd(end: 'done' | 'read_failed' | 'write_failed', fault: Fault | undefined): Pick<Outcome, 'end'> {
  if (end === 'done') return { end: 'done' }
  if (end === 'write_failed' || fault === 'client_gone') return { end: 'client_gone' }
  if (fault === 'late') return { end: 'timed_out' }
  return { end: fault === 'silent' ? 'stalled' : 'upstream_cut' }
}

/** An error's kind, not its text: that may repeat what was sent. */
const toCause = (error: unknown): string => (error instanceof Error ? error.name : 'unknown')

/** Host is the URL's; of a WebSocket's handshake the platform makes its own half. */
function toSentHeaders(flat: string[], websocket: boolean): Headers {
  const headers = toHeaders(flat)
  headers.delete('host')
  if (websocket) {
    headers.delete('sec-websocket-key')
    headers.delete('sec-websocket-version')
    headers.set('Upgrade', 'websocket')
  }
  return headers
}

/** Flat. Set-Cookie is one entry a line; the handshake's answer is the platform's. */
function toReceived(headers: Headers): string[] {
  const flat: string[] = []
  for (const [name, value] of headers) if (name !== 'sec-websocket-accept') flat.push(name, value)
  return flat
}

function readLength(headers: Headers): number | null {
  const length = headers.get('content-length')
  return length !== null && /^\d{1,15}$/.test(length) ? Number(length) : null
}
