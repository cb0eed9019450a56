import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Done } from './beside.ts'
import { host } from './work.ts'

/** The load of streams, a process of its own. */
export type StreamOrder =
  /** Counts the events that so many connections get. */
  | { kind: 'events'; port: number; seconds: number; connections: number }
  /** How long the first event takes, in milliseconds from the request on: the median of so many times. */
  | { kind: 'first'; port: number; times: number }
  /** Counts messages both ways: each connection says one as soon as the last is answered. */
  | { kind: 'messages'; port: number; seconds: number; connections: number }

process.on('message', (order: StreamOrder) => {
  const run = { events: countEvents, first: timeFirst, messages: countMessages }[order.kind] as (
    order: StreamOrder,
  ) => Promise<unknown>
  void run(order).then((report) => process.send?.(report))
})
process.on('disconnect', () => process.exit())

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nAccept: text/event-stream\r\n\r\n`

async function open(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

async function countEvents(order: Extract<StreamOrder, { kind: 'events' }>): Promise<Done> {
  const done: Done = { units: 0, failed: 0 }
  const sockets = await Promise.all(Array.from({ length: order.connections }, () => open(order.port)))
  for (const socket of sockets) {
    socket.write(get('/events'))
    socket.on('data', (bytes: Buffer) => {
      for (let at = bytes.indexOf('data:'); at !== -1; at = bytes.indexOf('data:', at + 5)) done.units++
    })
    socket.on('close', () => done.failed++)
  }
  await wait(order.seconds)
  const report = { ...done }
  for (const socket of sockets) socket.destroy()
  return report
}

async function timeFirst({ port, times }: Extract<StreamOrder, { kind: 'first' }>): Promise<number> {
  const taken: number[] = []
  for (let i = 0; i < times; i++) {
    const socket = await open(port)
    const startedAt = performance.now()
    socket.write(get('/first'))
    let received = ''
    while (!received.includes('data:')) received += String((await once(socket, 'data'))[0])
    taken.push(performance.now() - startedAt)
    socket.destroy()
  }
  return taken.toSorted((a, b) => a - b)[times >> 1] ?? Number.NaN
}

/** A masked text message of 64 bytes (RFC 6455 §5.3; here the mask is zeros). */
const message = Buffer.concat([Buffer.from([0x81, 0x80 | 64, 0, 0, 0, 0]), Buffer.alloc(64, 'x')])
const answerLength = 66

async function countMessages(order: Extract<StreamOrder, { kind: 'messages' }>): Promise<Done> {
  const done: Done = { units: 0, failed: 0 }
  const sockets = await Promise.all(Array.from({ length: order.connections }, () => openWebSocket(order.port)))
  const endsAt = performance.now() + order.seconds * 1_000
  await Promise.all(
    sockets.map(async (socket) => {
      let received = 0
      const ended = Promise.withResolvers<void>()
      socket.on('close', () => {
        if (performance.now() < endsAt) done.failed++
        ended.resolve()
      })
      socket.on('data', (bytes: Buffer) => {
        received += bytes.length
        if (received < answerLength) return
        received -= answerLength
        done.units += 2
        if (performance.now() < endsAt) socket.write(message)
        else socket.destroy()
      })
      socket.write(message)
      await ended.promise
    }),
  )
  return done
}

async function openWebSocket(port: number): Promise<Socket> {
  const socket = await open(port)
  socket.write(
    `GET /ws HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`,
  )
  const [head] = (await once(socket, 'data')) as [Buffer]
  if (!head.toString('latin1').startsWith('HTTP/1.1 101')) throw new Error(head.toString('latin1'))
  return socket
}

const wait = (seconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
