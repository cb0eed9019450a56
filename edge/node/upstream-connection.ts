import { connect as connectTcp, isIP } from 'node:net'
import type { LookupFunction, Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { limits } from '../limits.ts'
import { AnswerParser } from './answer-parser.ts'
import type { AnswerEvents } from './answer-parser.ts'
import { UpstreamError } from './upstream-client.ts'
import type { AnswerController, AnswerHandler, UpstreamClient, UpstreamRequest } from './upstream-client.ts'

/** A server, and how connections to it are opened. */
export interface ServerAddress {
  url: URL
  connectTimeoutMs: number
  lookup: LookupFunction | undefined
  /** The last TLS session, so that the next handshake is a short one (RFC 8446 §2.2). */
  session?: Buffer
}

/** Opens a connection of HTTP/1.1. */
export function openConnection(address: ServerAddress): UpstreamClient {
  return new Connection(address)
}

/** A class for what is paid with every request; everything else is functions below. */
class Connection implements UpstreamClient, AnswerEvents {
  readonly #socket: Socket
  readonly #parser = new AnswerParser(this)
  #isOpen = false
  #isBroken = false
  /** The request under way, and what of it is still to be sent. */
  #call: Call | undefined
  #waiting: UpstreamRequest | undefined
  #upload: Upload | undefined
  /** Milliseconds of the monotonic clock: when it was given back, and until when it may be used again. */
  #usableUntil = Infinity
  /** When something last went either way; the timer is only moved when it would ring too late. */
  #activeAt = 0
  #readTimeoutMs = 0
  #timer: NodeJS.Timeout | undefined
  #ringsAt = 0
  #answering = false
  #paused = false

  constructor(address: ServerAddress) {
    const connecting = setTimeout(() => this.#fail(connectTimeout()), address.connectTimeoutMs)
    this.#socket = openSocket(address, (size) => this.#read(size))
    this.#socket.once(address.url.protocol === 'https:' ? 'secureConnect' : 'connect', () => {
      clearTimeout(connecting)
      this.#isOpen = true
      if (this.#waiting) this.#send(this.#waiting)
    })
    this.#socket.on('drain', () => this.#upload?.resume())
    this.#socket.on('end', () => this.#end())
    this.#socket.on('error', (error) => this.#fail(error))
    this.#socket.on('close', () => {
      clearTimeout(connecting)
      this.#fail(closed())
    })
  }

  isUsable(): boolean {
    return !this.#isBroken && !this.#call && performance.now() < this.#usableUntil
  }

  dispatch(request: UpstreamRequest, handler: AnswerHandler): void {
    const call = new Call(this, handler)
    this.#call = call
    handler.onRequestStart(call)
    if (this.#isBroken) process.nextTick(() => this.#fail(closed()))
    else if (this.#isOpen) this.#send(request)
    else this.#waiting = request
  }

  async close(): Promise<void> {
    if (!this.#call) this.destroy()
  }

  destroy(error: Error = closed()): void {
    this.#fail(error)
  }

  #send(request: UpstreamRequest): void {
    this.#waiting = undefined
    this.#answering = false
    const { method, body, contentLength, readTimeoutMs } = request
    if (body?.destroyed) return this.#fail(body.errored ?? wrongLength())
    let head: string
    try {
      head = toHead(request)
    } catch (error) {
      return this.#fail(error as Error)
    }
    this.#parser.begin(method)
    this.#readTimeoutMs = readTimeoutMs
    this.#activeAt = performance.now()
    this.#watch()
    this.#socket.write(head, 'latin1')
    if (body)
      this.#upload = new Upload(this.#socket, body, contentLength, (error) =>
        error ? this.#fail(error) : this.#touch(),
      )
  }

  #read(size: number): boolean {
    this.#activeAt = performance.now()
    if (!this.#call) this.#fail(closed())
    else
      try {
        this.#parser.read(received.subarray(0, size))
      } catch (error) {
        this.#fail(error as Error)
      }
    return !this.#paused
  }

  /** The server will send no more. */
  #end(): void {
    try {
      this.#parser.end()
    } catch (error) {
      this.#fail(error as Error)
    }
    this.#fail(closed())
  }

  onHead(status: number, fields: string[]): void {
    this.#answering = status >= 200
    this.#call?.handler.onResponseStart(this.#call, status, fields)
  }

  onBody(bytes: Buffer): void {
    // What was received is written over by what comes next.
    this.#call?.handler.onResponseData(this.#call, Buffer.from(bytes))
  }

  onEnd(reusable: boolean): void {
    const call = this.#call
    this.#call = undefined
    call?.leave()
    const keepMs = Math.min(limits.upstreamIdleMs, this.#parser.keepAliveMs)
    // A server that answers before it has the whole request would take the rest for the next one.
    if (!reusable || keepMs <= 0 || this.#upload?.isOpen) this.#break()
    else {
      this.#usableUntil = performance.now() + keepMs
      if (this.#paused) this.resume()
    }
    this.#upload = undefined
    call?.handler.onResponseEnd()
  }

  pause(): void {
    this.#paused = true
    this.#socket.pause()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#activeAt = performance.now()
    this.#socket.resume()
  }

  #fail(error: Error): void {
    this.#break()
    const call = this.#call
    if (!call) return
    this.#call = undefined
    call.leave()
    call.handler.onResponseError(error)
  }

  #break(): void {
    if (this.#isBroken) return
    this.#isBroken = true
    clearTimeout(this.#timer)
    this.#parser.stop()
    this.#upload?.stop()
    this.#waiting?.body?.destroy()
    this.#socket.destroy()
  }

  #touch(): void {
    this.#activeAt = performance.now()
  }

  /** Sees to it that the timer rings in time. */
  #watch(): void {
    const at = this.#activeAt + this.#readTimeoutMs
    if (this.#timer && this.#ringsAt <= at) return
    clearTimeout(this.#timer)
    this.#ring(at)
  }

  #ring(at: number): void {
    this.#ringsAt = at
    this.#timer = setTimeout(() => this.#onTimer(), Math.ceil(at - performance.now())).unref()
  }

  #onTimer(): void {
    this.#timer = undefined
    if (!this.#call) return
    const now = performance.now()
    // Nobody waits for a server whose answer the client does not take, or whose request it has not sent.
    const isOurs = this.#paused || this.#upload?.isHungry === true
    const at = (isOurs ? now : this.#activeAt) + this.#readTimeoutMs
    if (at > now) this.#ring(at)
    else this.#fail(this.#answering ? stalled() : silent())
  }
}

/** One request under way; when it is done, nothing that is still asked of it reaches the next one. */
class Call implements AnswerController {
  readonly handler: AnswerHandler
  #connection: Connection | undefined

  constructor(connection: Connection, handler: AnswerHandler) {
    this.#connection = connection
    this.handler = handler
  }

  abort(error: Error): void {
    this.#connection?.destroy(error)
  }

  pause(): void {
    this.#connection?.pause()
  }

  resume(): void {
    this.#connection?.resume()
  }

  leave(): void {
    this.#connection = undefined
  }
}

/** A request's body on its way: as long as its head says, or in chunks (RFC 9112 §6, §7.1). */
class Upload {
  isOpen = true
  /** The connection takes more than has come. */
  isHungry = true
  readonly #socket: Socket
  readonly #body: Readable
  #left: number | null
  readonly #tell: (error?: Error) => void

  constructor(socket: Socket, body: Readable, length: number | null, tell: (error?: Error) => void) {
    this.#socket = socket
    this.#body = body
    this.#left = length
    this.#tell = tell
    body.on('data', this.#onData)
    body.on('end', this.#onEnd)
    body.on('error', this.#onError)
    body.on('close', this.#onClose)
  }

  resume(): void {
    this.isHungry = true
    this.#tell()
    this.#body.resume()
  }

  stop(): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.#body.destroy()
  }

  readonly #onData = (chunk: Buffer): void => {
    if (!this.isOpen || chunk.length === 0) return
    if (this.#left !== null && (this.#left -= chunk.length) < 0) return this.#tell(wrongLength())
    if (!this.#write(chunk)) {
      this.isHungry = false
      this.#body.pause()
    }
    this.#tell()
  }

  #write(chunk: Buffer): boolean {
    if (this.#left !== null) return this.#socket.write(chunk)
    this.#socket.cork()
    this.#socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1')
    this.#socket.write(chunk)
    const hasRoom = this.#socket.write('\r\n', 'latin1')
    this.#socket.uncork()
    return hasRoom
  }

  readonly #onEnd = (): void => {
    if (!this.isOpen) return
    if (this.#left) return this.#tell(wrongLength())
    this.isOpen = false
    this.isHungry = false
    if (this.#left === null) this.#socket.write('0\r\n\r\n', 'latin1')
    this.#tell()
  }

  readonly #onError = (error: Error): void => {
    if (this.isOpen) this.#tell(error)
  }

  readonly #onClose = (): void => {
    if (this.isOpen) this.#tell(wrongLength())
  }
}

/** Every connection's bytes come in here, and are read before the next come. */
const received = Buffer.allocUnsafeSlow(65_536)

function openSocket(address: ServerAddress, onRead: (size: number) => boolean): Socket {
  const { url, lookup, session } = address
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const options = {
    host,
    port: Number(url.port) || (url.protocol === 'https:' ? 443 : 80),
    ...(lookup && { lookup }),
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
    onread: { buffer: received, callback: onRead },
  }
  if (url.protocol === 'http:') return connectTcp(options)
  const socket = connectTls({
    ...options,
    ...(isIP(host) === 0 && { servername: host }),
    ...(session && { session }),
    ALPNProtocols: ['http/1.1'],
  })
  return socket.on('session', (latest) => {
    address.session = latest
  })
}

/** The request's first bytes (RFC 9112 §3). Throws an UpstreamError when a field would be more than one. */
function toHead({ method, path, headers, body, contentLength }: UpstreamRequest): string {
  if (notInTarget.test(path) || notInName.test(method)) throw unsendable('the request line')
  let head = `${method} ${path} HTTP/1.1\r\n`
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    if (notInValue.test(value) || notInName.test(name)) throw unsendable(`the field ${JSON.stringify(name)}`)
    head += `${name}: ${value}\r\n`
  }
  if (body) head += contentLength === null ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${contentLength}\r\n`
  // RFC 9110 §8.6: where a body could be, it is said that there is none.
  else if (method === 'POST' || method === 'PUT' || method === 'PATCH') head += 'Content-Length: 0\r\n'
  return `${head}\r\n`
}

/** Written as one byte each, characters above 255 would be others: line ends too. */
const notInValue = /[^\t\x20-\x7e\x80-\xff]/
const notInName = /[^!#$%&'*+\-.^_`|~0-9A-Za-z]/
const notInTarget = /[^\x21-\x7e]/

const closed = (): UpstreamError => new UpstreamError('closed', 'the connection is closed')
const silent = (): UpstreamError => new UpstreamError('silent', 'no answer in time')
const stalled = (): UpstreamError => new UpstreamError('stalled', 'no more of the answer in time')
const connectTimeout = (): UpstreamError => new UpstreamError('connect_timeout', 'no connection in time')
const wrongLength = (): UpstreamError => new UpstreamError('unsendable', 'the body is not as long as was said')
const unsendable = (what: string): UpstreamError => new UpstreamError('unsendable', `${what} cannot be sent`)
