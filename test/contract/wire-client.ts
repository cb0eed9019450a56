import { once } from 'node:events'
import { Agent, request as openRequest } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import type { ContractRequest, ContractResponse, ContractSocket } from './suite.ts'

/** How a target is told what a hop in front of it would say. */
export type ToHopFields = (request: ContractRequest) => [string, string][]

/** A client that writes what it is given: paths and names as they are. */
export function createWireClient(port: number, toHopFields: ToHopFields) {
  const agent = new Agent({ keepAlive: true })
  const toFields = (request: ContractRequest): [string, string][] => [
    ['Host', request.host],
    ...toHopFields(request),
    ...(request.headers ?? []),
  ]

  function fetch(request: ContractRequest): Promise<ContractResponse> {
    const { target: path, method = 'GET', body, signal } = request
    const { promise, resolve, reject } = Promise.withResolvers<ContractResponse>()
    const fields = toFields(request)
    if (body !== undefined)
      fields.push(
        isWhole(body) ? ['Content-Length', String(Buffer.byteLength(body))] : ['Transfer-Encoding', 'chunked'],
      )
    const sent = openRequest({ host: '127.0.0.1', port, path, method, headers: fields.flat(), agent })
    // A reset, as from a client whose machine has left: a plain close could be half of one.
    signal?.addEventListener('abort', () => {
      sent.socket?.resetAndDestroy()
      reject(signal.reason)
    })
    sent.once('response', (answer) => resolve(toResponse(answer)))
    sent.on('error', reject)
    if (body === undefined || isWhole(body)) sent.end(body)
    else void send(body).catch(() => sent.destroy())
    return promise

    /** Until somebody answers who does not wait for the rest. */
    async function send(chunks: AsyncIterable<Uint8Array>): Promise<void> {
      const over = new Promise((close) => sent.once('close', close))
      for await (const chunk of chunks) {
        if (sent.destroyed) return
        if (!sent.write(chunk)) await Promise.race([once(sent, 'drain'), over])
      }
      sent.end()
    }
  }

  function connectWebSocket(request: ContractRequest): Promise<ContractSocket> {
    const { promise, resolve, reject } = Promise.withResolvers<ContractSocket>()
    const fields = toFields(request)
    const protocols = fields.find(([name]) => name.toLowerCase() === 'sec-websocket-protocol')?.[1].split(', ') ?? []
    const headers = Object.fromEntries(fields.filter(([name]) => name.toLowerCase() !== 'sec-websocket-protocol'))
    const socket = new WebSocket(`ws://127.0.0.1:${port}${request.target}`, protocols, { headers })
    const received = createQueue()
    const closed = new Promise<number>((close) => socket.once('close', close))
    socket.on('message', (data, binary) => received.put(binary ? (data as Buffer) : String(data)))
    socket.once('unexpected-response', (_, answer) => {
      resolve(toSocket(answer.statusCode ?? 0))
      socket.terminate()
    })
    socket.once('open', () => resolve(toSocket(101)))
    socket.on('error', reject)
    return promise

    function toSocket(status: number): ContractSocket {
      return {
        status,
        protocol: socket.protocol,
        send: (data) => socket.send(data),
        next: received.take,
        close: (code) => socket.close(code),
        closed,
      }
    }
  }

  return { fetch, connectWebSocket, close: () => agent.destroy() }
}

export const isWhole = (body: NonNullable<ContractRequest['body']>): body is string | Uint8Array =>
  typeof body === 'string' || body instanceof Uint8Array

const toResponse = (answer: IncomingMessage): ContractResponse => ({
  status: answer.statusCode ?? 0,
  headers: answer.rawHeaders,
  body: answer,
})

function createQueue(): { put(message: string | Uint8Array): void; take(): Promise<string | Uint8Array> } {
  const messages: (string | Uint8Array)[] = []
  const waiting: ((message: string | Uint8Array) => void)[] = []
  return {
    put(message) {
      const first = waiting.shift()
      if (first) first(message)
      else messages.push(message)
    },
    take() {
      const first = messages.shift()
      return first === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(first)
    },
  }
}
