import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { readSelector } from '../cache/selector.ts'
import type { Selector } from '../cache/selector.ts'
import type { Gauge, Metrics } from '../metrics.ts'
import type { SplitControl } from '../upstreams/split-control.ts'
import { addPage } from './admin-page.ts'
import type { PageState } from './admin-page.ts'
import { addSplits } from './admin-splits.ts'
import { requireAdminToken } from './admin-token.ts'
import { toListenError } from './listen-on.ts'
import type { Reloader } from './reload.ts'

export interface AdminState {
  metrics: Metrics
  /** In a worker the supervisor has it. */
  splits: SplitControl | undefined
  /** What changes have to be asked for with; without it there are none. */
  token: string | undefined
  page: PageState
  /** Why no request should be sent here now; undefined when all is well. */
  notReady(): string | undefined
  gauges(): Gauge[]
  /** Forgets kept answers, in every process; says how many. */
  purge(selector: Selector): number | Promise<number>
  /** Reads the tables again, where they came from files. */
  reload: Reloader['reload'] | undefined
}

/** What answers operators; in a worker without a listener of its own. */
export type AdminApp = Pick<Hono, 'request' | 'fetch'>

export interface Admin {
  /** Where it listens, such as 'http://127.0.0.1:9090'. */
  url: string
  close(): Promise<void>
}

/** For operators: health, metrics and a page for everybody, changes for who has the token. */
export function createAdminApp(state: AdminState): AdminApp {
  const app = new Hono()
  addPage(app, state.page, state.gauges)
  app.use(requireAdminToken(state.token))
  app.get('/healthz', (context) => context.text('ok\n'))
  app.get('/readyz', (context) => {
    const reason = state.notReady()
    return reason === undefined ? context.text('ready\n') : context.text(`${reason}\n`, 503)
  })
  app.get('/metrics', (context) =>
    context.body(state.metrics.toText(state.gauges()), 200, {
      'content-type': 'text/plain; version=0.0.4; charset=utf-8',
    }),
  )
  if (state.splits) addSplits(app, state.splits)
  app.post('/purge', async (context) => {
    const selector = readSelector(await context.req.json().catch(() => undefined))
    if ('fault' in selector) return context.json({ code: 'malformed_selector', detail: selector.fault }, 400)
    return context.json({ purged: await state.purge(selector) })
  })
  const { reload } = state
  if (reload)
    app.post('/reload', async (context) => {
      const result = await reload()
      return context.json(result, result.outcome === 'swapped' ? 200 : 422)
    })
  // A supervisor has them (`supervisor.ts`).
  app.post('/workers', (context) =>
    context.json({ code: 'no_workers', detail: 'it serves in one process: start it with --workers' }, 409),
  )
  return app
}

/** Rejects with a UsageError when the address cannot be had. */
export function listenAdmin(app: AdminApp, { host, port }: { host: string; port: number }): Promise<Admin> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, hostname: host, port }, (address) =>
      resolve({
        url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
        close: () => new Promise((done) => server.close(() => done())),
      }),
    )
    server.once('error', (error) => reject(toListenError(error, { host, port })))
  })
}
