import type { Socket } from 'node:net'
import { buildConnector, Client } from 'undici'
import type { Dispatcher } from 'undici'
import type { Limits } from '../limits.ts'
import type { Exchange, Order, Sink, Upstream } from './upstream.ts'

/** A server over HTTP/1.1, one request at a time on each kept connection. */
export function createHttpUpstream(base: string, limits: Limits): Upstream {
  const { origin, pathname } = new URL(base)
  const prefix = pathname.replace(/\/$/, '')
  const idle: Connection[] = []
  const connect = buildConnector({ timeout: limits.connectTimeoutMs })
  let closed = false

  function take(fresh: boolean): Connection {
    const known = fresh ? undefined : idle.pop()
    if (known) return known
    const connection: Connection = {
      socket: undefined,
      used: false,
      client: new Client(origin, {
        pipelining: 1,
        keepAliveTimeout: limits.upstreamIdleMs,
        keepAliveMaxTimeout: limits.upstreamIdleMs,
        connect: (options, callback) =>
          connect(options, (...result) => {
            connection.socket = result[1] ?? undefined
            callback(...result)
          }),
      }),
    }
    return connection
  }

  function release(connection: Connection): void {
    connection.used = true
    if (closed) void connection.client.close()
    else idle.push(connection)
  }

  return {
    name: origin,
    open(order, sink) {
      const exchange = new HttpExchange(order, sink, prefix, { take, release })
      exchange.start()
      return exchange
    },
    async close() {
      closed = true
      await Promise.all(idle.splice(0).map(({ client }) => client.close()))
    },
  }
}

interface Connection {
  client: Client
  socket: Socket | undefined
  /** Whether a request was sent on it before. */
  used: boolean
}

interface Connections {
  take(fresh: boolean): Connection
  release(connection: Connection): void
}

class HttpExchange implements Exchange, Dispatcher.DispatchHandler {
  readonly #order: Order
  readonly #sink: Sink
  readonly #prefix: string
  readonly #connections: Connections
  #connection: Connection
  #controller: Dispatcher.DispatchController | undefined
  #destroyed = false
  #left = false
  #begun = false
  #retried = false
  #over = false

  constructor(order: Order, sink: Sink, prefix: string, connections: Connections) {
    this.#order = order
    this.#sink = sink
    this.#prefix = prefix
    this.#connections = connections
    this.#connection = connections.take(false)
  }

  start(): void {
    const { path, headers, body } = this.#order
    this.#connection.client.dispatch(
      {
        path: this.#prefix + path,
        method: 'POST',
        headers,
        body,
        blocking: false,
        // Quiet streams are watched by whoever reads them.
        headersTimeout: 0,
        bodyTimeout: 0,
      },
      this,
    )
  }

  pause(): void {
    this.#controller?.pause()
  }

  resume(): void {
    this.#controller?.resume()
  }

  leave(): void {
    this.#left = true
    this.#controller?.resume()
    // Half a connection: the server sees that its client has gone, and what it had written before still arrives.
    if (this.#over) return
    if (this.#controller && this.#connection.socket) return void this.#connection.socket.end()
    this.destroy()
    this.#sink.onError(gone)
  }

  destroy(): void {
    if (this.#destroyed || this.#over) return
    this.#destroyed = true
    if (this.#controller) this.#controller.abort(gone)
    else void this.#connection.client.destroy(gone)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#destroyed) controller.abort(gone)
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return
    this.#begun = true
    this.#sink.onHead(status, (name) => readField(controller, name))
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#destroyed) this.#sink.onData(chunk)
  }

  onResponseEnd(): void {
    this.#over = true
    if (this.#left) void this.#connection.client.destroy()
    else this.#connections.release(this.#connection)
    if (!this.#destroyed) this.#sink.onEnd()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    void this.#connection.client.destroy()
    // A kept connection may be closed in the moment it is used again: that says nothing of its server.
    if (!this.#begun && !this.#retried && this.#connection.used && !this.#destroyed && !this.#left) {
      this.#retried = true
      this.#controller = undefined
      this.#connection = this.#connections.take(true)
      return this.start()
    }
    this.#over = true
    if (!this.#destroyed) this.#sink.onError(error)
  }
}

const gone = new Error('nobody waits for this answer any more')

/** The first field of this name, in lower case. */
function readField({ rawHeaders }: Dispatcher.DispatchController, name: string): string | undefined {
  const flat = rawHeaders as (Buffer | string)[]
  for (let index = 0; index < flat.length; index += 2)
    if (String(flat[index]).toLowerCase() === name) return String(flat[index + 1])
  return undefined
}
