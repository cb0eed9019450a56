import { connect } from 'node:net'
import type { Socket } from 'node:net'

/**
 * The load, a process of its own: keep-alive connections, one request at a time on each. Without a rate each connection
 * asks again as soon as it is answered; with one, requests are due at fixed times whatever the peer does, and latency
 * counts from the time a request was due, so that a peer that stalls is not asked less.
 */
export interface LoadOrder {
  port: number
  seconds: number
  /** Requests per second over all connections; undefined: as many as are answered. */
  rate: number | undefined
  /** What each connection sends; as many connections as requests. */
  requests: string[]
  /** How long every answer's body must be. */
  bodyLength: number
}

export interface LoadReport {
  answered: number
  /** Answers that were no 200 of the right length, and connections that broke. */
  failed: number
  seconds: number
  /** Milliseconds, ascending; only with a rate. */
  p50: number
  p99: number
}

process.on('message', (order: LoadOrder) => {
  void runLoad(order).then((report) => process.send?.(report))
})
process.on('disconnect', () => process.exit())

function runLoad(order: LoadOrder): Promise<LoadReport> {
  const { seconds, rate } = order
  const idle: Connection[] = []
  const latencies: number[] = []
  const startedAt = performance.now()
  const endsAt = startedAt + seconds * 1_000
  let [answered, failed, busy, due] = [0, 0, 0, 0]
  const { promise, resolve: finish } = Promise.withResolvers<LoadReport>()

  const onAnswer = (connection: Connection, ok: boolean): void => {
    busy--
    if (ok) answered++
    else failed++
    const now = performance.now()
    if (rate === undefined && now < endsAt) return ask(connection)
    if (rate !== undefined) latencies.push(now - connection.askedAt)
    idle.push(connection)
    if (now >= endsAt && busy === 0) end()
  }
  const ask = (connection: Connection): void => {
    busy++
    connection.ask()
  }
  /** Sends what is due, then looks again at once: a timer would be a thousand times too coarse. */
  const pace = (interval: number): void => {
    const now = performance.now()
    if (now >= endsAt && busy === 0) return end()
    for (let at = startedAt + due * interval; at <= now && at < endsAt; at = startedAt + ++due * interval) {
      const connection = idle.pop()
      if (!connection) break
      connection.askedAt = at
      ask(connection)
    }
    setImmediate(pace, interval)
  }
  const end = (): void => {
    for (const connection of connections) connection.close()
    latencies.sort((a, b) => a - b)
    const at = (share: number): number => latencies[Math.floor(latencies.length * share)] ?? Number.NaN
    finish({ answered, failed, seconds: (performance.now() - startedAt) / 1_000, p50: at(0.5), p99: at(0.99) })
  }

  const connections = order.requests.map((request) => new Connection(order, request, onAnswer))
  if (rate === undefined) for (const connection of connections) ask(connection)
  else {
    idle.push(...connections)
    pace(1_000 / rate)
  }
  return promise
}

class Connection {
  /** When its request was due. */
  askedAt = 0
  #socket: Socket | undefined
  #waiting = false
  #received: Buffer = nothing
  /** Of the body that is being received. */
  #missing = 0
  readonly #order: LoadOrder
  readonly #request: string
  readonly #onAnswer: (connection: Connection, ok: boolean) => void

  constructor(order: LoadOrder, request: string, onAnswer: (connection: Connection, ok: boolean) => void) {
    this.#order = order
    this.#request = request
    this.#onAnswer = onAnswer
  }

  ask(): void {
    this.#waiting = true
    this.#socket ??= this.#open()
    this.#socket.write(this.#request, 'latin1')
  }

  close(): void {
    this.#socket?.destroy()
  }

  #open(): Socket {
    const callback = (size: number, chunk: Uint8Array): boolean => {
      this.#read(Buffer.from(chunk.buffer, chunk.byteOffset, size))
      return true
    }
    const socket = connect({
      port: this.#order.port,
      host: '127.0.0.1',
      noDelay: true,
      onread: { buffer: Buffer.allocUnsafe(65_536), callback },
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      if (this.#socket === socket) this.#lose()
    })
    return socket
  }

  #read(chunk: Buffer): void {
    // Of a long body only the length counts.
    if (this.#missing > chunk.length) {
      this.#missing -= chunk.length
      return
    }
    if (this.#missing > 0) return this.#end(this.#missing - chunk.length)
    const received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
    const head = received.indexOf('\r\n\r\n')
    // The chunk's memory is written over by the next one.
    this.#received = received === chunk ? Buffer.from(chunk) : received
    if (head === -1) return
    this.#missing = head + 4 + this.#order.bodyLength - received.length
    if (this.#missing <= 0) this.#end(this.#missing)
  }

  /** The answer is whole; `over` is below zero when there is more than it. */
  #end(over: number): void {
    const received = this.#received
    const head = received.indexOf('\r\n\r\n')
    this.#received = nothing
    this.#missing = 0
    const ok = over === 0 && received[9] === 0x32 && received[10] === 0x30 && received[11] === 0x30
    if (!ok || isLast(received, head)) this.#reopen()
    this.#settle(ok)
  }

  /** The next request goes over a new connection. */
  #reopen(): void {
    const socket = this.#socket
    this.#socket = undefined
    socket?.destroy()
  }

  #lose(): void {
    this.#socket = undefined
    this.#received = nothing
    this.#missing = 0
    this.#settle(false)
  }

  #settle(ok: boolean): void {
    if (!this.#waiting) return
    this.#waiting = false
    this.#onAnswer(this, ok)
  }
}

const nothing = Buffer.alloc(0)

/** Servers close a connection after so many requests, and say so. */
function isLast(received: Buffer, head: number): boolean {
  const at = received.indexOf('lose\r\n')
  return at !== -1 && at < head + 2 && /\r\nconnection: close\r\n/i.test(received.toString('latin1', 0, head + 2))
}
