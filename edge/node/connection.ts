import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { toErrorBody } from '../error.ts'
import type { Refusal } from '../error.ts'
import { limits } from '../limits.ts'
import { ClientResponse } from './client-response.ts'
import type { NodeIo } from './exchange-io.ts'
import { closeGently } from './linger.ts'

/** Bytes that were no request were answered and the connection closed. */
export type OnMalformed = (refusal: Refusal & { status: number }, requestId: string, peer: string) => void

/**
 * The clients' connections. Requests of one connection are served one at a time, in their order: whoever sends many at
 * once waits for himself, and nothing is served behind a request that closes the connection (RFC 9112 §9.3.2, §9.6).
 */
export interface Connections {
  open(socket: Socket): { readonly current: NodeIo | undefined }
  serve(request: IncomingMessage, response: ClientResponse): void
  /** A handshake is answered like every request until somebody agrees to it: on a response of its own, then closed. */
  serveUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  /** The parser could not read the connection's bytes. */
  refuse(error: NodeJS.ErrnoException, socket: Duplex): void
}

/** A request of HTTP/1.1. */
interface SocketIo extends NodeIo {
  request: IncomingMessage
  response: ClientResponse
}

interface Connection {
  /** The request that is being served, or was last. */
  current: SocketIo | undefined
  /** Requests that came on it. */
  count: number
  /** Requests that wait for their turn. */
  waiting: number
  /** What comes can no longer be read. */
  broken: boolean
}

export function createConnections(handle: (io: SocketIo) => void, onMalformed: OnMalformed): Connections {
  const connections = new WeakMap<Duplex, Connection>()

  function open(socket: Socket): Connection {
    const connection: Connection = { current: undefined, count: 0, waiting: 0, broken: false }
    connections.set(socket, connection)
    socket.on('end', () => onHalfClose(socket, connection.current))
    return connection
  }

  function serve(request: IncomingMessage, response: ClientResponse): void {
    const connection = connections.get(request.socket)
    // Without an end to write to, the connection is being closed.
    if (!connection || !request.socket.writable) return
    if (++connection.count >= limits.requestsPerConnectionMax) response.shouldKeepAlive = false
    const io = toIo(request, response)
    // A response that has no socket yet stands behind another one.
    if (response.socket === null) return waitForTurn(connection, io)
    connection.current = io
    handle(io)
  }

  function waitForTurn(connection: Connection, io: SocketIo): void {
    const { socket } = io.request
    if (++connection.waiting === limits.pipelinedMax) holdBack(socket)
    io.response.once('socket', () => {
      if (connection.waiting-- === limits.pipelinedMax) letGo(socket)
      connection.current = io
      handle(io)
    })
  }

  function serveUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const connection = connections.get(request.socket)
    // Node has taken its own listener away, and the answer before may be failing right now.
    socket.on('error', () => socket.destroy())
    // It is being closed: what comes is thrown away, this request and what stands behind it.
    if (!socket.writable) return void socket.resume()
    const before = connection?.current
    // Nobody who means well asks for another protocol before his last request is answered.
    if (!connection || connection.waiting > 0 || (before && !before.response.destroyed)) return void socket.destroy()
    const response = new ClientResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(socket as Socket)
    response.once('finish', () => {
      response.detachSocket(socket as Socket)
      socket.resume()
      closeGently(socket)
      response.emit('close')
    })
    // The parser that has passed this on is no longer there.
    socket.on('drain', () => response.emit('drain'))
    connection.current = { ...toIo(request, response), upgrade: { socket, head } }
    handle(connection.current)
  }

  function refuse(error: NodeJS.ErrnoException, socket: Duplex): void {
    const connection = connections.get(socket)
    const refusal = toParserRefusal(error.code ?? '')
    if (!refusal || !connection) return void socket.destroy()
    // Whatever else comes is as unreadable, and is told here again.
    if (connection.broken) return
    connection.broken = true
    refuseInTurn(refusal, socket as Socket, connection)
  }

  /** An answer never overtakes those that are owed before it, and never stands inside another one. */
  function refuseInTurn(refusal: Refusal & { status: number }, socket: Socket, connection: Connection): void {
    const io = connection.current
    if (!socket.writable) return
    if (io && !io.request.complete) {
      if (io.response.destroyed) return void socket.destroy()
      io.malformed = refusal
      io.onMalformed?.()
    } else if (io && !io.response.destroyed) io.response.once('close', () => refuseInTurn(refusal, socket, connection))
    else sendRefusal(refusal, socket, onMalformed)
  }

  return { open, serve, serveUpgrade, refuse }
}

const toIo = (request: IncomingMessage, response: ClientResponse): SocketIo => ({
  request,
  response,
  upgrade: undefined,
  malformed: undefined,
  onMalformed: undefined,
  stalled: false,
})

/** Stops reading until `letGo`. The parser resumes the socket behind every message; this stops it again. */
function holdBack(socket: Socket): void {
  socket.pause()
  socket.on('resume', pause)
}

function letGo(socket: Socket): void {
  socket.off('resume', pause)
  socket.resume()
}

function pause(this: Socket): void {
  this.pause()
}

/**
 * A FIN comes from clients that are gone and from those that have only said all they had to say. Before the answer they
 * are told apart by asking; while a stream of unknown length runs, a FIN is taken for leaving.
 */
function onHalfClose(socket: Socket, io: SocketIo | undefined): void {
  if (!io || io.upgrade || io.response.destroyed || io.response.socket !== socket) return
  if (!io.response.headersSent) {
    if (io.request.httpVersion === '1.1') askWhetherGone(io.response, firstAskMs)
  } else if (io.response.isChunked && !io.response.writableEnded) socket.destroy()
}

/** Who is gone answers an interim response (RFC 9110 §15.2) with a reset, which the next one runs into. */
function askWhetherGone(response: ClientResponse, againMs: number): void {
  if (response.headersSent || response.destroyed) return
  response.writeContinue()
  setTimeout(askWhetherGone, againMs, response, againMs * 4).unref()
}

const firstAskMs = 20

function sendRefusal({ status, ...refusal }: Refusal & { status: number }, socket: Socket, tell: OnMalformed): void {
  const requestId = randomUUID()
  const { type, body } = toErrorBody('problem', refusal, { requestId, route: undefined })
  const head = `HTTP/1.1 ${status} ${reasons[status] ?? 'Bad Request'}\r\nContent-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nX-Request-Id: ${requestId}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n`
  closeGently(socket, head + body)
  tell({ ...refusal, status }, requestId, socket.remoteAddress ?? '')
}

const reasons: Record<number, string> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
}

/** What the parser's error is to the client; undefined when it was the connection that failed. */
function toParserRefusal(code: string): (Refusal & { status: number }) | undefined {
  if (code === 'HPE_HEADER_OVERFLOW')
    return {
      status: 431,
      code: 'header_too_large',
      detail: 'the request head is too large',
      limit: { name: 'headerBytesMax', value: limits.headerBytesMax },
    }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return {
      status: 408,
      code: 'request_timeout',
      detail: 'the request head took too long',
      limit: { name: 'headTimeoutMs', value: limits.headTimeoutMs },
    }
  if (!code.startsWith('HPE_')) return undefined
  return { status: 400, code: 'malformed_request', detail: 'the request is not valid HTTP/1.1' }
}
