import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import type { SecureContextOptions, Server as TlsServer, TLSSocket } from 'node:tls'
import { limits } from '../limits.ts'
import { readServerName } from './client-hello.ts'
import { connectedAddress, passPeer } from './proxy-protocol.ts'

export interface TlsListenerOptions {
  /** What the site that a client names shows it; undefined when it names none. */
  contextFor(name: string | undefined): SecureContextOptions
  /** Takes a connection on which HTTP/1.1 is spoken. */
  http1(socket: TLSSocket): void
  /** Takes a connection on which HTTP/2 is spoken. */
  http2(socket: TLSSocket): void
  handshakeTimeoutMs?: number
}

export interface TlsListener {
  server: Server
  /** Connections that did not get through their handshake. */
  failures(): number
  /** Connections on which no handshake is done yet. */
  handshakes(): number
  /** Closes those. */
  closeHandshakes(): void
}

/**
 * Ends TLS. The name that the client asks for is read before OpenSSL sees a byte, so that each site has a TLS
 * server of its own from the start: its certificate, and keys for tickets that no other site takes. With no callback
 * into the handshake, none can throw or forget to answer.
 */
export function createTlsListener(options: TlsListenerOptions): TlsListener {
  const { contextFor, http1, http2, handshakeTimeoutMs = limits.handshakeTimeoutMs } = options
  const underway = new Map<string, Handshake>()
  /** A closed connection no longer knows its addresses. */
  const ids = new WeakMap<Socket, string>()
  const sites = new WeakMap<SecureContextOptions, TlsServer>()
  let failures = 0

  const server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 }, (socket) => {
    const id = toId(socket)
    const timer = setTimeout(() => fail(id, socket), handshakeTimeoutMs)
    underway.set(id, { socket, timer })
    ids.set(socket, id)
    socket.on('error', () => {})
    socket.once('close', () => fail(id, socket))
    readHello(socket, (name) => {
      try {
        siteOf(contextFor(name)).emit('connection', socket)
      } catch {
        fail(id, socket)
      }
    })
  })

  /** A socket that TLS has taken over may never say that it is closed, so each way to fail comes here. */
  function fail(id: string, socket: Socket): void {
    const handshake = underway.get(id)
    if (handshake?.socket !== socket) return
    clearTimeout(handshake.timer)
    underway.delete(id)
    failures++
    socket.destroy()
  }

  function siteOf(context: SecureContextOptions): TlsServer {
    const known = sites.get(context)
    if (known) return known
    const site = createTlsServer({
      ...context,
      ALPNProtocols: ['h2', 'http/1.1'],
      handshakeTimeout: handshakeTimeoutMs,
    })
    site.on('secureConnection', begin)
    // At once where Node tells which connection it was; else when the time for its handshake is over.
    site.on('tlsClientError', (_error, { _parent: socket }: TLSSocket & { _parent?: Socket }) => {
      if (socket) fail(ids.get(socket) ?? '', socket)
    })
    sites.set(context, site)
    return site
  }

  function begin(secure: TLSSocket): void {
    const id = toId(secure)
    const handshake = underway.get(id)
    if (!handshake) return void secure.destroy()
    underway.delete(id)
    clearTimeout(handshake.timer)
    passPeer(handshake.socket, secure)
    // Who ends during the handshake is gone; behind a request it may mean that all is said (`connection.ts`).
    secure.allowHalfOpen = true
    // For the sign that HTTP/1.0 has for a broken answer; a TLS connection has no such method of its own.
    secure.resetAndDestroy = () => {
      handshake.socket.resetAndDestroy()
      return secure.destroy()
    }
    if (secure.alpnProtocol === 'h2') http2(secure)
    else http1(secure)
  }

  return {
    server,
    failures: () => failures,
    handshakes: () => underway.size,
    closeHandshakes: () => {
      for (const [id, { socket }] of underway) fail(id, socket)
    },
  }
}

/** Waits for the client's first message and puts it back, to be read again by OpenSSL. */
function readHello(socket: Socket, done: (name: string | undefined) => void): void {
  let bytes = Buffer.alloc(0)
  function look(): void {
    const chunk = socket.read() as Buffer | null
    if (chunk === null) return
    bytes = Buffer.concat([bytes, chunk])
    const read = readServerName(bytes)
    if (read.kind === 'more' && bytes.length <= limits.clientHelloBytesMax) return
    socket.off('readable', look)
    socket.off('end', leave)
    socket.unshift(bytes)
    done(read.kind === 'name' ? read.name : undefined)
  }
  const leave = (): void => void socket.destroy()
  socket.on('readable', look)
  socket.once('end', leave)
}

interface Handshake {
  socket: Socket
  timer: NodeJS.Timeout
}

/** The same for a connection before and after its handshake. */
const toId = (socket: Socket): string =>
  `${String(connectedAddress(socket))} ${socket.remotePort} ${socket.localAddress}`
