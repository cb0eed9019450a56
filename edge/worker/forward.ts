import { toClientHeaders } from '../actions/headers.ts'
import type { CompiledUpstream } from '../compile.ts'
import { edgeField, signEdge } from '../edge-signature.ts'
import type { Refusal } from '../error.ts'
import type { Exchange } from '../exchange.ts'
import type { ProxyPlan } from '../plan.ts'
import { toBodyRefusal } from '../policies/body-size.ts'
import type { Outcome } from '../runtime.ts'
import { isNullBody, toHeaders, toRefusal, toResponseInit } from './answer.ts'
import type { Finish } from './answer.ts'
import type { PlatformRequestInit, WorkerIo } from './platform.ts'
import { createPipe, pump, watchSilence } from './pump.ts'

/** What is asked of whom. */
export interface Subrequest {
  url: string
  /** Flat. */
  headers: string[]
  /** Named in the log. */
  server: string
}

/** The request as the row's upstream gets it. */
export function toUpstream(plan: ProxyPlan): Subrequest {
  const server = takeTurn(plan.upstream)
  return { url: `${server.origin}${plan.target}`, headers: plan.headers, server: server.origin }
}

/**
 * The request as it came, to the VM behind the edge, where the same table decides once more: its path and fields are the
 * client's, not the row's. What the edge says of the client is signed (`edge-signature.ts`) over what is sent.
 */
export async function toZone(exchange: Exchange, now: number): Promise<Subrequest> {
  const url = new URL(`${exchange.scheme}://${exchange.authority}${exchange.path}${exchange.query}`)
  const target = url.href.slice(url.origin.length)
  const headers = [...exchange.headers]
  const secret = exchange.site?.site.trustedEdges?.secret
  if (secret !== undefined) {
    const sent = { ...exchange, authority: url.host, path: target, query: '' }
    headers.push(edgeField, await signEdge(secret, sent, now))
  }
  return { url: url.href, headers, server: url.origin }
}

/** What bounds one subrequest. */
type Bounds = Pick<ProxyPlan, 'readTimeoutMs' | 'bodyBytesMax' | 'websocket'>

/**
 * Passes a request on and the answer back, as it comes. Whoever leaves takes the other side along; an answer that breaks
 * off is broken off for the client too.
 */
export async function forward(
  plan: ProxyPlan,
  { url, headers, server }: Subrequest,
  { request, context }: WorkerIo,
  finish: Finish,
  bounds: Bounds = plan,
): Promise<Response> {
  const { exchange } = plan
  if (request.body && (exchange.method === 'GET' || exchange.method === 'HEAD'))
    return toRefusal(plan, noBody, finish, { server })
  const sentAt = performance.now()
  const controller = new AbortController()
  let fault: Fault | undefined
  const stopFor = (why: Fault) => (): void => {
    fault ??= why
    controller.abort(new Error(why))
  }
  const watch = watchSilence(bounds.readTimeoutMs, stopFor('silent'))
  request.signal.addEventListener('abort', stopFor('client_gone'))
  const toOutcome = (rest: Omit<Outcome, 'server'>): Outcome => ({ ...rest, server })

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
    const onChunk = (): void => watch.pause()
    const { end, bytes, error } = await pump(source, sink, { beforeRead: watch.heard, onChunk })
    watch.stop()
    if (end !== 'done') controller.abort(error)
    finish(plan, toOutcome({ ...head, bytes, ...toEnd(end, fault) }))
  }

  try {
    const init: PlatformRequestInit = {
      method: exchange.method,
      headers: toSentHeaders(headers, bounds.websocket),
      body: request.body && sendBody(request.body),
      redirect: 'manual',
      signal: controller.signal,
      encodeResponseBody: 'manual',
    }
    const answer: Response & { webSocket?: unknown } = await fetch(url, init)
    const head = { status: answer.status, upstreamMs: performance.now() - sentAt }
    const edited = toClientHeaders(exchange, plan.response, answer.status, toReceived(answer.headers))
    const responseInit = toResponseInit(answer.status, edited)
    if (answer.webSocket) {
      watch.stop()
      finish(plan, toOutcome({ ...head, bytes: 0, end: 'done' }))
      return new Response(null, { ...responseInit, webSocket: answer.webSocket } as ResponseInit)
    }
    if (!answer.body || isNullBody(answer.status)) {
      watch.stop()
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
    const refusal = fault ? refusals[fault](bounds) : unreachable
    return toRefusal(plan, refusal, finish, { server, ...(!fault && { cause: toCause(error) }) })
  }
}

type Fault = 'silent' | 'too_large' | 'client_gone'

/** What fetch cannot do is said, not left away. */
const noBody: Refusal = {
  code: 'not_implemented',
  detail: 'a body cannot be passed on with GET or HEAD here',
}

const unreachable: Refusal = {
  code: 'upstream_unreachable',
  detail: 'the upstream cannot be reached',
  limit: { name: 'attempts', value: 1 },
}

const refusals: Record<Exclude<Fault, 'client_gone'>, (bounds: Bounds) => Refusal> = {
  silent: ({ readTimeoutMs }) => ({
    code: 'upstream_timeout',
    detail: 'the upstream gave no answer in time',
    limit: { name: 'readTimeoutMs', value: readTimeoutMs },
  }),
  too_large: ({ bodyBytesMax }) => toBodyRefusal(bodyBytesMax),
}

function toEnd(end: 'done' | 'read_failed' | 'write_failed', fault: Fault | undefined): Pick<Outcome, 'end'> {
  if (end === 'done') return { end: 'done' }
  if (end === 'write_failed' || fault === 'client_gone') return { end: 'client_gone' }
  return { end: fault === 'silent' ? 'stalled' : 'upstream_cut' }
}

/** An error's kind, not its text: that may repeat what was sent. */
const toCause = (error: unknown): string => (error instanceof Error ? error.name : 'unknown')

const turns = new WeakMap<CompiledUpstream, number>()

function takeTurn(upstream: CompiledUpstream): URL {
  const turn = turns.get(upstream) ?? 0
  turns.set(upstream, (turn + 1) % upstream.servers.length)
  return upstream.servers[turn] as URL
}

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
