import { Transform } from 'node:stream'
import type { Duplex, Readable, TransformCallback } from 'node:stream'
import type { Dispatcher } from 'undici'
import { toClientHeaders } from '../actions/headers.ts'
import type { Refusal } from '../error.ts'
import { fieldValue } from '../exchange.ts'
import { refuse } from '../gateway.ts'
import { limits } from '../limits.ts'
import type { ProxyPlan } from '../plan.ts'
import { toBodyRefusal } from '../policies/body-size.ts'
import type { Outcome } from '../runtime.ts'
import { sendAnswer } from './answer.ts'
import type { Finish, NodeIo } from './exchange-io.ts'
import { lingerOnClose } from './linger.ts'
import type { Lease, Pool } from './pool.ts'
import { isReusedConnectionLoss, toUpstreamRefusal } from './upstream-error.ts'

/**
 * Passes a request on and the answer back, as it comes: no body is held, back-pressure goes both ways, and whoever
 * leaves takes the other side along. An answer that breaks off is broken off for the client too.
 */
export function forward(plan: ProxyPlan, io: NodeIo, pool: Pool, finish: Finish, join?: Join): void {
  new Forwarding(plan, io, pool, finish, join).start()
}

/** Takes over when the upstream has agreed to a WebSocket; says whether the handshake was good. */
export type Join = (socket: Duplex, received: string[], server: string) => boolean

/** One request under way. A class, because undici calls back on one object and this is the hottest path there is. */
class Forwarding implements Dispatcher.DispatchHandler {
  readonly #plan: ProxyPlan
  readonly #io: NodeIo
  readonly #pool: Pool
  readonly #finish: Finish
  readonly #join: Join | undefined
  #lease: Lease | undefined
  #released = false
  #controller: Dispatcher.DispatchController | undefined
  #body: CountedBody | undefined
  /** The last chunk, held until the tick ends, so that a small answer is written at once with its head. */
  #held: Buffer | undefined
  #flushing = false
  /** Whether the head is on its way to the client. */
  #written = false
  #status = 0
  #informational = 0
  #attempts = 0
  #bytes = 0
  #sentAt = 0
  #upstreamMs: number | undefined
  #end: Outcome['end'] = 'done'
  #cause: string | undefined
  #settled = false

  constructor(plan: ProxyPlan, io: NodeIo, pool: Pool, finish: Finish, join: Join | undefined) {
    this.#plan = plan
    this.#io = io
    this.#pool = pool
    this.#finish = finish
    this.#join = join
  }

  start(fresh = this.#join !== undefined): void {
    const { exchange, upstream, target, headers, readTimeoutMs } = this.#plan
    const lease = this.#pool.take(upstream, fresh)
    if (!lease) return this.#refuse(busy)
    if (!this.#settled && this.#attempts === 0) this.#io.response.on('close', () => this.#onClose())
    this.#lease = lease
    this.#released = false
    this.#attempts++
    this.#sentAt = performance.now()
    const hasBody = exchange.hasBody && this.#readBody()
    lease.client.dispatch(
      {
        path: target,
        method: exchange.method as Dispatcher.HttpMethod,
        headers:
          hasBody && exchange.contentLength !== null
            ? [...headers, 'content-length', String(exchange.contentLength)]
            : headers,
        body: this.#body ?? null,
        // One request at a time on each connection: none waits for this one's answer to begin.
        blocking: false,
        headersTimeout: readTimeoutMs,
        bodyTimeout: readTimeoutMs,
        upgrade: this.#join && 'websocket',
      },
      this,
    )
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#settled) controller.abort(clientGone)
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return this.#onInformational(controller)
    this.#status = status
    this.#upstreamMs = performance.now() - this.#sentAt
    const { exchange, response: edits } = this.#plan
    const received = toText(controller.rawHeaders)
    if ((status === 204 || status === 205) && hasContent(received)) return controller.abort(unexpectedContent)
    // An answer before the whole body was read: what still comes would have to be read only to be thrown away.
    if (exchange.hasBody && !this.#io.request.complete) {
      this.#io.response.shouldKeepAlive = false
      lingerOnClose(this.#io.request)
    }
    this.#io.response.writeHead(status, toClientHeaders(exchange, edits, status, received))
    this.#flushSoon()
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length
    const held = this.#held
    this.#held = chunk
    if (held) this.#write(held, controller)
    this.#flushSoon()
  }

  onResponseEnd(): void {
    // An answer without a length ends with its connection: undici takes a reset for such an end too.
    if (this.#lease?.failed()) {
      this.#drop()
      this.#cause = 'ECONNRESET'
      return this.#cut(connectionReset)
    }
    this.#release()
    const held = this.#held
    this.#held = undefined
    // A text leaves in one write with the head, where bytes make two; latin1 keeps every byte.
    if (held && !this.#written && held.length <= textBytesMax) this.#io.response.end(held.toString('latin1'), 'latin1')
    else this.#io.response.end(held)
  }

  onRequestUpgrade(controller: Dispatcher.DispatchController, status: number, _headers: unknown, socket: Duplex): void {
    this.#drop()
    if (this.#settled) return void socket.destroy()
    if (status === 101 && this.#join?.(socket, toText(controller.rawHeaders), this.#lease?.server ?? '')) {
      this.#settled = true
      return
    }
    socket.destroy()
    this.#refuse(badHandshake)
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#drop()
    if (this.#settled) return
    const refusal = this.#io.malformed ?? (this.#body?.tooLarge ? toBodyRefusal(this.#plan.bodyBytesMax) : undefined)
    if (refusal) return this.#io.response.headersSent ? this.#cut(error) : this.#refuse(refusal)
    if (this.#mayTryAgain(error)) return this.start(true)
    this.#cause = toCause(error)
    if (this.#io.response.headersSent) return this.#cut(error)
    this.#refuse(toUpstreamRefusal(error, this.#plan, this.#attempts))
  }

  /** 1xx answers are counted, not passed on: few clients expect them, and a flood of them is an attack. */
  #onInformational(controller: Dispatcher.DispatchController): void {
    this.#informational++
    if (this.#informational > limits.informationalMax) controller.abort(new Error('too many informational answers'))
  }

  #flushSoon(): void {
    if (this.#flushing) return
    this.#flushing = true
    process.nextTick(flush, this)
  }

  /** Writes what the tick has brought, so that an event of a stream is never kept waiting for the next. */
  flush(): void {
    this.#flushing = false
    const { response } = this.#io
    if (response.writableEnded || response.destroyed) return
    const held = this.#held
    this.#held = undefined
    if (held) return this.#write(held, this.#controller)
    this.#written = true
    response.flushHeaders()
  }

  #write(chunk: Buffer, controller: Dispatcher.DispatchController | undefined): void {
    this.#written = true
    if (this.#io.response.write(chunk) || !controller) return
    controller.pause()
    this.#io.response.once('drain', () => controller.resume())
  }

  #readBody(): boolean {
    const { request, response } = this.#io
    if (this.#plan.exchange.expectsContinue) response.writeContinue()
    this.#body = new CountedBody(this.#plan.bodyBytesMax)
    const body = this.#body
    // The client broke off or sent a bad chunk: the upstream must not take what came for the whole.
    const fail = (): void => void (request.complete || body.destroy(clientGone))
    request.once('error', fail)
    request.once('close', fail)
    this.#io.onMalformed = () => {
      this.#controller?.abort(clientGone)
      body.destroy(clientGone)
    }
    ;(request as Readable).pipe(body)
    return true
  }

  /** A kept connection may be closed by its server in the moment it is used again: that is worth one more try. */
  #mayTryAgain(error: Error): boolean {
    const { method, hasBody } = this.#plan.exchange
    const lost = this.#lease?.used === true && this.#attempts === 1 && isReusedConnectionLoss(error)
    return (
      lost &&
      !hasBody &&
      !this.#io.response.headersSent &&
      (method === 'GET' || method === 'HEAD' || method === 'OPTIONS')
    )
  }

  #refuse(refusal: Refusal): void {
    this.#settled = true
    const server = this.#lease?.server
    const outcome = { refusal, ...(server && { server }), ...(this.#cause && { cause: this.#cause }) }
    this.#io.request.unpipe()
    sendAnswer(refuse(this.#plan.exchange, refusal), this.#io, this.#finish, outcome, this.#plan)
  }

  /** The client must see that this is not the whole answer: no last chunk, no clean end. */
  #cut(error: Error): void {
    this.#end = error.name === 'BodyTimeoutError' ? 'stalled' : 'upstream_cut'
    const held = this.#held
    this.#held = undefined
    const { response, request } = this.#io
    // HTTP/1.0 has no other sign of a broken answer than a reset.
    const breakOff = (): void =>
      void (request.httpVersion === '1.0' ? request.socket.resetAndDestroy() : response.destroy())
    if (held) return void response.write(held, breakOff)
    // With its head on the way, nobody takes the answer for one that never began and asks again.
    response.flushHeaders()
    breakOff()
  }

  #release(): void {
    if (this.#released) return
    this.#released = true
    this.#lease?.release()
  }

  #drop(): void {
    if (this.#released) return
    this.#released = true
    this.#lease?.drop()
  }

  /** Every request ends here, unless the gateway answered it in the end. */
  #onClose(): void {
    if (this.#settled) return
    this.#settled = true
    const { response } = this.#io
    if (!response.writableFinished) {
      if (this.#end === 'done') this.#end = this.#io.stalled ? 'stalled' : 'client_gone'
      this.#controller?.abort(clientGone)
      this.#body?.destroy(clientGone)
    }
    const outcome: Outcome = { status: this.#status, bytes: this.#bytes, end: this.#end }
    if (this.#lease) outcome.server = this.#lease.server
    if (this.#upstreamMs !== undefined) outcome.upstreamMs = this.#upstreamMs
    if (this.#cause !== undefined) outcome.cause = this.#cause
    this.#finish(this.#plan, outcome)
  }
}

/** A request body on its way, counted whatever its head said of it. */
class CountedBody extends Transform {
  readonly #max: number
  #count = 0
  tooLarge = false

  constructor(max: number) {
    super()
    this.#max = max
    // Whoever sends it hears of it; undici destroys a body that it no longer wants.
    this.on('error', () => {})
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, callback: TransformCallback): void {
    this.#count += chunk.length
    if (this.#count <= this.#max) return callback(null, chunk)
    this.tooLarge = true
    callback(new Error('body too large'))
  }
}

const flush = (forwarding: Forwarding): void => forwarding.flush()

/** Above this Node no longer writes a text at once, and it would be copied in vain. */
const textBytesMax = 8_192

const clientGone = new Error('the client is gone')
clientGone.name = 'ClientGone'

const connectionReset = new Error('the upstream reset its connection')

const unexpectedContent = new Error('content behind a status that has none')
unexpectedContent.name = 'UnexpectedContent'

/** RFC 9110 §15.3.5, §15.3.6: what came behind it would be read as the next answer. */
const hasContent = (received: string[]): boolean =>
  /^(?!0*$)/.test(fieldValue(received, 'content-length') ?? '0') ||
  fieldValue(received, 'transfer-encoding') !== undefined

const badHandshake: Refusal = {
  code: 'upstream_malformed',
  detail: 'the upstream did not complete the WebSocket handshake',
  limit: { name: 'attempts', value: 1 },
}

const busy: Refusal = {
  code: 'upstream_busy',
  detail: 'too many requests are with the upstream',
  limit: { name: 'upstreamConnectionsMax', value: limits.upstreamConnectionsMax },
  headers: ['Retry-After', '1'],
}

const toCause = (error: Error): string => ('code' in error && typeof error.code === 'string' ? error.code : error.name)

/** Field lines as text, byte for byte (RFC 9110 §5.5: obs-text is opaque). */
function toText(raw: Dispatcher.DispatchController['rawHeaders']): string[] {
  const headers: string[] = []
  if (Array.isArray(raw))
    for (const part of raw) headers.push(typeof part === 'string' ? part : part.toString('latin1'))
  return headers
}
