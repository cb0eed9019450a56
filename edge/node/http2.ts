import { constants, performServerHandshake } from 'node:http2'
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2'
import { Readable, Writable } from 'node:stream'
import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { RawRequest } from '../exchange.ts'
import { limits } from '../limits.ts'
import type { NodeIo, NodeRequest, NodeResponse } from './exchange-io.ts'
import type { Handle } from './listen.ts'
import { createProgressWatch } from './progress.ts'

/** Connections that speak HTTP/2 (RFC 9113): every stream becomes the same kind of request as an HTTP/1.1 message. */
export interface Http2Connections {
  /** Speaks HTTP/2 on a connection from now on. */
  open(socket: TLSSocket): void
  /** How many there are. */
  count(): number
  /** Says that a GOAWAY is to come (RFC 9113 §6.8): who has asked by then is answered. */
  announce(): void
  /** Says GOAWAY to all; open streams may end, then their connections are closed. */
  close(): void
  /** Closes all of them at once. */
  destroy(): void
}

export function createHttp2Connections(handle: Handle, now: () => number = () => performance.now()): Http2Connections {
  const sessions = new Map<ServerHttp2Session, Activity>()
  const progress = createProgressWatch(now)
  const timer = setInterval(look, limits.progressLookMs).unref()
  let closing = false

  function open(socket: TLSSocket): void {
    const session = performServerHandshake(socket, sessionOptions)
    const activity: Activity = { socket, open: new Set(), count: 0, quietSince: now(), ...noOverhead(now()) }
    sessions.set(session, activity)
    // What is wrong with one connection has closed it already, and is nobody else's matter.
    session.on('error', () => {})
    session.on('close', () => {
      sessions.delete(session)
      for (const response of activity.open) response.destroy()
    })
    const countControl = (): void => void (++activity.control > limits.controlFramesMax && session.destroy())
    session.on('ping', countControl)
    session.on('remoteSettings', countControl)
    session.on('stream', (stream, _headers, flags, rawHeaders) => {
      stream.on('error', () => {})
      activity.count++
      const response = serve(stream, { flags, rawHeaders, socket, activity })
      activity.open.add(response)
      response.once('close', () => {
        activity.open.delete(response)
        activity.quietSince = now()
      })
      if (activity.count >= limits.requestsPerConnectionMax) session.close()
    })
    // HTTP/2 knows no client that has only said all it had to say.
    socket.once('end', () => socket.destroy())
    session.once('connect', () => session.setLocalWindowSize(limits.connectionWindowBytes))
    if (closing) session.close()
  }

  function serve(stream: ServerHttp2Stream, { flags, rawHeaders, socket, activity }: Opened): StreamResponse {
    const endsHere = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0
    const raw = toRaw(rawHeaders, endsHere, socket.remoteAddress ?? '')
    const request = new StreamRequest(stream, { socket, endsHere, headers: toFields(raw.headers), activity })
    const response = new StreamResponse(stream, request)
    const io: NodeIo = {
      request: request satisfies NodeRequest,
      response,
      upgrade: undefined,
      malformed: undefined,
      onMalformed: undefined,
      stalled: false,
    }
    progress.add(response, { current: io })
    handle(raw, io)
    return response
  }

  /** Whoever keeps a connection open without asking for anything, whatever frames he sends, is not waited for. */
  function look(): void {
    progress.look()
    const at = now()
    for (const [session, activity] of sessions) {
      if (isOverhead(activity, at)) {
        session.destroy()
        continue
      }
      const { open: streams, count, quietSince } = activity
      const quietMs = at - quietSince
      if (streams.size > 0 || quietMs < (count === 0 ? limits.headTimeoutMs : limits.clientIdleMs)) continue
      // Said goodbye to before, and still there.
      if (session.closed) session.destroy()
      else session.close()
    }
  }

  function announce(): void {
    for (const session of sessions.keys()) session.goaway(constants.NGHTTP2_NO_ERROR, lastStreamMax)
  }

  function close(): void {
    closing = true
    clearInterval(timer)
    for (const session of sessions.keys()) session.close()
  }

  function destroy(): void {
    for (const session of sessions.keys()) session.destroy()
  }

  return { open, count: () => sessions.size, announce, close, destroy }
}

const lastStreamMax = 2 ** 31 - 1

interface Activity {
  socket: Socket
  /** Answers that have not ended. */
  open: Set<StreamResponse>
  /** Streams there were. */
  count: number
  quietSince: number
  /** Bytes of bodies that were read. */
  bodyBytes: number
  /** PING and SETTINGS frames since the last look. */
  control: number
  /** What was seen at the last look, and how much of it was for nothing. */
  look: { at: number; useful: number; bytesRead: number; overhead: number }
}

const noOverhead = (at: number): Pick<Activity, 'bodyBytes' | 'control' | 'look'> => ({
  bodyBytes: 0,
  control: 0,
  look: { at, useful: 0, bytesRead: 0, overhead: 0 },
})

/**
 * Frames cost work also when they carry nothing, and OpenSSL and nghttp2 take any number of some. A request may be as
 * large as its bound, and whoever takes a large answer says so in many small frames.
 */
function isOverhead(activity: Activity, at: number): boolean {
  const { socket, count, bodyBytes, look } = activity
  const useful = bodyBytes + count * limits.headBytesMax + socket.bytesWritten / 16
  const overhead =
    look.overhead +
    (socket.bytesRead - look.bytesRead) -
    (useful - look.useful) -
    ((at - look.at) * limits.overheadBytesPerSecond) / 1_000
  activity.control = 0
  activity.look = { at, useful, bytesRead: socket.bytesRead, overhead: Math.max(0, overhead) }
  return overhead > limits.overheadBytesMax
}

interface Opened {
  flags: number
  rawHeaders: string[]
  socket: Socket
  activity: Activity
}

const sessionOptions = {
  settings: {
    enablePush: false,
    maxConcurrentStreams: limits.streamsPerConnectionMax,
    initialWindowSize: limits.streamWindowBytes,
    maxHeaderListSize: limits.headBytesMax,
  },
  maxHeaderListPairs: limits.headerListPairsMax,
  maxSessionInvalidFrames: limits.invalidFramesMax,
  maxSessionRejectedStreams: limits.rejectedStreamsMax,
  // An upstream's answer goes on as it is over HTTP/1.1 too.
  strictSingleValueFields: false,
}

/** The HTTP/1.1 message that a stream stands for (RFC 9113 §8.3): the one form in which requests are judged. */
export function toRaw(received: string[], endsHere: boolean, peer: string): RawRequest {
  const pseudo: Record<string, string> = {}
  const headers: string[] = []
  const cookies: string[] = []
  const hosts: string[] = []
  let hasLength = false
  for (let i = 0; i < received.length; i += 2) {
    const name = received[i] ?? ''
    const value = received[i + 1] ?? ''
    if (name.startsWith(':')) pseudo[name] = value
    else if (name === 'host') hosts.push(value)
    // RFC 9113 §8.2.3: split for compression, one field for everybody else.
    else if (name === 'cookie') cookies.push(value)
    else {
      hasLength ||= name === 'content-length'
      headers.push(name, value)
    }
  }
  const { ':method': method = '', ':path': path = '', ':authority': authority, ':scheme': scheme } = pseudo
  const named = authority ?? hosts[0]
  if (named !== undefined) headers.unshift('host', named)
  if (cookies.length > 0) headers.push('cookie', cookies.join('; '))
  if (!endsHere && !hasLength) headers.push('transfer-encoding', 'chunked')
  const raw: RawRequest = { method, target: path, version: '1.1', headers, peer, secure: true }
  if (hosts.some((host) => host.toLowerCase() !== named?.toLowerCase()))
    raw.fault = 'the Host field is not the authority'
  else if (method !== 'CONNECT' && scheme !== 'https') raw.fault = 'the scheme is not that of the connection'
  else if (method !== 'CONNECT' && !path.startsWith('/')) raw.fault = 'the request target is no path'
  return raw
}

/** The fields that the runtime itself looks at, by name; the first of each. */
function toFields(headers: string[]): IncomingHttpHeaders {
  const fields: IncomingHttpHeaders = Object.create(null)
  for (let i = 0; i < headers.length; i += 2) fields[headers[i] ?? ''] ??= headers[i + 1]
  return fields
}

/** What a client sends on a stream. Nothing is taken from the stream before somebody reads. */
class StreamRequest extends Readable {
  readonly httpVersion = '2.0'
  readonly headers: IncomingHttpHeaders
  /** The connection, which other streams share: only to be looked at. */
  readonly socket: Socket
  complete: boolean
  bytesRead = 0
  readonly #stream: ServerHttp2Stream
  readonly #activity: Activity
  #started = false

  constructor(
    stream: ServerHttp2Stream,
    {
      socket,
      endsHere,
      headers,
      activity,
    }: { socket: Socket; endsHere: boolean; headers: IncomingHttpHeaders; activity: Activity },
  ) {
    super()
    this.#stream = stream
    this.#activity = activity
    this.socket = socket
    this.headers = headers
    this.complete = endsHere
    this.on('error', () => {})
    const leave = (): void => void (this.complete || this.destroy(reset()))
    stream.once('aborted', leave)
    stream.once('close', leave)
  }

  override _read(): void {
    const stream = this.#stream
    if (this.#started) return void stream.resume()
    this.#started = true
    stream.on('data', (chunk: Buffer) => {
      this.bytesRead += chunk.length
      this.#activity.bodyBytes += chunk.length
      if (!this.push(chunk)) stream.pause()
    })
    stream.once('end', () => {
      // A stream that was reset ends too, and what came is not the whole.
      if (!this.complete && (stream.closed || stream.aborted)) return void this.destroy(reset())
      this.complete = true
      this.push(null)
    })
  }
}

const reset = (): Error => Object.assign(new Error('the stream was reset'), { code: 'ECONNRESET' })

/** The answer on a stream. Destroyed before its end, it resets the stream: a cut answer never looks whole. */
class StreamResponse extends Writable implements NodeResponse {
  shouldKeepAlive = true
  #head: string[] | undefined
  #sent = false
  #taken = 0
  readonly #stream: ServerHttp2Stream
  readonly #request: StreamRequest

  constructor(stream: ServerHttp2Stream, request: StreamRequest) {
    super()
    this.#stream = stream
    this.#request = request
    this.on('error', () => {})
    // While something is unread a stream that was reset stays open, so its 'close' is not waited for.
    stream.once('aborted', () => this.destroy())
    stream.once('close', () => this.destroy())
  }

  get headersSent(): boolean {
    return this.#head !== undefined
  }

  /** For `progress.ts`, which measures streams as it does connections. */
  get bytesRead(): number {
    return this.#request.bytesRead
  }

  get bytesWritten(): number {
    return this.#taken + this.writableLength
  }

  writeHead(status: number, headers: string[]): void {
    this.#head = [':status', String(status)]
    for (let i = 0; i < headers.length; i += 2) {
      const name = (headers[i] ?? '').toLowerCase()
      // RFC 9113 §8.2.2
      if (!connectionFields.has(name)) this.#head.push(name, headers[i + 1] ?? '')
    }
  }

  flushHeaders(): void {
    this.#sendHead(false)
  }

  writeContinue(): void {
    if (!this.#sent && !this.#stream.closed && !this.#stream.destroyed)
      this.#stream.additionalHeaders({ ':status': 100 })
  }

  writeInformation(status: number, headers: string[]): void {
    if (this.#sent || this.#stream.closed || this.#stream.destroyed) return
    const fields = Object.assign<Record<string, string | string[]>, object>(Object.create(null), { ':status': status })
    for (let i = 0; i < headers.length; i += 2) {
      const [name, value] = [(headers[i] ?? '').toLowerCase(), headers[i + 1] ?? '']
      if (connectionFields.has(name)) continue
      const known = fields[name]
      fields[name] = known === undefined ? value : [known, value].flat()
    }
    try {
      this.#stream.additionalHeaders(fields)
    } catch {
      // A field that HTTP/2 cannot carry: the answer itself is what counts.
    }
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (!this.#sendHead(false)) return callback(reset())
    this.#stream.write(chunk, (error) => {
      this.#taken += chunk.length
      callback(error)
    })
  }

  override _final(callback: (error?: Error | null) => void): void {
    const stream = this.#stream
    if (!this.#sent) {
      if (!this.#sendHead(true)) return callback(reset())
      // On its way only then: closing the stream before (`_destroy`) would take the head along.
      return void setImmediate(callback)
    }
    if (stream.closed || stream.destroyed) return callback(reset())
    stream.end(() => callback())
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const stream = this.#stream
    if (!stream.closed && !stream.destroyed) {
      // Destroyed, and not closed: closing would end it cleanly first. What was sent before is on its way by then.
      if (!this.writableFinished) setImmediate(() => stream.destroy(reset()))
      // RFC 9113 §8.1: the answer is whole, and what the client still sends is wanted by nobody.
      else if (!this.#request.complete) stream.close(constants.NGHTTP2_NO_ERROR)
    }
    callback(error)
  }

  /** False when there is nothing any more to send it on. */
  #sendHead(endStream: boolean): boolean {
    if (this.#sent) return !this.#stream.closed && !this.#stream.destroyed
    if (this.#stream.closed || this.#stream.destroyed) return false
    this.#sent = true
    try {
      this.#stream.respond(this.#head ?? [':status', '500'], { endStream })
      return true
    } catch {
      // A field that HTTP/2 cannot carry.
      this.#stream.destroy(reset())
      return false
    }
  }
}

const connectionFields: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])
