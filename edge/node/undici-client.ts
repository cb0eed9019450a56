import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { buildConnector, Client } from 'undici'
import type { Dispatcher } from 'undici'
import { limits } from '../limits.ts'
import { UpstreamError } from './upstream-client.ts'
import type { AnswerHandler, UpstreamClient, UpstreamErrorCode, UpstreamRequest } from './upstream-client.ts'
import type { ServerAddress } from './upstream-connection.ts'

/** A connection by undici: for handshakes of WebSockets, and for upstreams of which the table says so. */
export function openUndiciClient({ url, connectTimeoutMs, lookup }: ServerAddress): UpstreamClient {
  const connect = buildConnector({ timeout: connectTimeoutMs, ...(lookup && { lookup }) })
  let socket: Socket | undefined
  const client = new Client(url.origin, {
    pipelining: 1,
    connect: (options, callback) =>
      connect(options, (...result) => {
        socket = result[1] ?? undefined
        callback(...result)
      }),
    keepAliveTimeout: limits.upstreamIdleMs,
    maxHeaderSize: limits.upstreamHeaderBytesMax,
    strictContentLength: true,
  })
  const hasFailed = (): boolean => socket?.errored != null

  return {
    // It opens a new connection by itself when the last one is gone.
    isUsable: () => true,
    dispatch: (request, handler) => void client.dispatch(toOptions(request), toDispatchHandler(handler, hasFailed)),
    close: () => client.close(),
    destroy: (error) => void client.destroy(error ?? null),
  }
}

function toOptions({ method, path, headers, contentLength, body, readTimeoutMs, upgrade }: UpstreamRequest) {
  return {
    path,
    method: method as Dispatcher.HttpMethod,
    headers: contentLength === null ? headers : [...headers, 'content-length', String(contentLength)],
    body,
    // One request at a time on each connection: none waits for this one's answer to begin.
    blocking: false,
    headersTimeout: readTimeoutMs,
    bodyTimeout: readTimeoutMs,
    upgrade: upgrade ? 'websocket' : null,
  }
}

function toDispatchHandler(handler: AnswerHandler, hasFailed: () => boolean): Dispatcher.DispatchHandler {
  return {
    onRequestStart: (controller) => handler.onRequestStart(controller),
    onResponseStart: (controller, status) => handler.onResponseStart(controller, status, toText(controller.rawHeaders)),
    onResponseData: (controller, chunk) => handler.onResponseData(controller, chunk),
    onResponseEnd: () => {
      // An answer without a length ends with its connection: undici takes a reset for such an end too.
      if (hasFailed()) handler.onResponseError(connectionReset)
      else handler.onResponseEnd()
    },
    onResponseError: (_controller, error) => handler.onResponseError(toUpstreamError(error)),
    onRequestUpgrade: (controller, status, _headers, socket: Duplex) =>
      handler.onRequestUpgrade(status, toText(controller.rawHeaders), socket),
  }
}

/** Field lines as text, byte for byte (RFC 9110 §5.5: obs-text is opaque). */
function toText(raw: Dispatcher.DispatchController['rawHeaders']): string[] {
  const headers: string[] = []
  if (Array.isArray(raw))
    for (const part of raw) headers.push(typeof part === 'string' ? part : part.toString('latin1'))
  return headers
}

/** Its errors in our words; those of the system, and our own that come back from it, as they are. */
function toUpstreamError(error: Error): Error {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const known = error.message === 'bad upgrade' ? 'malformed' : codes[code]
  if (known) return new UpstreamError(known, error.message, { cause: error })
  return /^(UND_ERR|HPE)_/.test(code) ? new UpstreamError('malformed', error.message, { cause: error }) : error
}

const codes: Record<string, UpstreamErrorCode> = {
  UND_ERR_CONNECT_TIMEOUT: 'connect_timeout',
  UND_ERR_HEADERS_TIMEOUT: 'silent',
  UND_ERR_BODY_TIMEOUT: 'stalled',
  UND_ERR_HEADERS_OVERFLOW: 'head_too_large',
  UND_ERR_SOCKET: 'closed',
  UND_ERR_DESTROYED: 'closed',
}

const connectionReset: Error = Object.assign(new Error('the upstream reset its connection'), { code: 'ECONNRESET' })
