import { Socket } from 'node:net'
import type { Server } from 'node:net'
import { TLSSocket } from 'node:tls'
import { isInNetwork, readAddress } from '../address.ts'
import type { Network } from '../address.ts'
import { limits } from '../limits.ts'
import { readProxyHeader } from './proxy-header.ts'

/** Why a connection was closed before anything of it was read as a request. */
export type ProxyFault = 'proxy_untrusted' | 'proxy_malformed' | 'proxy_timeout'

export interface ProxyProtocolOptions {
  /** The proxies that may connect. */
  hops: Network[]
  onFault(fault: ProxyFault, peer: string): void
  timeoutMs?: number | undefined
}

/**
 * From now on every connection to the server begins with a header of the PROXY protocol, from one of the declared hops,
 * and is taken for the client's that the header names. Anything else is closed: a listener that took both would believe
 * whoever writes such a header himself.
 */
export function requireProxyHeader(server: Server, options: ProxyProtocolOptions): void {
  const listeners = server.listeners('connection')
  const accept = (socket: Socket): void => {
    for (const listener of listeners) listener.call(server, socket)
  }
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => {
    // Handed over by the TLS listener, which has read the header.
    if (socket instanceof TLSSocket) return accept(socket)
    awaitHeader(socket, options, (client) => {
      if (client !== undefined) setPeer(socket, client)
      accept(socket)
    })
  })
}

function awaitHeader(
  socket: Socket,
  { hops, onFault, timeoutMs = limits.proxyHeaderTimeoutMs }: ProxyProtocolOptions,
  done: (client: string | undefined) => void,
): void {
  const peer = socket.remoteAddress ?? ''
  const address = readAddress(peer)
  let bytes = Buffer.alloc(0)
  const timer = setTimeout(() => refuse('proxy_timeout'), timeoutMs)

  function look(): void {
    const chunk = socket.read() as Buffer | null
    if (chunk === null) return
    bytes = Buffer.concat([bytes, chunk])
    const read = readProxyHeader(bytes)
    if (read.kind === 'more') return
    if (read.kind === 'malformed') return refuse('proxy_malformed')
    forget()
    const rest = bytes.subarray(read.bytes)
    if (rest.length > 0) socket.unshift(rest)
    done(read.client)
  }

  function refuse(fault: ProxyFault): void {
    forget()
    socket.destroy()
    onFault(fault, address?.text ?? peer)
  }

  /** Whoever leaves before a byte has only looked whether the port is open. */
  function leave(): void {
    if (bytes.length > 0) return refuse('proxy_malformed')
    forget()
    socket.destroy()
  }

  function forget(): void {
    clearTimeout(timer)
    socket.off('readable', look).off('end', leave).off('close', leave)
  }

  socket.on('error', () => socket.destroy())
  // Gone already: many proxies look whether a port is open with a connection that they reset at once.
  if (peer === '') return leave()
  if (!address || !hops.some((hop) => isInNetwork(address, hop))) return refuse('proxy_untrusted')
  socket.on('readable', look)
  socket.once('end', leave)
  socket.once('close', leave)
}

/** From here on the connection is known as this client's. */
function setPeer(socket: Socket, client: string): void {
  Object.defineProperty(socket, 'remoteAddress', { value: client })
}

/** A TLS connection is the client's whose the one below it is. */
export function passPeer(from: Socket, to: Socket): void {
  if (Object.hasOwn(from, 'remoteAddress')) setPeer(to, from.remoteAddress ?? '')
}

/** The address at the other end, whatever a header said. */
export const connectedAddress = (socket: Socket): unknown => Reflect.get(Socket.prototype, 'remoteAddress', socket)
