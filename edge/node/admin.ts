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

export interface AdminState {
  metrics: Metrics
  splits: SplitControl
  /** What changes have to be asked for with; without it there are none. */
  token: string | undefined
  page: PageState
  /** Why no request should be sent here now; undefined when all is well. */
  notReady(): string | undefined
  gauges(): Gauge[]
  /** Forgets kept answers, in every process; says how many. */
  purge(selector: Selector): number | Promise<number>
}

export interface Admin {
  /** Where it listens, such as 'http://127.0.0.1:9090'. */
  url: string
  close(): Promise<void>
}

/** The listener for operators: health, metrics and a page for everybody, changes for who has the token. */
export function startAdmin(state: AdminState, { host, port }: { host: string; port: number }): Promise<Admin> {
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
  addSplits(app, state.splits)
  app.post('/purge', async (context) => {
    const selector = readSelector(await context.req.json().catch(() => undefined))
    if ('fault' in selector) return context.json({ code: 'malformed_selector', detail: selector.fault }, 400)
    return context.json({ purged: await state.purge(selector) })
  })
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, hostname: host, port }, (address) =>
      resolve({
        url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
        close: () => new Promise((done) => server.close(() => done())),
      }),
    )
    server.once('error', reject)
  })
}
