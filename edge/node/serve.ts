import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { Network } from '../address.ts'
import type { CompiledGateway } from '../compile.ts'
import { identify } from '../exchange.ts'
import type { RawRequest } from '../exchange.ts'
import { createGateway, refuse } from '../gateway.ts'
import { limits } from '../limits.ts'
import { createMetrics } from '../metrics.ts'
import type { Gauge, Sample } from '../metrics.ts'
import type { Limiter } from '../runtime.ts'
import { startAdmin } from './admin.ts'
import { UsageError } from './config.ts'
import type { NodeIo } from './exchange-io.ts'
import { createListener } from './listen.ts'
import type { LogSink } from './log-sink.ts'
import { createPool } from './pool.ts'
import type { Pool } from './pool.ts'
import { startHealthChecks } from './health-checks.ts'
import { createNodeRuntime } from './runtime.ts'
import type { Tunnel } from './upgrade.ts'

export interface ServeOptions {
  compiled: CompiledGateway
  limiter: Limiter
  trustedHops: Network[]
  http: { host: string; port: number }
  admin: { host: string; port: number }
  /** Takes the access log. */
  accessLog: LogSink
  /** Takes what operators should hear of, a line at a time. */
  report: (line: string) => void
}

export interface RunningGateway {
  /** The port that requests are taken on. */
  port: number
  adminUrl: string
  /** Takes no new connections, lets open requests end within `limits.drainMs`, says goodbye to WebSockets. */
  stop(): Promise<void>
}

/** Starts the gateway on this machine. Rejects with a UsageError when an address cannot be had. */
export async function startGateway(options: ServeOptions): Promise<RunningGateway> {
  const { compiled, accessLog, report } = options
  const metrics = createMetrics()
  const pool = createPool({
    now: () => performance.now(),
    onChange: ({ id, servers }, { index, up, why }) =>
      report(`upstream ${id}: ${servers[index]?.origin} ${up ? 'is back' : 'is put aside'}: ${why}`),
  })
  for (const upstream of compiled.upstreams) pool.of(upstream)
  const tunnels = new Set<Tunnel>()
  const log = (line: string): void => accessLog.write(line)
  const runtime = createNodeRuntime({ ...options, pool, metrics, log, tunnels })
  const gateway = createGateway(compiled, runtime)
  let draining = false

  function handle(raw: RawRequest, io: NodeIo): void {
    metrics.begin()
    if (draining) io.response.shouldKeepAlive = false
    try {
      const handled = gateway.handle(raw, io)
      if (handled instanceof Promise) handled.catch((error: unknown) => fail(raw, io, error))
    } catch (error) {
      fail(raw, io, error)
    }
  }

  /** A fault of ours costs its own request, and says nothing of itself to the client. */
  function fail(raw: RawRequest, io: NodeIo, error: unknown): void {
    const { exchange } = identify(raw, runtime)
    report(`internal error, request ${exchange.requestId}: ${error instanceof Error ? error.stack : String(error)}`)
    if (io.response.headersSent) io.response.destroy()
    else runtime.answer(refuse(exchange, { code: 'internal', detail: 'something went wrong in the gateway' }), io)
  }

  const server = createListener(handle, ({ status, code }, requestId, peer) => {
    metrics.refuse(code)
    log(
      `{"time":"${new Date().toISOString()}","id":"${requestId}","client":${JSON.stringify(peer)},"status":${status},"error":"${code}"}\n`,
    )
  })
  let connections = 0
  server.on('connection', (socket) => {
    connections++
    socket.once('close', () => connections--)
  })
  await listen(server, options.http)
  const { port } = server.address() as AddressInfo
  const admin = await startAdmin(
    {
      metrics,
      notReady: () => (draining ? 'draining' : undefined),
      gauges: () => [
        { name: 'daemun_client_connections', help: 'Open connections of clients.', value: connections },
        { name: 'daemun_upstream_connections', help: 'Connections to upstreams in use.', value: pool.inUse() },
        ...toUpstreamGauges(pool),
        { name: 'daemun_websockets', help: 'Joined WebSockets.', value: tunnels.size },
        {
          name: 'daemun_dropped_log_lines',
          help: 'Access-log lines that the reader was too slow for.',
          value: accessLog.dropped(),
        },
      ],
    },
    options.admin,
  ).catch((error: unknown) => {
    server.close()
    throw toListenError(error, options.admin)
  })

  const checks = startHealthChecks(pool.all(), Math.random)

  async function stop(): Promise<void> {
    draining = true
    checks.stop()
    const closed = once(server, 'close')
    server.close()
    for (const tunnel of tunnels) tunnel.sayGoodbye()
    // Connections that were kept alive for a next request, and those that become idle when their last one ends.
    const sweep = setInterval(() => server.closeIdleConnections(), idleSweepMs)
    const timer = setTimeout(() => server.closeAllConnections(), limits.drainMs)
    await closed
    clearInterval(sweep)
    clearTimeout(timer)
    await pool.close()
    await admin.close()
    await accessLog.flush()
  }

  return { port, adminUrl: admin.url, stop }
}

const idleSweepMs = 50

/** Of upstreams with their servers; no lines before there is one. */
function toUpstreamGauges(pool: Pool): Gauge[] {
  const groups = pool.all().map(({ group }) => group)
  if (groups.length === 0) return []
  const ofServers = (value: (group: (typeof groups)[number], index: number) => number): Sample[] =>
    groups.flatMap((group) =>
      group.upstream.servers.map(({ origin }, index) => ({
        labels: { upstream: group.upstream.id, server: origin },
        value: value(group, index),
      })),
    )
  return [
    {
      name: 'daemun_upstream_server_up',
      help: 'Servers of upstreams: 1, or 0 while one is put aside.',
      value: ofServers(({ health }, index) => Number(health.isUp(index))),
    },
    {
      name: 'daemun_upstream_ejections_total',
      type: 'counter',
      help: 'How often a server was put aside.',
      value: ofServers(({ health }, index) => health.ejections(index)),
    },
    {
      name: 'daemun_upstream_retries_total',
      type: 'counter',
      help: 'Requests that were sent once more.',
      value: groups.map(({ upstream, budget }) => ({ labels: { upstream: upstream.id }, value: budget.taken() })),
    },
  ]
}

async function listen(
  server: ReturnType<typeof createListener>,
  { host, port }: { host: string; port: number },
): Promise<void> {
  try {
    server.listen({ host, port, backlog: 4_096 })
    await once(server, 'listening')
  } catch (error) {
    throw toListenError(error, { host, port })
  }
}

function toListenError(error: unknown, { host, port }: { host: string; port: number }): unknown {
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
