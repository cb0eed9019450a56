import { createServer } from 'node:http'
import type { IncomingMessage, Server } from 'node:http'
import type { RawRequest } from '../exchange.ts'
import { limits } from '../limits.ts'
import { ClientResponse } from './client-response.ts'
import { createConnections } from './connection.ts'
import type { OnMalformed } from './connection.ts'
import type { NodeIo } from './exchange-io.ts'
import { createProgressWatch } from './progress.ts'

/** What a listener hands on: a request as it was received, and what to answer it on. */
export type Handle = (raw: RawRequest, io: NodeIo) => void

/**
 * The HTTP/1.1 listener: Node's strict parser with every bound set. What the parser lets through and a gateway must
 * not is refused when the request is identified (`exchange.ts`), so that both runtimes refuse the same.
 */
export function createListener(
  handle: Handle,
  onMalformed: OnMalformed,
  { headTimeoutMs = limits.headTimeoutMs as number, checkEveryMs = limits.headCheckMs as number } = {},
): Server {
  const server = createServer({
    ServerResponse: ClientResponse,
    requireHostHeader: false, // refused with our own answer
    maxHeaderSize: limits.headBytesMax,
    headersTimeout: headTimeoutMs,
    requestTimeout: 0, // bodies are watched by their rate (progress.ts)
    connectionsCheckingInterval: checkEveryMs,
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
  // A client may close its side and still wait for the answer (RFC 9112 §9.6); Node has it, its types do not.
  Object.assign(server, { httpAllowHalfOpen: true })

  const progress = createProgressWatch()
  const timer = setInterval(progress.look, limits.progressLookMs).unref()
  server.on('close', () => clearInterval(timer))

  const connections = createConnections((io) => handle(toRaw(io.request), io), onMalformed)
  server.on('connection', (socket) => progress.add(socket, connections.open(socket)))
  server.on('request', connections.serve)
  server.on('checkContinue', connections.serve)
  server.on('checkExpectation', connections.serve)
  server.on('upgrade', connections.serveUpgrade)
  server.on('connect', connections.serveUpgrade)
  server.on('clientError', connections.refuse)
  return server
}

/** RFC 6455 §4.1: a GET of HTTP/1.1 without a body. Every other upgrade is ignored, and the request served as if it asked for none. */
const isWebSocketHandshake = ({ method, httpVersion, headers }: IncomingMessage): boolean =>
  method === 'GET' &&
  httpVersion === '1.1' &&
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
