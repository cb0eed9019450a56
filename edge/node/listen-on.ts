import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { BoundSocket } from 'node:net'
import type { Server } from 'node:net'
import { UsageError } from './config.ts'

/** An address, or a socket that is bound to one. */
export type ListenOn = Address | { descriptor: number }

interface Address {
  host: string
  port: number
}

/** Rejects with a UsageError when the address cannot be had. */
export async function listen(server: Server, on: ListenOn): Promise<void> {
  try {
    server.listen({ ...('descriptor' in on ? { fd: on.descriptor } : on), backlog: 4_096 })
    await once(server, 'listening')
  } catch (error) {
    throw 'descriptor' in on ? error : toListenError(error, on)
  }
}

/** A socket that takes nothing itself: whoever is given it does. */
export interface Bound {
  descriptor: number
  /** When nobody else has it either, nothing can connect any more. */
  close(): void
}

/** Rejects with a UsageError when the address cannot be had. */
export async function bind(on: ListenOn): Promise<Bound> {
  // Whoever has opened it keeps it open, for a next process.
  if ('descriptor' in on) return { ...on, close: () => {} }
  try {
    const { address } = await lookup(on.host)
    const socket = new BoundSocket({ host: address, port: on.port })
    return { descriptor: socket.fd(), close: () => socket.close() }
  } catch (error) {
    throw toListenError(error, on)
  }
}

export function toListenError(error: unknown, { host, port }: Address): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  const reason: Record<string, string> = {
    EADDRINUSE: 'another program listens there already; stop it or choose another port',
    EACCES: 'this user may not; choose a port from 1024 up, or give the program CAP_NET_BIND_SERVICE',
    EADDRNOTAVAIL: 'this machine has no such address',
  }
  return typeof code === 'string' && reason[code]
    ? new UsageError(`cannot listen on ${host}:${port}: ${reason[code]}`, { cause: error })
    : error
}
