import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { toClientHeaders } from '../actions/headers.ts'
import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { limits } from '../limits.ts'
import type { ProxyPlan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import type { Finish, NodeIo } from './exchange-io.ts'
import { forward } from './forward.ts'
import type { Join } from './forward.ts'
import type { Pool } from './pool.ts'

/** A WebSocket whose two connections are joined. */
export interface Tunnel {
  /** What it was joined by. */
  exchange: Exchange
  /** Tells both sides why the gateway closes it (RFC 6455 §7.4.1, and 1012 of IANA's registry), and closes. */
  sayGoodbye(why: 'goingAway' | 'serviceRestart'): void
}

/**
 * Lets a WebSocket through (RFC 6455 §4): the handshake goes the way of every request; only when the upstream has
 * agreed with 101 and the right key are the two connections joined. Until then not a byte of the client passes.
 */
export function joinWebSocket(plan: ProxyPlan, io: NodeIo, pool: Pool, finish: Finish, tunnels: Set<Tunnel>): void {
  const key = fieldValue(plan.exchange.headers, 'sec-websocket-key')
  if (!io.upgrade || key === undefined) return forward(plan, io, pool, finish)
  const client = io.upgrade.socket
  const early = collect(client, io.upgrade.head)

  const agree: Join = (socket, received, server) => {
    if (fieldValue(received, 'sec-websocket-accept') !== toAccept(key)) return false
    if (fieldValue(received, 'upgrade')?.toLowerCase() !== 'websocket') return false
    early.stop()
    const headers = toClientHeaders(plan.exchange, plan.response, 101, received)
    join({ plan, client, head: early.bytes(), socket, headers, finish, tunnels, server })
    return true
  }
  forward(plan, io, pool, finish, { join: agree })
}

/** Reads what a client says too early, so that it is noticed when it leaves; keeps only so much of it. */
function collect(client: Duplex, head: Buffer): { bytes(): Buffer; stop(): void } {
  const chunks = [head]
  let left = earlyBytesMax - head.length
  const add = (chunk: Buffer): void => {
    chunks.push(chunk)
    left -= chunk.length
    if (left < 0) client.pause()
  }
  const leave = (): void => void client.destroy()
  client.on('data', add)
  client.once('end', leave)
  return {
    bytes: () => Buffer.concat(chunks),
    stop: () => {
      client.off('data', add)
      client.off('end', leave)
    },
  }
}

const earlyBytesMax = 65_536

interface Joining {
  plan: ProxyPlan
  client: Duplex
  head: Buffer
  socket: Duplex
  headers: string[]
  finish: Finish
  tunnels: Set<Tunnel>
  server: string
}

/** Joins the two connections until one closes or both have been silent for the row's `idleMs`. */
function join({ plan, client, head, socket, headers, finish, tunnels, server }: Joining): void {
  let bytes = 0
  let end: Outcome['end'] = 'done'
  let lingering: NodeJS.Timeout | undefined
  const lines = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: websocket']
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`)
  client.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  if (head.length > 0) socket.write(head)

  const close = (): void => {
    client.destroy()
    socket.destroy()
  }
  const closeSoon = (): void => {
    lingering ??= setTimeout(close, limits.websocketLingerMs)
  }
  const idle = setTimeout(() => {
    end = 'stalled'
    close()
  }, plan.idleMs)
  client.on('data', () => idle.refresh())
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    idle.refresh()
  })
  // Each passes its end on, behind all that it has said before.
  client.pipe(socket)
  socket.pipe(client)
  for (const [side, other] of [
    [client, socket],
    [socket, client],
  ] as const) {
    side.on('error', () => {})
    side.once('end', closeSoon)
    side.once('close', () => (side.readableEnded ? closeSoon() : other.destroy()))
  }

  const tunnel: Tunnel = {
    exchange: plan.exchange,
    sayGoodbye: (why) => {
      // It has been said.
      if (!tunnels.delete(tunnel)) return
      // What they still say is thrown away, so that it is noticed when they have answered and left.
      client.unpipe().resume()
      socket.unpipe().resume()
      client.end(toClose(closeCodes[why]))
      socket.end(toMaskedClose(closeCodes[why]))
      closeSoon()
    },
  }
  tunnels.add(tunnel)
  client.once('close', () => {
    clearTimeout(idle)
    tunnels.delete(tunnel)
    finish(plan, { status: 101, bytes, end, server })
  })
}

const closeCodes = { goingAway: 1_001, serviceRestart: 1_012 } as const

/** A Close frame (RFC 6455 §5.5.1); towards servers frames are masked, here with zeros. */
const toClose = (code: number): Buffer => Buffer.from([0x88, 0x02, code >> 8, code & 0xff])
const toMaskedClose = (code: number): Buffer => Buffer.from([0x88, 0x82, 0, 0, 0, 0, code >> 8, code & 0xff])

/** RFC 6455 §4.2.2. */
const toAccept = (key: string): string =>
  createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
