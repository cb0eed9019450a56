import { getConnInfo } from '@hono/node-server/conninfo'
import { Hono } from 'hono'
import type { Context } from 'hono'
import type { CompiledGateway, TableSource } from '../compile.ts'
import { createLocalLimiter } from '../local-limiter.ts'
import { toGaugesText } from '../metrics.ts'
import { isRecord } from '../shape.ts'
import type { SplitControl } from '../upstreams/split-control.ts'
import { listenAdmin } from './admin.ts'
import { addPage } from './admin-page.ts'
import type { PageState } from './admin-page.ts'
import { addSplits } from './admin-splits.ts'
import { requireAdminToken } from './admin-token.ts'
import type { Config } from './config.ts'
import { bind } from './listen-on.ts'
import type { Bound, ListenOn } from './listen-on.ts'
import { mergeMetrics } from './merge-metrics.ts'
import type { Reloader } from './reload.ts'
import type { ProxyProtocol } from './serve.ts'
import { startDeciding } from './splits.ts'
import type { AdminAnswer, AdminRequest, Served } from './worker-protocol.ts'
import { createWorkers } from './workers.ts'
import type { Workers } from './workers.ts'
import { createWorkersOverview } from './workers-overview.ts'

export interface SupervisorOptions {
  workers: number
  /** What a worker runs. */
  program: URL
  config: Config
  sources: TableSource[]
  compiled: CompiledGateway
  http: ListenOn & ProxyProtocol
  https: (ListenOn & ProxyProtocol) | undefined
  admin: { host: string; port: number }
  reloader: Reloader
  report: (line: string) => void
  /** No worker stays alive. */
  onHopeless: () => void
}

export interface Supervisor {
  port: number
  httpsPort: number | undefined
  adminUrl: string
  /** Has all workers serve by these tables, which are known to be good. */
  swap(served: Served, compiled: CompiledGateway): Promise<void>
  replaceWorkers(): Promise<void>
  stop(): Promise<void>
}

/**
 * Binds the sockets, has workers serve on them, and answers operators for all of them. It takes no request itself, so
 * that no client can hurt it, and the sockets outlive every worker.
 */
export async function startSupervisor(options: SupervisorOptions): Promise<Supervisor> {
  const { config, reloader, report } = options
  const http = await bind(options.http)
  const https = options.https && (await bind(options.https))
  let served: Served = { sources: options.sources, environment: config.environment }
  const weights: Record<string, readonly number[]> = {}
  const workers = createWorkers({
    count: options.workers,
    program: options.program,
    order: () => ({
      ...served,
      development: config.development,
      trustedHops: config.trustedHops,
      redisUrl: config.redisUrl,
      adminToken: config.adminToken,
      adminHosts: config.adminHosts,
      cacheBytes: config.cacheBytes,
      http: toOrder(http, options.http),
      https: https && { ...toOrder(https, options.https), certificates: config.certificates },
      weights,
    }),
    limiter: createLocalLimiter({ now: Date.now }),
    report,
    onHopeless: options.onHopeless,
  })
  const deciding = startDeciding({
    splits: options.compiled.splits,
    report,
    directory: config.stateDirectory,
    apply: (id, given) => {
      weights[id] = given
      workers.setWeights(id, given)
    },
    takeReports: workers.takeReports,
  })
  const overview = createWorkersOverview({
    compiled: options.compiled,
    workers,
    hosts: config.adminHosts,
    now: () => ({ state: draining ? 'draining' : 'ready', changesAllowed: config.adminToken !== undefined }),
  })
  const app = createSupervisorApp({
    workers,
    splits: deciding.control,
    page: overview.page,
    reloader,
    token: config.adminToken,
    isDraining: () => draining,
  })
  let draining = false
  const admin = await listenAdmin(app, options.admin)
  const ports = await workers.start().catch(async (error: unknown) => {
    await workers.stop()
    await admin.close()
    throw error
  })

  return {
    port: ports.http,
    httpsPort: ports.https,
    adminUrl: admin.url,
    swap: async (next, compiled) => {
      served = next
      await workers.swap()
      deciding.control.keep(compiled.splits)
      overview.keep(compiled)
    },
    replaceWorkers: workers.replaceAll,
    stop: async () => {
      draining = true
      deciding.stop()
      overview.stop()
      // While anybody has it open, clients would connect to a socket on which nobody takes them.
      http.close()
      https?.close()
      await workers.stop()
      await admin.close()
    },
  }
}

interface AppOptions {
  workers: Workers
  splits: SplitControl
  page: PageState
  reloader: Reloader
  token: string | undefined
  isDraining: () => boolean
}

/** What a single gateway answers operators, of all workers together. */
function createSupervisorApp({ workers, splits, page, reloader, token, isDraining }: AppOptions): Hono {
  const app = new Hono()
  addPage(app, page, reloader.gauges)
  app.use(requireAdminToken(token))
  app.get('/healthz', (context) => context.text('ok\n'))
  app.get('/readyz', (context) => {
    const reason = isDraining() ? 'draining' : workers.ready() === 0 ? 'no worker is ready' : undefined
    return reason === undefined ? context.text('ready\n') : context.text(`${reason}\n`, 503)
  })
  app.get('/metrics', async (context) => {
    const { told, gone } = await workers.hear()
    const own = toGaugesText([...workers.gauges(), ...reloader.gauges()])
    const merged = mergeMetrics([...told.map(toMetrics), own], gone.map(toMetrics))
    return context.body(merged, 200, { 'content-type': metricsType })
  })
  app.post('/reload', async (context) => {
    const result = await reloader.reload()
    return context.json(result, result.outcome === 'swapped' ? 200 : 422)
  })
  app.post('/workers', async (context) => {
    try {
      await workers.replaceAll()
      return context.json({ replaced: workers.ready() })
    } catch (error) {
      return context.json({ code: 'worker_did_not_start', detail: String(error) }, 409)
    }
  })
  addSplits(app, splits)
  app.post('/purge', async (context) => {
    const { answers, silent } = await workers.askAll(await toRequest(context))
    if (silent.length > 0)
      return context.json(
        { code: 'worker_silent', detail: `process ${silent.join(', ')} did not answer and may keep it: ask again` },
        503,
      )
    return answers.length === 0 ? context.text('no worker is ready\n', 503) : mergeAnswers(answers)
  })
  return app
}

const toMetrics = ({ metrics }: { metrics: string }): string => metrics
const metricsType = 'text/plain; version=0.0.4; charset=utf-8'

const toOrder = ({ descriptor }: Bound, { proxyProtocol = false }: ProxyProtocol = {}) => ({
  descriptor,
  proxyProtocol,
})

async function toRequest(context: Context): Promise<AdminRequest> {
  const { req } = context
  return {
    from: getConnInfo(context).remote.address ?? '',
    method: req.method,
    url: req.url,
    headers: Object.entries(req.header()),
    body: new Uint8Array(await req.arrayBuffer()),
  }
}

const toResponse = ({ status, headers, body }: AdminAnswer): Response => new Response(body, { status, headers })

/** The worst answer; of equally good ones the first, with the numbers of all of them added up. */
function mergeAnswers(answers: AdminAnswer[]): Response {
  const worst = answers.reduce((a, b) => (b.status > a.status ? b : a))
  const bodies = answers.map(readNumbers)
  if (worst.status >= 300 || bodies.some((body) => body === undefined)) return toResponse(worst)
  const names = new Set(bodies.flatMap((body) => Object.keys(body ?? {})))
  const sums = [...names].map((name) => [name, bodies.reduce((sum, body) => sum + (body?.[name] ?? 0), 0)])
  return Response.json(Object.fromEntries(sums), { status: worst.status })
}

/** A JSON object of which every member is a number, such as how many were purged. */
function readNumbers({ headers, body }: AdminAnswer): Record<string, number> | undefined {
  const type = headers.find(([name]) => name.toLowerCase() === 'content-type')?.[1] ?? ''
  if (!type.startsWith('application/json')) return undefined
  const data: unknown = JSON.parse(new TextDecoder().decode(body))
  if (!isRecord(data) || !Object.values(data).every((value) => typeof value === 'number')) return undefined
  return data as Record<string, number>
}
