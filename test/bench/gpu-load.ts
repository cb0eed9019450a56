import { connect } from 'node:net'
import type { Socket } from 'node:net'

/** One request over one connection, and what came of it. Times are milliseconds. */
export interface Call {
  status: number
  firstMs: number
  totalMs: number
  /** Events of a stream. */
  chunks: number
  whole: boolean
}

/** A kept connection that asks one thing at a time, with as little work of its own as it takes. */
export class GpuConnection {
  readonly #port: number
  #socket: Socket | undefined
  #onData: ((chunk: Buffer) => void) | undefined
  #onEnd: (() => void) | undefined

  constructor(port: number) {
    this.#port = port
  }

  close(): void {
    this.#socket?.destroy()
  }

  /** How many bytes of the answer have come, for streams that are only held open. */
  ask(request: string): Promise<Call> {
    const socket = (this.#socket ??= this.#open())
    const { promise, resolve } = Promise.withResolvers<Call>()
    const startedAt = performance.now()
    const call: Call = { status: 0, firstMs: 0, totalMs: 0, chunks: 0, whole: false }
    let head: string | undefined
    let body = ''
    let missing = 0
    let closes = false

    const settle = (whole: boolean): void => {
      this.#onData = undefined
      this.#onEnd = undefined
      call.whole = whole
      call.totalMs = performance.now() - startedAt
      if (!whole || closes) {
        this.#socket?.destroy()
        this.#socket = undefined
      }
      resolve(call)
    }
    this.#onEnd = () => settle(false)
    this.#onData = (chunk) => {
      let text = chunk.toString('latin1')
      if (head === undefined) {
        body += text
        const end = body.indexOf('\r\n\r\n')
        if (end === -1) return
        head = body.slice(0, end + 2).toLowerCase()
        text = body.slice(end + 4)
        body = ''
        call.status = Number(head.slice(9, 12))
        closes = head.includes('\r\nconnection: close\r\n')
        missing = Number(/\r\ncontent-length: (\d+)/.exec(head)?.[1] ?? -1)
      }
      if (missing >= 0) {
        missing -= text.length
        if (missing <= 0) {
          call.firstMs = performance.now() - startedAt
          settle(missing === 0)
        }
        return
      }
      call.chunks += count(text, 'data: ')
      if (call.firstMs === 0 && /"content":"[^"]/.test(text)) call.firstMs = performance.now() - startedAt
      body = body.slice(-8) + text
      if (body.endsWith('0\r\n\r\n')) settle(body.length > 5)
    }
    socket.write(request, 'latin1')
    return promise
  }

  #open(): Socket {
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true })
    socket.on('data', (chunk: Buffer) => this.#onData?.(chunk))
    socket.on('error', () => {})
    socket.on('close', () => {
      if (this.#socket === socket) this.#socket = undefined
      this.#onEnd?.()
    })
    return socket
  }
}

function count(text: string, word: string): number {
  let found = 0
  for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, at + word.length)) found++
  return found
}

export interface LoadOf {
  port: number
  request: string
  connections: number
  seconds: number
}

/** Each connection asks again as soon as it is answered. */
export async function runClosedLoop({ port, request, connections, seconds }: LoadOf): Promise<Call[]> {
  const calls: Call[] = []
  const endsAt = performance.now() + seconds * 1_000
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const connection = new GpuConnection(port)
      while (performance.now() < endsAt) calls.push(await connection.ask(request))
      connection.close()
    }),
  )
  return calls
}

export function toRequest(body: unknown, headers: Record<string, string>): string {
  const text = JSON.stringify(body)
  const fields = {
    Host: 'bench',
    'Content-Type': 'application/json',
    'Content-Length': String(Buffer.byteLength(text)),
    ...headers,
  }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `POST /v1/chat/completions HTTP/1.1\r\n${lines.join('')}\r\n${Buffer.from(text).toString('latin1')}`
}

export const at = (values: number[], share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
