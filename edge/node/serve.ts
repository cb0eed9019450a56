import { once } from 'node:events'
import type { Server } from 'node:http'
import { Server as NetServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import type { Network } from '../address.ts'
import type { Selector } from '../cache/selector.ts'
import type { CompiledFiles, CompiledGateway, CompiledRoute } from '../compile.ts'
import { identify } from '../exchange.ts'
import type { Explanation } from '../explain.ts'
import type { RawRequest } from '../exchange.ts'
import { createGateway, refuse } from '../gateway.ts'
import { limits } from '../limits.ts'
import type { Gauge, Sample } from '../metrics.ts'
import { hasSameRow } from '../same-row.ts'
import type { SplitTally } from '../upstreams/split-tally.ts'
import type { Facts, Limiter } from '../runtime.ts'
import { createAcme } from './acme.ts'
import type { Acme } from './acme.ts'
import { createAcmeFiles } from './acme-files.ts'
import { createAdminApp, listenAdmin } from './admin.ts'
import type { AdminApp } from './admin.ts'
import { createAssets } from './assets.ts'
import { openCertificates } from './certificates.ts'
import type { Certificates } from './certificates.ts'
import type { NodeIo } from './exchange-io.ts'
import { createHttp2Connections } from './http2.ts'
import { createListener } from './listen.ts'
import { listen } from './listen-on.ts'
import type { ListenOn } from './listen-on.ts'
import type { Handle } from './listen.ts'
import type { LogSink } from './log-sink.ts'
import { createOverview } from './overview.ts'
import { createPool } from './pool.ts'
import type { Pool } from './pool.ts'
import { requireProxyHeader } from './proxy-protocol.ts'
import type { ProxyFault } from './proxy-protocol.ts'
import { startHealthChecks } from './health-checks.ts'
import { createResponseCache } from './response-cache.ts'
import type { Reloader } from './reload.ts'
import { createNodeRuntime } from './runtime.ts'
import { startSplits } from './splits.ts'
import type { SplitWeights } from './splits.ts'
import { createTlsListener } from './tls.ts'
import type { Tracer } from './tracer.ts'
import type { Tunnel } from './upgrade.ts'
import type { Told } from './worker-protocol.ts'

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
  http: ListenOn & ProxyProtocol
  /** Where TLS is taken, and what with. */
  https?: ListenOn & ProxyProtocol & { certificates: string; development: boolean }
  /** Where operators ask; without it, whoever has started this asks for them. */
  admin?: { host: string; port: number }
  /** What changes on the admin listener are asked for with; without it there are none. */
  adminToken?: string | undefined
  /** Reads the tables again; without it, what is served stays as it is. */
  reloader?: Reloader
  /** Default limits.reloadGraceMs. */
  reloadGraceMs?: number
  /** Default limits.drainMs. */
  drainMs?: number
  /** The folder in which changes of splits outlive the process; without it they do not. */
  stateDirectory?: string | undefined
  /** How often rollouts are judged. Default limits.rolloutJudgeMs. */
  judgeMs?: number
  /** How many bytes of answers are kept at most. Default `limits.cacheBytesMax`. */
  cacheBytes?: number | undefined
  /** Somebody else decides about the weights of splits, from these to begin with. */
  weights?: SplitWeights
  /** Takes the access log. */
  accessLog: LogSink
  /** Takes what operators should hear of, a line at a time. */
  report: (line: string) => void
}

export interface ProxyProtocol {
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
  /** Empty without a listener. */
  adminUrl: string
  /** Forgets kept answers; says how many. */
  purge(selector: Selector): number
  adminApp: AdminApp
  /** What was counted and what is open, for who answers operators in place of this gateway. */
  tell(): Told
  /** What was counted of splits, and their weights, where somebody else decides about them. */
  splits: SplitTally
  /**
   * Serves by other tables from now on. Requests end as they began, and what has not changed stays as it is:
   * connections to upstreams, what is known of their health, files in memory, counts of limits, verified tokens.
   * WebSockets of rows that have changed are told to come again.
   */
  swap(compiled: CompiledGateway): Promise<void>
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
  pool.keep(compiled.upstreams)
  const assets = createAssets()
  const tunnels = new Set<Tunnel>()
  const cache = createResponseCache({ bytesMax: options.cacheBytes })
  const log = (line: string): void => accessLog.write(line)
  const ports = options.https && { http: 0, https: 0 }
  const splits = startSplits({ ...compiled, ...options, directory: options.stateDirectory })
  const runtime = createNodeRuntime({
    ...options,
    ports,
    pool,
    assets,
    metrics,
    log,
    tunnels,
    cache,
    splits: splits.tally,
  })
  let gateway = createGateway(compiled, runtime)
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
  const page = overview.page({
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
  })
  const gauges = (): Gauge[] => [
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
    ...(options.reloader?.gauges() ?? []),
  ]
  const adminApp = createAdminApp({
    metrics,
    splits: splits.control,
    page,
    token: options.adminToken,
    notReady: () => (draining ? 'draining' : undefined),
    gauges,
    purge: cache.purge,
    reload: options.reloader?.reload,
  })
  const admin =
    options.admin &&
    (await listenAdmin(adminApp, options.admin).catch((error: unknown) => {
      server.close()
      tls?.stop()
      throw error
    }))

  if (tls) {
    // Now that what is ordered can be proven.
    runtime.challenge = tls.challenge
    tls.acme.start()
  } else reportUnordered(options)
  const checks = startHealthChecks(Math.random)
  checks.keep(pool.all())

  async function swap(next: CompiledGateway): Promise<void> {
    await tls?.certificates.serve(next)
    await tls?.acme.swap(next)
    splits.keep(next.splits)
    overview.keep(next)
    gateway = createGateway(next, runtime)
    pool.keep(next.upstreams)
    if (!draining) checks.keep(pool.all())
    assets.keep(next.sites.flatMap(({ routes }) => routes.flatMap(toFiles)))
    const changed = [...tunnels].filter(({ exchange }) => !hasSameRow(next, exchange))
    for (const tunnel of changed) dismissLater(tunnel, options.reloadGraceMs ?? limits.reloadGraceMs)
  }

  async function stop(): Promise<void> {
    draining = true
    checks.stop()
    splits.stop()
    overview.stop()
    const traced = options.tracer?.close()
    const closed = once(server, 'close')
    // The server's own would close idle connections, on which the next request may be on its way already.
    NetServer.prototype.close.call(server)
    const closedTls = tls?.stop()
    for (const tunnel of tunnels) tunnel.sayGoodbye('goingAway')
    // Their next answer tells them to close. Then those that are idle are closed, and those that become it.
    let sweep: NodeJS.Timeout | undefined
    const announced = setTimeout(() => {
      tls?.closeIdle()
      sweep = setInterval(() => server.closeIdleConnections(), idleSweepMs)
    }, limits.drainAnnounceMs)
    const timer = setTimeout(() => {
      server.closeAllConnections()
      tls?.cut()
    }, options.drainMs ?? limits.drainMs)
    await closed
    await closedTls
    clearTimeout(announced)
    clearInterval(sweep)
    clearTimeout(timer)
    await pool.close()
    await admin?.close()
    await traced
    await accessLog.flush()
  }

  return {
    port,
    httpsPort: tls?.port,
    adminUrl: admin?.url ?? '',
    adminApp,
    tell: () => {
      const now = gauges()
      return { metrics: metrics.toText(now), counts: metrics.counts(), status: page.status(now) }
    },
    splits: splits.tally,
    purge: cache.purge,
    swap,
    stop,
  }
}

const idleSweepMs = 50

const toFiles = ({ action }: CompiledRoute): CompiledFiles[] => (action.kind === 'files' ? [action.files] : [])

/** Not all at once: those that are told to come again do. */
function dismissLater(tunnel: Tunnel, graceMs: number): void {
  setTimeout(() => tunnel.sayGoodbye('serviceRestart'), graceMs * (0.5 + Math.random() / 2)).unref()
}

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
  certificates: Certificates
  /** What answers a challenge of a certificate authority. */
  challenge: NonNullable<Facts['challenge']>
  gauges(): Gauge[]
  /** Takes nothing new and says that GOAWAY will come; resolves when all connections are closed. */
  stop(): Promise<unknown>
  /** Says GOAWAY. */
  closeIdle(): void
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
  const { certificates: directory, development, ...on } = https as NonNullable<ServeOptions['https']>
  const certificates = await openCertificates({ compiled, directory, development, report })
  const files = createAcmeFiles(directory)
  const acme = createAcme({ compiled, directory, certificates, files, report })
  const http2 = createHttp2Connections(handle)
  const tls = createTlsListener({
    contextFor: certificates.contextFor,
    http1: (socket) => http.emit('connection', socket),
    http2: http2.open,
  })
  if (on.proxyProtocol) requireHeader(tls.server, on.headerTimeoutMs)
  await listen(tls.server, on).catch((error: unknown) => {
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
    http2.announce()
    return Promise.all([closed, given])
  }

  return {
    port: (tls.server.address() as AddressInfo).port,
    acme,
    certificates,
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
    closeIdle: http2.close,
    cut: http2.destroy,
    http2: http2.count,
  }
}

/** A table that orders certificates which nobody would be shown. */
function reportUnordered({ compiled, report }: ServeOptions): void {
  const tables = new Set(compiled.sites.filter(({ acme }) => acme).map(({ table }) => table))
  for (const table of tables) report(`tls.acme of '${table}' orders nothing: there is no --https`)
}
