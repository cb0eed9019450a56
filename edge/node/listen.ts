import { createServer, ServerResponse } from 'node:http'
import type { IncomingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import { toErrorBody } from '../error.ts'
import type { Refusal } from '../error.ts'
import type { RawRequest } from '../exchange.ts'
import { limits } from '../limits.ts'
import type { NodeIo } from './exchange-io.ts'
import { watchProgress } from './progress.ts'

/** What a listener hands on: a request as it was received, and what to answer it on. */
export type Handle = (raw: RawRequest, io: NodeIo) => void

/** Bytes that were no request were answered and the connection closed. */
export type OnMalformed = (refusal: Refusal & { status: number }, requestId: string, peer: string) => void

/**
 * The HTTP/1.1 listener: Node's strict parser with every bound set. What the parser lets through and a gateway must
 * not is refused when the request is identified (`exchange.ts`), so that both runtimes refuse the same.
 */
export function createListener(handle: Handle, onMalformed: OnMalformed): Server {
  const server = createServer({
    requireHostHeader: false, // refused with our own answer
    maxHeaderSize: limits.headerBytesMax,
    headersTimeout: limits.headTimeoutMs,
    requestTimeout: 0, // bodies are watched by their rate (progress.ts)
    connectionsCheckingInterval: 2_000,
    keepAliveTimeout: limits.clientIdleMs,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
    optimizeEmptyRequests: true,
    rejectNonStandardBodyWrites: false,
    insecureHTTPParser: false,
    shouldUpgradeCallback: isWebSocketHandshake,
  })
  server.maxHeadersCount = limits.headerCountMax
  server.maxRequestsPerSocket = limits.requestsPerConnectionMax
  watchProgress(server)

  server.on('request', (request, response) => handle(toRaw(request), { request, response, upgrade: undefined }))
  server.on('checkContinue', (request, response) => handle(toRaw(request), { request, response, upgrade: undefined }))
  server.on('checkExpectation', (request, response) =>
    handle(toRaw(request), { request, response, upgrade: undefined }),
  )
  server.on('upgrade', (request, socket, head) => handleUpgrade(request, socket, head, handle))
  server.on('connect', (request, socket, head) => handleUpgrade(request, socket, head, handle))
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => refuseMalformed(error, socket, onMalformed))
  return server
}

/** RFC 6455 §4.1: a GET without a body. Every other upgrade is ignored, and the request served as if it asked for none. */
const isWebSocketHandshake = ({ method, headers }: IncomingMessage): boolean =>
  method === 'GET' &&
  headers.upgrade?.toLowerCase() === 'websocket' &&
  headers['content-length'] === undefined &&
  headers['transfer-encoding'] === undefined

function toRaw(request: IncomingMessage): RawRequest {
  const { socket } = request
  return {
    method: request.method ?? '',
    target: request.url ?? '',
    version: request.httpVersion,
    headers: request.rawHeaders,
    peer: socket.remoteAddress ?? '',
    secure: 'encrypted' in socket,
  }
}

/** An upgrade is answered like every request until somebody agrees to it: on a response of its own, then closed. */
function handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, handle: Handle): void {
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket as Socket)
  response.once('finish', () => {
    response.detachSocket(socket as Socket)
    socket.end(() => socket.destroy())
    response.emit('close')
  })
  socket.on('error', () => socket.destroy())
  handle(toRaw(request), { request, response, upgrade: { socket, head } })
}

/** Answers bytes that are no request (RFC 9112 §2.2), then closes. */
function refuseMalformed(error: NodeJS.ErrnoException, socket: Duplex, onMalformed: OnMalformed): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const { status, ...refusal } = toParserRefusal(error.code ?? '')
  const requestId = randomUUID()
  const { type, body } = toErrorBody('problem', refusal, { requestId, route: undefined })
  const head = `HTTP/1.1 ${status} ${reasons[status] ?? 'Bad Request'}\r\nContent-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nX-Request-Id: ${requestId}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n`
  socket.end(head + body, () => socket.destroy())
  onMalformed({ ...refusal, status }, requestId, (socket as Socket).remoteAddress ?? '')
}

const reasons: Record<number, string> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
}

function toParserRefusal(code: string): Refusal & { status: number } {
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
  return { status: 400, code: 'malformed_request', detail: 'the request is not valid HTTP/1.1' }
}
