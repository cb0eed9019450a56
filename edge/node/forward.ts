import { Transform } from 'node:stream'
import type { Duplex, Readable, TransformCallback } from 'node:stream'
import { toCompressed } from '../actions/compress.ts'
import { toClientHeaders } from '../actions/headers.ts'
import { toServerTiming } from '../actions/server-timing.ts'
import type { Refusal } from '../error.ts'
import { fieldValue } from '../exchange.ts'
import { deadlineField } from '../identity.ts'
import { refuse } from '../gateway.ts'
import { toInformationalHeaders } from '../actions/informational.ts'
import { limits } from '../limits.ts'
import type { ProxyPlan } from '../plan.ts'
import { toBodyRefusal } from '../policies/body-size.ts'
import type { Outcome } from '../runtime.ts'
import { isWorthRepeating, mayRepeat } from '../upstreams/retry.ts'
import type { Failure } from '../upstreams/retry.ts'
import { sendAnswer } from './answer.ts'
import { createEncoder, mayEncode } from './encoder.ts'
import type { Encoder } from './encoder.ts'
import type { Finish, NodeIo } from './exchange-io.ts'
import { lingerOnClose } from './linger.ts'
import type { Lease, Pool, UpstreamServers, Which } from './pool.ts'
import type { AnswerController, AnswerHandler } from './upstream-client.ts'
import { UpstreamError } from './upstream-client.ts'
import { toBusyRefusal, toDeadlineRefusal, toFailure, toUpstreamRefusal } from './upstream-error.ts'

/**
 * Passes a request on and the answer back, as it comes: no body is held, back-pressure goes both ways, and whoever
 * leaves takes the other side along. An answer that breaks off is broken off for the client too.
 */
export function forward(plan: ProxyPlan, io: NodeIo, pool: Pool, finish: Finish, parties: Parties = {}): void {
  new Forwarding(plan, io, pool, finish, parties).start()
}

/** Who else has a part in it. */
interface Parties {
  join?: Join
  tap?: Tap
}

/** Takes over when the upstream has agreed to a WebSocket; says whether the handshake was good. */
export type Join = (socket: Duplex, received: string[], server: string) => boolean

/** Sees an answer come, to keep it or to answer the client instead. Each answer ends in one `end` or `fail`. */
export interface Tap {
  head(status: number, received: string[]): Hold
  /** A part of what it keeps; false: it wants no more of it. */
  data(chunk: Buffer): boolean
  /** All of it was there. */
  end(): void
  /** It broke off, or never began; true: the tap answers the client, who would be refused otherwise. */
  fail(refusal?: Refusal): boolean
}

/** Whether the tap keeps the body as it comes, and whether it answers the client itself. */
export interface Hold {
  keeps: boolean
  takes: boolean
}

/** One request under way. A class, because clients call back on one object and this is the hottest path there is. */
class Forwarding implements AnswerHandler {
  readonly #plan: ProxyPlan
  readonly #io: NodeIo
  readonly #servers: UpstreamServers
  readonly #finish: Finish
  readonly #join: Join | undefined
  readonly #tap: Tap | undefined
  /** The tap wants the body, however slow the client is and even when it leaves. */
  #keeps = false
  /** Came for nobody. */
  #drained = 0
  #lease: Lease | undefined
  /** The server that is being asked. */
  #index = -1
  /** Servers that have failed. */
  #tried: number[] | undefined
  /** The server that is asked next, because this one's answer is not wanted. */
  #next = -1
  #deadline: NodeJS.Timeout | undefined
  #timedOut = false
  #released = false
  #controller: AnswerController | undefined
  #body: CountedBody | undefined
  /** The last chunk, held until the tick ends, so that a small answer is written at once with its head. */
  #held: Buffer | undefined
  #flushing = false
  /** The tick has brought more than one chunk: they leave together. */
  #corked = false
  /** Where the answer is compressed on its way. */
  #encoder: Encoder | undefined
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

  constructor(plan: ProxyPlan, io: NodeIo, pool: Pool, finish: Finish, { join, tap }: Parties) {
    this.#plan = plan
    this.#io = io
    this.#servers = pool.of(plan.upstream)
    this.#finish = finish
    this.#join = join
    this.#tap = tap
  }

  start(): void {
    const { exchange, upstream, retry, timeoutMs } = this.#plan
    const { group } = this.#servers
    if (group.inFlight() >= upstream.inFlightMax) return this.#refuse(toBusyRefusal(upstream.inFlightMax))
    group.budget.count(exchange.startedAt)
    const index = group.choose(exchange, retry)
    if (index === -1) return this.#refuse(group.toRefusal())
    this.#io.response.on('close', () => this.#onClose())
    if (timeoutMs !== undefined) {
      const left = this.#leftMs(timeoutMs)
      if (left <= 0) return this.#refuse(toDeadlineRefusal(timeoutMs))
      this.#deadline = setTimeout(() => this.#onDeadline(), left)
    }
    this.#attempt(index, 'any')
  }

  #attempt(index: number, which: Which): void {
    const { exchange, target, headers, readTimeoutMs, timeoutMs } = this.#plan
    const lease = this.#servers.take(index, this.#join ? 'upgrade' : which)
    this.#lease = lease
    this.#index = index
    this.#released = false
    this.#controller = undefined
    this.#informational = 0
    this.#attempts++
    this.#sentAt = performance.now()
    const hasBody = exchange.hasBody && this.#readBody()
    lease.client.dispatch(
      {
        method: exchange.method,
        path: target,
        headers: timeoutMs === undefined ? headers : withDeadline(headers, this.#leftMs(timeoutMs)),
        contentLength: hasBody ? exchange.contentLength : null,
        body: this.#body ?? null,
        readTimeoutMs,
        upgrade: this.#join !== undefined,
      },
      this,
    )
  }

  onRequestStart(controller: AnswerController): void {
    this.#controller = controller
    if (this.#settled) controller.abort(clientGone)
    else if (this.#timedOut) controller.abort(timedOut)
  }

  onResponseStart(controller: AnswerController, status: number, received: string[]): void {
    if (status < 200) return this.#onInformational(controller, status, received)
    this.#upstreamMs = performance.now() - this.#sentAt
    if (status < 502 || status > 504) this.#servers.group.health.succeeded(this.#index, this.#upstreamMs)
    else if (this.#isUnwanted(status)) return controller.abort(unwantedStatus)
    this.#status = status
    const { exchange, response: edits, compress } = this.#plan
    if ((status === 204 || status === 205) && hasContent(received)) return controller.abort(unexpectedContent)
    if (this.#tap && this.#isTaken(this.#tap.head(status, received))) return
    // An answer before the whole body was read: what still comes would have to be read only to be thrown away.
    if (exchange.hasBody && !this.#io.request.complete) {
      this.#io.response.shouldKeepAlive = false
      lingerOnClose(this.#io.request)
    }
    const headers = toClientHeaders(exchange, edits, status, received)
    headers.push(...toServerTiming(exchange, performance.now(), this.#upstreamMs))
    this.#io.response.writeHead(status, compress ? this.#compress(status, headers) : headers)
    this.#flushSoon()
  }

  onResponseData(controller: AnswerController, chunk: Buffer): void {
    if (this.#tap && this.#isTapsOnly(this.#tap, controller, chunk)) return
    if (this.#encoder) return this.#encoder.write(chunk, controller)
    this.#bytes += chunk.length
    const held = this.#held
    this.#held = chunk
    if (held) {
      if (!this.#corked) this.#io.response.cork()
      this.#corked = true
      this.#write(held, controller)
    }
    this.#flushSoon()
  }

  onResponseEnd(): void {
    this.#release()
    if (this.#keeps) this.#tap?.end()
    if (this.#tap && this.#settled) return
    if (this.#encoder) return this.#encoder.end()
    const held = this.#held
    this.#held = undefined
    // A text leaves in one write with the head, where bytes make two; latin1 keeps every byte.
    if (held && !this.#written && held.length <= textBytesMax) this.#io.response.end(held.toString('latin1'), 'latin1')
    else this.#io.response.end(held)
  }

  onRequestUpgrade(status: number, received: string[], socket: Duplex): void {
    this.#drop()
    if (this.#settled) return void socket.destroy()
    clearTimeout(this.#deadline)
    if (status === 101 && this.#join?.(socket, received, this.#lease?.server ?? '')) {
      this.#settled = true
      return
    }
    socket.destroy()
    this.#refuse(badHandshake)
  }

  onResponseError(error: Error): void {
    if (this.#settled) {
      this.#tap?.fail()
      return this.#drop()
    }
    if (error === unwantedStatus) {
      this.#drop()
      return this.#attempt(this.#next, 'fresh')
    }
    const isOurs = this.#io.malformed !== undefined || this.#body?.tooLarge === true || error === clientGone
    const next = isOurs || this.#io.response.headersSent ? -1 : this.#judge(error)
    this.#drop()
    const refusal = this.#io.malformed ?? (this.#body?.tooLarge ? toBodyRefusal(this.#plan.bodyBytesMax) : undefined)
    if (refusal) return this.#io.response.headersSent ? this.#cut(error) : this.#refuse(refusal)
    if (next !== -1) return this.#attempt(next, 'fresh')
    const { timeoutMs } = this.#plan
    if (this.#timedOut && timeoutMs !== undefined && !this.#io.response.headersSent)
      return this.#refuse(toDeadlineRefusal(timeoutMs))
    this.#cause = toCause(error)
    if (this.#io.response.headersSent) return this.#cut(error)
    this.#refuse(toUpstreamRefusal(error, this.#plan, this.#attempts))
  }

  /** Says what the failure means for the server, and which one is asked now; -1: none. */
  #judge(error: Error): number {
    const failure = this.#timedOut ? 'silent' : toFailure(error)
    // A kept connection may be closed in the moment it is used again: that says nothing of its server.
    const isRace = failure === 'lost' && this.#lease?.used === true
    // Nor does a deadline that whoever asks has set: it could be set too short on purpose.
    const isTheirs = this.#timedOut && this.#plan.exchange.timeoutMs !== undefined
    if (!isRace && !isTheirs) this.#servers.group.health.failed(this.#index, failure, toCause(error))
    return this.#findNext(failure, isRace)
  }

  /** Another server for a request that failed on this one, and this one again when only its connection was lost. */
  #findNext(failure: Failure, isRace: boolean): number {
    const { exchange, retry } = this.#plan
    if (this.#attempts >= retry.attempts || !isWorthRepeating(failure) || !mayRepeat(exchange)) return -1
    const { group } = this.#servers
    const tried = this.#tried ? [...this.#tried, this.#index] : [this.#index]
    const other = group.choose(exchange, retry, tried)
    const next = other === -1 && isRace ? this.#index : other
    if (next === -1 || !group.budget.take(performance.now())) return -1
    this.#tried = tried
    return next
  }

  /** Whether the row would rather have another server's answer than this one, and there is one to ask. */
  #isUnwanted(status: number): boolean {
    this.#servers.group.health.failed(this.#index, 'status', `status ${status}`)
    if (!this.#plan.retry.statuses.includes(status)) return false
    this.#next = this.#findNext('status', false)
    return this.#next !== -1
  }

  #leftMs(timeoutMs: number): number {
    return Math.ceil(this.#plan.exchange.startedAt + timeoutMs - performance.now())
  }

  #onDeadline(): void {
    this.#timedOut = true
    if (this.#controller) this.#controller.abort(timedOut)
    else this.#lease?.client.destroy(timedOut)
  }

  /** 1xx answers are passed on to who may get them (RFC 9110 §15.2), and counted: a flood of them is an attack. */
  #onInformational(controller: AnswerController, status: number, received: string[]): void {
    this.#informational++
    if (this.#informational > limits.informationalMax)
      return controller.abort(new Error('too many informational answers'))
    const { request, response } = this.#io
    if (request.httpVersion === '1.0' || this.#join || this.#settled || response.destroyed) return
    response.writeInformation(status, toInformationalHeaders(this.#plan.response, received))
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
    if (held) this.#write(held, this.#controller)
    else {
      this.#written = true
      response.flushHeaders()
    }
    if (this.#corked) response.uncork()
    this.#corked = false
  }

  #write(chunk: Buffer, controller: AnswerController | undefined): void {
    this.#written = true
    if (this.#io.response.write(chunk) || !controller || this.#keeps) return
    controller.pause()
    this.#io.response.once('drain', () => controller.resume())
  }

  /** The fields of the answer, which is compressed from here on if it may be. */
  #compress(status: number, headers: string[]): string[] {
    if (this.#settled || !mayEncode()) return headers
    const compressed = toCompressed(this.#plan.exchange, status, headers)
    if (compressed.coding) this.#encoder = createEncoder(compressed.coding, this.#io.response)
    return compressed.headers
  }

  /** From here on the client is the tap's. */
  #isTaken({ keeps, takes }: Hold): boolean {
    this.#keeps = keeps
    if (!takes) return false
    this.#settled = true
    clearTimeout(this.#deadline)
    return true
  }

  /** What nobody wants is read to its end, so that the connection can be kept, unless that is too much. */
  #isTapsOnly(tap: Tap, controller: AnswerController, chunk: Buffer): boolean {
    if (this.#keeps && !tap.data(chunk)) this.#keeps = false
    if (!this.#settled) return false
    if (!this.#keeps) this.#drained += chunk.length
    if (this.#drained > limits.drainBytesMax) controller.abort(clientGone)
    return true
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

  #refuse(refusal: Refusal): void {
    this.#settled = true
    clearTimeout(this.#deadline)
    if (this.#tap?.fail(refusal)) return
    const server = this.#lease?.server
    const outcome = {
      refusal,
      ...(server && { server }),
      ...(this.#cause && { cause: this.#cause }),
      ...(this.#attempts > 1 && { attempts: this.#attempts }),
      ...(this.#attempts > 0 && this.#plan.exchange.trace?.spans && this.#toSentAfter()),
    }
    this.#io.request.unpipe()
    sendAnswer(refuse(this.#plan.exchange, refusal), this.#io, this.#finish, outcome, this.#plan)
  }

  /** The client must see that this is not the whole answer: no last chunk, no clean end. */
  #cut(error: Error): void {
    this.#tap?.fail()
    if (this.#settled) return
    this.#end = this.#timedOut ? 'timed_out' : isStalled(error) ? 'stalled' : 'upstream_cut'
    const held = this.#held
    this.#held = undefined
    const { response, request } = this.#io
    // HTTP/1.0 has no other sign of a broken answer than a reset.
    const breakOff = (): void =>
      void (request.httpVersion === '1.0' ? request.socket.resetAndDestroy() : response.destroy())
    if (held) return void response.write(held, breakOff)
    if (this.#encoder) return this.#encoder.cut(breakOff)
    // With its head on the way, nobody takes the answer for one that never began and asks again.
    response.flushHeaders()
    breakOff()
  }

  #toSentAfter(): Pick<Outcome, 'sentAfterMs'> {
    return { sentAfterMs: this.#sentAt - this.#plan.exchange.startedAt }
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
    clearTimeout(this.#deadline)
    if (this.#settled) return
    this.#settled = true
    const { response } = this.#io
    this.#encoder?.destroy()
    if (!response.writableFinished) {
      if (this.#end === 'done') this.#end = this.#io.stalled ? 'stalled' : 'client_gone'
      if (this.#keeps) this.#controller?.resume()
      else this.#controller?.abort(clientGone)
      this.#body?.destroy(clientGone)
    }
    const outcome: Outcome = { status: this.#status, bytes: this.#encoder?.bytes ?? this.#bytes, end: this.#end }
    if (this.#lease) outcome.server = this.#lease.server
    if (this.#upstreamMs !== undefined) outcome.upstreamMs = this.#upstreamMs
    if (this.#cause !== undefined) outcome.cause = this.#cause
    if (this.#attempts > 1) outcome.attempts = this.#attempts
    if (this.#plan.exchange.trace?.spans) Object.assign(outcome, this.#toSentAfter())
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

const timedOut = new Error('the deadline has passed')
timedOut.name = 'TimedOut'

const unwantedStatus = new Error('another server is asked')

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

/** Tells the upstream how long it has. */
const withDeadline = (headers: string[], leftMs: number): string[] => [
  ...headers,
  deadlineField,
  String(Math.max(1, leftMs)),
]

const isStalled = (error: Error): boolean => error instanceof UpstreamError && error.code === 'stalled'

const toCause = (error: Error): string => ('code' in error && typeof error.code === 'string' ? error.code : error.name)
