import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

/** A request as the origin saw it. */
interface SeenRequest {
  /** The request line and field lines, as received. */
  head: string
  path: string
  body: Buffer
  /** Which connection it came on, counted from 0. */
  connection: number
  /** How many requests came on that connection before. */
  before: number
}

/** What the origin does with a request; it may break every rule. */
export type Behaviour = (socket: Socket, request: SeenRequest) => void

export interface HostileOrigin {
  url: string
  /** Whole requests, in the order of their arrival. */
  requests: SeenRequest[]
  /** Connections that were ever opened. */
  connections: Socket[]
  /** All bytes that came in, of requests or not. */
  received(): string
  /** Forgets what came in. */
  forget(): void
  /** Resolves when the connection is closed. */
  closed(connection: number): Promise<void>
  close(): Promise<void>
}

export interface OriginOptions {
  /** Called for the head at once, before the body is there. */
  onHead?: Behaviour
  /** Called for each connection; the origin then reads nothing by itself. */
  onConnection?: (socket: Socket) => void
}

/** An origin of plain sockets that believes what it is told and answers what the test wants, whole or not. */
export async function startHostileOrigin(behave: Behaviour, options: OriginOptions = {}): Promise<HostileOrigin> {
  const requests: SeenRequest[] = []
  const connections: Socket[] = []
  const closings: Promise<void>[] = []
  let received: Buffer[] = []

  const server = createServer((socket) => {
    const connection = connections.push(socket) - 1
    closings.push(new Promise((resolve) => socket.once('close', () => resolve())))
    socket.on('error', () => {})
    if (options.onConnection) return options.onConnection(socket)
    let waiting = Buffer.alloc(0)
    let before = 0
    let announced = false
    socket.on('data', (chunk: Buffer) => {
      received.push(chunk)
      waiting = Buffer.concat([waiting, chunk])
      for (;;) {
        const end = waiting.indexOf('\r\n\r\n')
        if (end === -1) return
        const head = waiting.subarray(0, end).toString('latin1')
        const path = head.split(' ')[1] ?? ''
        const request = { head, path, body: Buffer.alloc(0), connection, before }
        if (!announced) options.onHead?.(socket, request)
        announced = true
        const length = bodyLength(head, waiting.subarray(end + 4))
        if (length === undefined) return
        request.body = Buffer.from(waiting.subarray(end + 4, end + 4 + length))
        waiting = waiting.subarray(end + 4 + length)
        announced = false
        before++
        requests.push(request)
        behave(socket, request)
      }
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    connections,
    received: () => Buffer.concat(received).toString('latin1'),
    forget: () => {
      received = []
      requests.length = 0
    },
    closed: (connection) => closings[connection] ?? Promise.reject(new Error(`there is no connection ${connection}`)),
    close: async () => {
      for (const socket of connections) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** How long the body at the front of `bytes` is; undefined: not all of it is there. */
function bodyLength(head: string, bytes: Buffer): number | undefined {
  if (/^transfer-encoding:.*chunked/im.test(head)) {
    const last = bytes.indexOf('0\r\n\r\n')
    return last === -1 ? undefined : last + 5
  }
  const length = Number(/^content-length:[ \t]*(\d+)/im.exec(head)?.[1] ?? 0)
  return bytes.length < length ? undefined : length
}

/** The plainest of answers. */
export const ok: Behaviour = (socket, { path }) => {
  socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\nX-Origin: yes\r\n\r\n${path}`)
}

/** Bytes as an answer, whatever was asked. */
export const says =
  (bytes: string): Behaviour =>
  (socket) =>
    void socket.write(bytes, 'latin1')
