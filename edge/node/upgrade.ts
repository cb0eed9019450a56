import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Dispatcher } from 'undici'
import { toClientHeaders } from '../actions/headers.ts'
import type { Refusal } from '../error.ts'
import { fieldValue } from '../exchange.ts'
import { refuse } from '../gateway.ts'
import type { ProxyPlan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import { sendAnswer } from './answer.ts'
import type { Finish, NodeIo } from './exchange-io.ts'
import { forward, toText } from './forward.ts'
import type { Lease, Pool } from './pool.ts'
import { toUpstreamRefusal } from './upstream-error.ts'

/**
 * Lets a WebSocket through (RFC 6455 §4): the handshake goes the way of every request; only when the upstream has
 * agreed with 101 and the right key are the two connections joined. Until then not a byte of the client passes.
 */
export function joinWebSocket(plan: ProxyPlan, io: NodeIo, pool: Pool, finish: Finish, tunnels: Set<Duplex>): void {
  const { upgrade } = io
  const { exchange, upstream, target, headers, readTimeoutMs } = plan
  const key = fieldValue(exchange.headers, 'sec-websocket-key')
  const lease = upgrade && key !== undefined ? pool.take(upstream, true) : undefined
  if (!upgrade || key === undefined || !lease) return forward(plan, io, pool, finish)
  const client = upgrade.socket
  let answered = false

  const answerWith = (refusal: Refusal, error?: Error): void => {
    if (answered) return
    answered = true
    lease.release()
    const cause = error && 'code' in error && typeof error.code === 'string' ? { cause: error.code } : {}
    sendAnswer(refuse(exchange, refusal), io, finish, { refusal, server: lease.server, ...cause }, plan)
  }

  const onUpgrade = (controller: Dispatcher.DispatchController, status: number, socket: Duplex): void => {
    const received = toText(controller.rawHeaders)
    if (status !== 101 || fieldValue(received, 'sec-websocket-accept') !== toAccept(key)) {
      socket.destroy()
      return answerWith(badHandshake)
    }
    answered = true
    lease.release()
    const edited = toClientHeaders(exchange, plan.response, status, received)
    join({ plan, client, head: upgrade.head, socket, headers: edited, finish, tunnels, server: lease.server })
  }

  client.once('close', () => {
    if (answered) return
    answered = true
    lease.release()
    void lease.client.destroy()
    finish(plan, { status: 0, bytes: 0, end: 'client_gone', server: lease.server })
  })
  let refused: { status: number; headers: string[]; chunks: Buffer[] } | undefined
  lease.client.dispatch(
    {
      path: target,
      method: 'GET',
      headers,
      upgrade: 'websocket',
      headersTimeout: readTimeoutMs,
      bodyTimeout: readTimeoutMs,
    },
    {
      onRequestStart: () => {},
      onRequestUpgrade: (controller, status, _headers, socket) => onUpgrade(controller, status, socket),
      onResponseStart: (controller, status) => {
        if (status >= 200) refused = { status, headers: toText(controller.rawHeaders), chunks: [] }
      },
      onResponseData: (controller, chunk) => {
        refused?.chunks.push(chunk)
        const size = refused?.chunks.reduce((sum, part) => sum + part.length, 0) ?? 0
        if (size > refusalBytesMax) controller.abort(new Error('the refusal is too long'))
      },
      onResponseEnd: () => {
        if (answered || !refused) return
        answered = true
        lease.release()
        sendRefusal(plan, io, refused, lease, finish)
      },
      onResponseError: (_controller, error) => answerWith(toUpstreamRefusal(error, plan, 1), error),
    },
  )
}

interface Join {
  plan: ProxyPlan
  client: Duplex
  head: Buffer
  socket: Duplex
  headers: string[]
  finish: Finish
  tunnels: Set<Duplex>
  server: string
}

/** Joins the two connections until one closes or both have been silent for the row's `idleMs`. */
function join({ plan, client, head, socket, headers, finish, tunnels, server }: Join): void {
  let bytes = 0
  let end: Outcome['end'] = 'done'
  const lines = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: websocket']
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`)
  client.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  if (head.length > 0) socket.write(head)

  const idle = setTimeout(() => {
    end = 'stalled'
    client.destroy()
    socket.destroy()
  }, plan.idleMs)
  const alive = (): void => void idle.refresh()
  client.on('data', alive)
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    idle.refresh()
  })
  client.pipe(socket).pipe(client)

  tunnels.add(client)
  const close = (): void => {
    client.destroy()
    socket.destroy()
  }
  for (const side of [client, socket]) {
    side.on('error', close)
    side.on('close', close)
  }
  client.once('close', () => {
    clearTimeout(idle)
    tunnels.delete(client)
    finish(plan, { status: 101, bytes, end, server })
  })
}

/** The upstream did not want the WebSocket and said why: the client hears it, as an ordinary answer. */
function sendRefusal(
  plan: ProxyPlan,
  io: NodeIo,
  refused: { status: number; headers: string[]; chunks: Buffer[] },
  lease: Lease,
  finish: Finish,
): void {
  const body = Buffer.concat(refused.chunks)
  const headers = toClientHeaders(plan.exchange, plan.response, refused.status, refused.headers)
  io.response.once('close', () =>
    finish(plan, { status: refused.status, bytes: body.length, end: 'done', server: lease.server }),
  )
  io.response.writeHead(refused.status, headers)
  io.response.end(body)
}

/** RFC 6455 §4.2.2. */
const toAccept = (key: string): string =>
  createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')

const refusalBytesMax = 65_536

const badHandshake: Refusal = {
  code: 'upstream_malformed',
  detail: 'the upstream did not complete the WebSocket handshake',
  limit: { name: 'attempts', value: 1 },
}
