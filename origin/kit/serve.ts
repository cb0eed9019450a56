import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { getRequestListener } from '@hono/node-server'
import type { HttpBindings } from '@hono/node-server'

export type Listening = {
  /** Where it listens, such as `http://127.0.0.1:8000`. */
  url: string
  /** Takes no new connection, lets running requests end for at most `drainMs`, then cuts what is left. */
  stop(): Promise<void>
}

type ServeOptions = {
  /** Also gets Node's own request and answer, for who writes to the socket. */
  fetch: (request: Request, bindings: HttpBindings) => Response | Promise<Response>
  host: string
  /** 0 takes any free port. */
  port: number
  drainMs?: number
}

/** Serves a fetch function over HTTP/1.1 on Node. Rejects with the system's error when the port is taken. */
export async function serve({ fetch, host, port, drainMs = 10_000 }: ServeOptions): Promise<Listening> {
  let stopping = false
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 65_000 })
  server.on('request', hangUpWhenStopping)
  server.on(
    'request',
    getRequestListener((request, bindings) => fetch(request, bindings as HttpBindings), {
      overrideGlobalObjects: false,
    }),
  )
  server.listen(port, host)
  await once(server, 'listening')
  return { url: toUrl(server.address() as AddressInfo), stop }

  function hangUpWhenStopping(_request: IncomingMessage, response: ServerResponse): void {
    if (stopping) response.setHeader('Connection', 'close')
    // A request that was running when we began to stop leaves a kept-alive connection behind.
    response.once('close', () => stopping && setImmediate(() => server.closeIdleConnections()))
  }

  async function stop(): Promise<void> {
    if (stopping) return
    stopping = true
    const closed = once(server, 'close')
    server.close()
    server.closeIdleConnections()
    const late = setTimeout(() => server.closeAllConnections(), drainMs)
    await closed
    clearTimeout(late)
  }
}

function toUrl({ address, port, family }: AddressInfo): string {
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}
