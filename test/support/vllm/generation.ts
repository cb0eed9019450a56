import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Engine } from './double.ts'
import type { Injection, Record as RequestRecord } from './knobs.ts'
import type { ReadRequest } from './request.ts'
import type { Tokenizer } from './tokens.ts'
import { incompleteBytes } from './tokens.ts'
import * as wire from './wire.ts'

interface Options {
  engine: Engine
  request: IncomingMessage
  response: ServerResponse
  read: ReadRequest
  kind: 'chat' | 'text'
  tokenizer: Tokenizer
}

/** One request on its way through the engine: waiting, running, told token by token. */
export class Generation {
  readonly #options: Options
  readonly #record: RequestRecord
  readonly #answer: wire.Answer
  readonly #injection: Injection | undefined
  readonly #first: number
  #timer: NodeJS.Timeout | NodeJS.Immediate | undefined
  #settled = false
  /** Ids and bytes that were generated and not yet sent. */
  #ids: number[] = []
  #bytes: Buffer = Buffer.alloc(0)
  #allIds: number[] = []
  #allBytes: Buffer[] = []
  #blocked = false
  #finish: string | undefined

  constructor(options: Options) {
    this.#options = options
    const { engine, read, kind, tokenizer, request } = options
    this.#first = tokenizer.placeAfter(read.promptIds)
    this.#answer = {
      id: `${kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${read.id}`,
      created: 1_760_000_000,
      model: engine.knobs.model,
    }
    this.#record = {
      id: this.#answer.id,
      receivedAt: performance.now(),
      firstByteAt: undefined,
      endedAt: undefined,
      promptTokens: read.promptIds.length,
      tokens: 0,
      abortedAtToken: undefined,
      bytesSent: 0,
      maxSocketBuffered: 0,
      finish: undefined,
      body: read.body,
      headers: request.headers,
    }
    const { knobs } = engine
    // A request that ends before is none that it could happen to.
    const mayInject =
      knobs.injectAt !== undefined &&
      read.maxTokens > knobs.injectAt.token &&
      (knobs.injectTimes === undefined || knobs.injectTimes > 0)
    if (mayInject && knobs.injectTimes !== undefined) knobs.injectTimes--
    this.#injection = mayInject ? knobs.injectAt : undefined
  }

  /** Tokens that it holds in the cache. */
  get held(): number {
    return this.#options.read.promptIds.length + this.#record.tokens
  }

  start(): void {
    const { engine, request, response } = this.#options
    engine.records.push(this.#record)
    engine.promptTokens += this.#record.promptTokens
    response.on('close', this.#onClose)
    // Half a connection is enough: uvicorn takes its end for the client's leaving.
    request.socket.once('end', this.#onClose)
    if (response.destroyed) return this.#onClose()
    engine.waiting.push(this)
    if (engine.knobs.slowHeaders > 0) this.#timer = setTimeout(() => this.#enter(), engine.knobs.slowHeaders)
    else this.#enter()
  }

  #enter(): void {
    const { engine, response, read } = this.#options
    const kind = this.#injection?.kind
    if (kind === 'http500') return this.#refuse(500, 'InternalServerError', 'Internal server error')
    if (kind === 'http503')
      return this.#refuse(503, 'Service Unavailable', 'The server is busy. Please try again later.')
    // The head is sent before anything is generated.
    if (read.stream) {
      response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
      response.flushHeaders()
    }
    if (engine.draining) return this.abort()
    engine.schedule()
  }

  /** It has a place among the running. */
  run(): void {
    const { ttft } = this.#options.engine.knobs
    this.#later(ttft.mean + ttft.perToken * this.#record.promptTokens, ttft.sd)
  }

  /** As on shutdown: a success, to look at. */
  abort(): void {
    if (this.#settled) return
    this.#end('abort')
  }

  reset(): void {
    this.#count('error')
    this.#settle()
    this.#options.request.socket.resetAndDestroy()
  }

  #later(mean: number, sd: number): void {
    const delay = sd === 0 ? mean : Math.max(0, mean + sd * gaussian())
    if (delay === 0) this.#timer = setImmediate(() => this.#step())
    else this.#timer = setTimeout(() => this.#step(), delay)
  }

  /** One more token. */
  #step(): void {
    if (this.#settled) return
    const { engine, tokenizer, read } = this.#options
    const { knobs } = engine
    if (this.#injection && this.#record.tokens >= this.#injection.token && this.#inject(this.#injection)) return
    const place = this.#first + this.#record.tokens
    const id = tokenizer.idAt(place)
    const bytes = tokenizer.bytesAt(place)
    this.#ids.push(id)
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes])
    if (!read.stream) {
      this.#allIds.push(id)
      this.#allBytes.push(bytes)
    }
    this.#record.tokens++
    engine.generatedTokens++
    if (this.#record.tokens === 1) engine.firstTokens++
    else engine.betweenTokens++
    const place0 = this.#first + this.#record.tokens
    if (place0 >= knobs.outputTokens) return this.#end(knobs.finish)
    if (this.#record.tokens >= read.maxTokens) return this.#end('length')
    if (read.stream && !(knobs.mergeDeltas && this.#blocked)) this.#flush(null)
    this.#later(knobs.itl.mean, knobs.itl.sd)
  }

  #usage(): wire.Usage {
    return { prompt: this.#record.promptTokens, completion: this.#record.tokens }
  }

  /** Sends what was generated since the last time; the text of a character that is not whole stays behind. */
  #flush(finish: string | null): void {
    const { read, kind } = this.#options
    const kept = finish === null ? incompleteBytes(this.#bytes) : 0
    const text = this.#bytes.subarray(0, this.#bytes.length - kept).toString()
    const usage = read.continuousUsage ? this.#usage() : undefined
    const isFirst = this.#record.firstByteAt === undefined
    if (isFirst && kind === 'chat')
      this.#send(
        wire.roleEvent(this.#answer, read.returnIds ? read.promptIds : null, usage && { ...usage, completion: 0 }),
      )
    const delta = {
      text,
      logprobs: toLogprobs(read.logprobs, text),
      finish,
      ids: read.returnIds ? this.#ids : null,
      usage,
      isLast: finish !== null && !read.includeUsage,
    }
    this.#send(
      kind === 'chat'
        ? wire.chatDelta(this.#answer, delta)
        : wire.textDelta(this.#answer, { ...delta, promptIds: isFirst && read.returnIds ? read.promptIds : null }),
    )
    this.#bytes = this.#bytes.subarray(this.#bytes.length - kept)
    this.#ids = []
  }

  #end(finish: string): void {
    const { read, kind, response } = this.#options
    this.#count(finish)
    if (!read.stream) return this.#endWhole(finish)
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
    this.#flush(finish)
    if (read.includeUsage)
      this.#send(
        wire.usageEvent(this.#answer, kind === 'chat' ? 'chat.completion.chunk' : 'text_completion', this.#usage()),
      )
    this.#send(wire.doneEvent)
    this.#settle()
    response.end()
  }

  #endWhole(finish: string): void {
    const { read, kind, response } = this.#options
    const text = Buffer.concat(this.#allBytes).toString()
    const toBody = kind === 'chat' ? wire.chatBody : wire.textBody
    const body = toBody(
      this.#answer,
      text,
      finish,
      this.#usage(),
      read.returnIds ? this.#allIds : null,
      read.returnIds ? read.promptIds : null,
    )
    this.#record.firstByteAt = performance.now()
    this.#record.bytesSent = Buffer.byteLength(body)
    this.#settle()
    if (!response.destroyed)
      response
        .writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
        .end(body)
  }

  /** Does what was asked for; true when nothing comes after it. */
  #inject({ kind }: Injection): boolean {
    const { engine, read, response } = this.#options
    if (kind === 'abort') this.abort()
    else if (kind === 'reset') this.reset()
    else if (kind === 'stall') return true
    else if (kind === 'truncateNoDone') this.#truncate()
    else if (kind === 'errorEvent' || kind === 'engineDead') {
      if (kind === 'engineDead') engine.dead = true
      const message = kind === 'engineDead' ? wire.engineDead : 'Internal server error'
      this.#count('error')
      if (!read.stream) this.#refuse(500, 'InternalServerError', message)
      else {
        this.#send(wire.errorEvent(message))
        this.#send(wire.doneEvent)
        this.#settle()
        response.end()
      }
    } else if (kind === 'garbageLine') {
      if (read.stream) {
        this.#send('data: {"id":"chatcmpl-\u0000 garb\n\n')
        return false
      }
      this.#count('error')
      this.#settle()
      const body = '{"id":"chatcmpl-8f1c","object":"chat.compl'
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
    } else return false
    return true
  }

  /** Ends in the middle as if it were whole: no finish, no [DONE]; a body is shorter than its length. */
  #truncate(): void {
    const { read, response } = this.#options
    this.#count('error')
    this.#settle()
    if (read.stream) return void response.end()
    const body = wire.chatBody(this.#answer, 'half', 'stop', this.#usage(), null, null)
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length })
    response.write(body.slice(0, body.length / 2), () => response.destroy())
  }

  #refuse(status: number, type: string, message: string): void {
    const { response } = this.#options
    this.#settle()
    const body = wire.errorBody(status, type, message)
    response
      .writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
      .end(body)
  }

  #send(text: string): void {
    const { response, engine } = this.#options
    if (response.destroyed) return
    const bytes = Buffer.from(text)
    this.#record.firstByteAt ??= performance.now()
    this.#record.bytesSent += bytes.length
    for (const part of cut(bytes, engine.knobs.chunkBoundary)) if (!response.write(part)) this.#blocked = true
    if (this.#blocked) response.once('drain', () => (this.#blocked = false))
    this.#record.maxSocketBuffered = Math.max(this.#record.maxSocketBuffered, response.writableLength)
  }

  readonly #onClose = (): void => {
    if (this.#settled) return
    this.#record.abortedAtToken = this.#record.tokens
    this.#count('abort')
    this.#settle()
  }

  #count(finish: string): void {
    if (this.#finish !== undefined) return
    this.#finish = finish
    this.#record.finish = finish
    const { finished } = this.#options.engine
    finished[finish] = (finished[finish] ?? 0) + 1
  }

  #settle(): void {
    if (this.#settled) return
    this.#settled = true
    this.#record.endedAt = performance.now()
    this.#options.request.socket.off('end', this.#onClose)
    clearTimeout(this.#timer as NodeJS.Timeout)
    clearImmediate(this.#timer as NodeJS.Immediate)
    this.#options.engine.settle(this)
  }
}

function cut(bytes: Buffer, boundary: 'event' | 'random' | '1byte'): Buffer[] {
  if (boundary === 'event') return [bytes]
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length;) {
    const length = boundary === '1byte' ? 1 : 1 + Math.floor(Math.random() * 40)
    parts.push(bytes.subarray(at, at + length))
    at += length
  }
  return parts
}

const toLogprobs = (top: number | undefined, text: string): unknown => {
  if (top === undefined) return null
  const one = { token: text, logprob: -0.12, bytes: [...Buffer.from(text)] }
  return { content: [{ ...one, top_logprobs: Array.from({ length: top }, () => one) }] }
}

/** Of mean 0 and deviation 1 (Box–Muller). */
const gaussian = (): number => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random())
