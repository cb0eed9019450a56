import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo, Server as NetServer } from 'node:net'
import type { Network } from '../address.ts'
import type { Selector } from '../cache/selector.ts'
import type { CompiledGateway } from '../compile.ts'
import { identify } from '../exchange.ts'
import type { Explanation } from '../explain.ts'
import type { RawRequest } from '../exchange.ts'
import { createGateway, refuse } from '../gateway.ts'
import { limits } from '../limits.ts'
import type { Gauge, Sample } from '../metrics.ts'
import type { Facts, Limiter } from '../runtime.ts'
import { createAcme } from './acme.ts'
import type { Acme } from './acme.ts'
import { createAcmeFiles } from './acme-files.ts'
import { startAdmin } from './admin.ts'
import { openCertificates } from './certificates.ts'
import { UsageError } from './config.ts'
import type { NodeIo } from './exchange-io.ts'
import { createHttp2Connections } from './http2.ts'
import { createListener } from './listen.ts'
import type { Handle } from './listen.ts'
import type { LogSink } from './log-sink.ts'
import { createOverview } from './overview.ts'
import { createPool } from './pool.ts'
import type { Pool } from './pool.ts'
import { requireProxyHeader } from './proxy-protocol.ts'
import type { ProxyFault } from './proxy-protocol.ts'
import { startHealthChecks } from './health-checks.ts'
import { createResponseCache } from './response-cache.ts'
import { createNodeRuntime } from './runtime.ts'
import { startSplits } from './splits.ts'
import { createTlsListener } from './tls.ts'
import type { Tracer } from './tracer.ts'
import type { Tunnel } from './upgrade.ts'

export interface ServeOptions {
  compiled: CompiledGateway
  limiter: Limiter
  /** Names by which operators may ask, besides localhost and addresses. */
  adminHosts?: string[]
  /** Makes the text of a decision that operators ask for; without it they get JSON. */
  showExplanation?: (explanation: Explanation) => string
  /** Records traces; closed with the gateway. */
  tracer?: Tracer | undefined
  trustedHops: Network[]
  http: ListenAddress
  /** Where TLS is taken, and what with. */
  https?: ListenAddress & { certificates: string; development: boolean }
  admin: { host: string; port: number }
  /** What changes on the admin listener are asked for with; without it there are none. */
  adminToken?: string | undefined
  /** The folder in which changes of splits outlive the process; without it they do not. */
  stateDirectory?: string | undefined
  /** How often rollouts are judged. Default limits.rolloutJudgeMs. */
  judgeMs?: number
  /** How many bytes of answers are kept at most. Default `limits.cacheBytesMax`. */
  cacheBytes?: number | undefined
  /** Takes the access log. */
  accessLog: LogSink
  /** Takes what operators should hear of, a line at a time. */
  report: (line: string) => void
}

interface ListenAddress {
  host: string
  port: number
  /** Connections begin with a header of the PROXY protocol, from one of the trusted hops. Default false. */
  proxyProtocol?: boolean
  /** How long that header may take. Default limits.proxyHeaderTimeoutMs. */
  headerTimeoutMs?: number
}

export interface RunningGateway {
  /** The port that requests are taken on. */
  port: number
  /** The port that TLS is taken on. */
  httpsPort: number | undefined
  adminUrl: string
  /** Forgets kept answers; says how many. */
  purge(selector: Selector): number
  /** Takes no new connections, lets open requests end within `limits.drainMs`, says goodbye to WebSockets. */
  stop(): Promise<void>
}

/** Starts the gateway on this machine. Rejects with a UsageError when an address cannot be had. */
export async function startGateway(options: ServeOptions): Promise<RunningGateway> {
  const { compiled, accessLog, report } = options
  const overview = createOverview(compiled)
  const { metrics } = overview
  const pool = createPool({
    now: () => performance.now(),
    onChange: (upstream, change) => {
      overview.changed(upstream, change)
      const server = upstream.servers[change.index]?.origin
      report(`upstream ${upstream.id}: ${server} ${change.up ? 'is back' : 'is put aside'}: ${change.why}`)
    },
  })
  for (const upstream of compiled.upstreams) pool.of(upstream)
  const tunnels = new Set<Tunnel>()
  const cache = createResponseCache({ bytesMax: options.cacheBytes })
  const log = (line: string): void => accessLog.write(line)
  const ports = options.https && { http: options.http.port, https: options.https.port }
  const splits = startSplits({ ...compiled, ...options, directory: options.stateDirectory })
  const runtime = createNodeRuntime({ ...options, ports, pool, metrics, log, tunnels, cache, splits: splits.tally })
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
  const proxyFaults = new Map<ProxyFault, number>()
  function requireHeader(listener: NetServer, timeoutMs: number | undefined): void {
    requireProxyHeader(listener, {
      hops: options.trustedHops,
      timeoutMs,
      onFault: (fault, peer) => {
        proxyFaults.set(fault, (proxyFaults.get(fault) ?? 0) + 1)
        log(`{"time":"${new Date().toISOString()}","client":${JSON.stringify(peer)},"status":0,"cause":"${fault}"}\n`)
      },
    })
  }
  if (options.http.proxyProtocol) requireHeader(server, options.http.headerTimeoutMs)
  let connections = 0
  server.on('connection', (socket) => {
    connections++
    socket.once('close', () => connections--)
  })
  const tls = options.https && (await startTls(options, { http: server, handle, requireHeader }))
  await listen(server, options.http).catch((error: unknown) => {
    tls?.stop()
    throw error
  })
  const { port } = server.address() as AddressInfo
  if (ports && tls) {
    ports.http = port
    ports.https = tls.port
  }
  const admin = await startAdmin(
    {
      metrics,
      splits: splits.control,
      page: overview.page({
        hosts: options.adminHosts ?? [],
        pool,
        facts: runtime,
        showExplanation: options.showExplanation ?? ((explanation) => JSON.stringify(explanation, null, 2)),
        now: () => ({
          state: draining ? 'draining' : 'ready',
          clientConnections: connections,
          webSockets: tunnels.size,
          droppedLogLines: accessLog.dropped(),
          changesAllowed: options.adminToken !== undefined,
        }),
      }),
      token: options.adminToken,
      notReady: () => (draining ? 'draining' : undefined),
      gauges: () => [
        {
          name: 'daemun_client_connections',
          help: 'Open connections of clients.',
          value: connections + (tls?.http2() ?? 0),
        },
        { name: 'daemun_upstream_connections', help: 'Connections to upstreams in use.', value: pool.inUse() },
        ...(options.tracer?.gauges() ?? []),
        ...toUpstreamGauges(pool),
        ...splits.gauges(),
        { name: 'daemun_websockets', help: 'Joined WebSockets.', value: tunnels.size },
        {
          name: 'daemun_dropped_log_lines',
          help: 'Access-log lines that the reader was too slow for.',
          value: accessLog.dropped(),
        },
        ...cache.gauges(),
        ...(tls?.gauges() ?? []),
        ...toProxyGauges(proxyFaults),
      ],
      purge: cache.purge,
    },
    options.admin,
  ).catch((error: unknown) => {
    server.close()
    tls?.stop()
    throw toListenError(error, options.admin)
  })

  if (tls) {
    // Now that what is ordered can be proven.
    runtime.challenge = tls.challenge
    tls.acme.start()
  } else reportUnordered(options)
  const checks = startHealthChecks(pool.all(), Math.random)

  async function stop(): Promise<void> {
    draining = true
    checks.stop()
    splits.stop()
    overview.stop()
    const traced = options.tracer?.close()
    const closed = once(server, 'close')
    server.close()
    const closedTls = tls?.stop()
    for (const tunnel of tunnels) tunnel.sayGoodbye()
    // Connections that were kept alive for a next request, and those that become idle when their last one ends.
    const sweep = setInterval(() => server.closeIdleConnections(), idleSweepMs)
    const timer = setTimeout(() => {
      server.closeAllConnections()
      tls?.cut()
    }, limits.drainMs)
    await closed
    await closedTls
    clearInterval(sweep)
    clearTimeout(timer)
    await pool.close()
    await admin.close()
    await traced
    await accessLog.flush()
  }

  return { port, httpsPort: tls?.port, adminUrl: admin.url, purge: cache.purge, stop }
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

/** No lines before there is one. */
const toProxyGauges = (faults: Map<ProxyFault, number>): Gauge[] =>
  faults.size === 0
    ? []
    : [
        {
          name: 'daemun_proxy_header_faults_total',
          type: 'counter',
          help: 'Connections that were closed because they did not begin with a good PROXY header.',
          value: [...faults].map(([fault, value]) => ({ labels: { fault }, value })),
        },
      ]

interface RunningTls {
  port: number
  acme: Acme
  /** What answers a challenge of a certificate authority. */
  challenge: NonNullable<Facts['challenge']>
  gauges(): Gauge[]
  /** Takes nothing new and says GOAWAY; resolves when all connections are closed. */
  stop(): Promise<unknown>
  /** Closes what is still open. */
  cut(): void
  /** Connections that speak HTTP/2. */
  http2(): number
}

type RequireHeader = (listener: NetServer, timeoutMs: number | undefined) => void

/** HTTP/2, and HTTP/1.1 by the listener that takes it without TLS too. */
async function startTls(
  { compiled, https, report }: ServeOptions,
  { http, handle, requireHeader }: { http: Server; handle: Handle; requireHeader: RequireHeader },
): Promise<RunningTls> {
  const { host, port, certificates: directory, development } = https as NonNullable<ServeOptions['https']>
  const certificates = await openCertificates({ compiled, directory, development, report })
  const files = createAcmeFiles(directory)
  const acme = createAcme({ compiled, directory, certificates, files, report })
  const http2 = createHttp2Connections(handle)
  const tls = createTlsListener({
    contextFor: certificates.contextFor,
    http1: (socket) => http.emit('connection', socket),
    http2: http2.open,
  })
  if (https?.proxyProtocol) requireHeader(tls.server, https.headerTimeoutMs)
  await listen(tls.server, { host, port }).catch((error: unknown) => {
    certificates.close()
    http2.close()
    throw error
  })

  function stop(): Promise<unknown> {
    const closed = once(tls.server, 'close')
    tls.server.close()
    tls.closeHandshakes()
    const given = acme.stop()
    certificates.close()
    http2.close()
    return Promise.all([closed, given])
  }

  return {
    port: (tls.server.address() as AddressInfo).port,
    acme,
    challenge: files.find,
    gauges: () => [
      ...certificates.gauges(),
      ...acme.gauges(),
      { name: 'daemun_tls_handshakes', help: 'Connections in their TLS handshake.', value: tls.handshakes() },
      {
        name: 'daemun_tls_failures_total',
        help: 'Connections that were closed before their TLS handshake was done.',
        type: 'counter',
        value: tls.failures(),
      },
    ],
    stop,
    cut: http2.destroy,
    http2: http2.count,
  }
}

/** A table that orders certificates which nobody would be shown. */
function reportUnordered({ compiled, report }: ServeOptions): void {
  const tables = new Set(compiled.sites.filter(({ acme }) => acme).map(({ table }) => table))
  for (const table of tables) report(`tls.acme of '${table}' orders nothing: there is no --https`)
}

async function listen(server: NetServer, { host, port }: { host: string; port: number }): Promise<void> {
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
