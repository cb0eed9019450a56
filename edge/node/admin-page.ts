import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Context, Hono } from 'hono'
import { readAddress } from '../address.ts'
import type { Question } from '../explain.ts'
import { ranges } from '../history.ts'
import type { Points, Range, Scope } from '../history.ts'
import type { Gauge } from '../metrics.ts'
import { isRecord } from '../shape.ts'
import type { Status } from '../status.ts'
import { requireKnownHost } from './known-hosts.ts'

/** What the operators' page shows. */
export interface PageState {
  /** Names by which operators may ask, besides localhost and addresses. */
  hosts: string[]
  status(gauges: Gauge[]): Status | Promise<Status>
  points(scope: Scope, range: Range): Points
  /** What `daemun explain` would print. */
  explain(question: Question): Promise<string>
}

/** The files of the page, as they lie in `edge/admin/`: nothing builds them, nothing comes from elsewhere. */
export const pageFiles = {
  '/': { file: 'page.html', type: 'text/html; charset=utf-8' },
  '/page.css': { file: 'page.css', type: 'text/css; charset=utf-8' },
  ...Object.fromEntries(
    ['page', 'changes', 'elements', 'explain', 'live', 'plot', 'sections', 'words'].map((name) => [
      `/${name}.js`,
      { file: `${name}.js`, type: 'text/javascript; charset=utf-8' },
    ]),
  ),
} as const

export const pageFolder = new URL('../admin/', import.meta.url)

/** No script and no style but these files, nothing asked for but from here, shown in no other page's frame. */
const fields = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cache-Control': 'no-cache',
}

/** The page and what it asks for; all of it only reads. What is added to the listener after it is as closed to others. */
export function addPage(app: Hono, state: PageState, gauges: () => Gauge[]): void {
  app.use(requireKnownHost(state.hosts), secure)
  for (const [path, { file, type }] of Object.entries(pageFiles)) {
    const text = readFileSync(new URL(file, pageFolder), 'utf8')
    const etag = `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"`
    app.get(path, (context) => {
      if (context.req.header('if-none-match') === etag) return context.body(null, 304, { ...fields, ETag: etag })
      return context.body(text, 200, { ...fields, ETag: etag, 'Content-Type': type })
    })
  }
  app.get('/status', async (context) => context.json(await state.status(gauges())))
  app.get('/status/history', (context) => sendPoints(context, state))
  // A POST, so that the URLs and fields that are asked about stand in no URL.
  app.post('/explain', (context) => sendExplanation(context, state))
}

/** Nobody else's page may show or read any of it. */
async function secure(context: Context, next: () => Promise<void>): Promise<void> {
  await next()
  context.header('X-Content-Type-Options', 'nosniff')
  context.header('Cross-Origin-Resource-Policy', 'same-origin')
  context.header('Referrer-Policy', 'no-referrer')
  if (!context.res.headers.has('Cache-Control')) context.header('Cache-Control', 'no-store')
}

const isRange = (text: string): text is Range => (ranges as readonly string[]).includes(text)

function sendPoints(context: Context, { points }: PageState): Response {
  const { range = '15m', table, site, route } = context.req.query()
  if (!isRange(range)) return badRequest(context, `range is '${range}': write ${ranges.join(' or ')}`)
  if ((route !== undefined && site === undefined) || (site !== undefined) !== (table !== undefined))
    return badRequest(context, 'table and site come together, and route with both of them')
  return context.json(points({ table, site, route }, range))
}

async function sendExplanation(context: Context, { explain }: PageState): Promise<Response> {
  // A form of another page cannot send this type without asking first, which is not answered.
  if (!/^application\/json\b/.test(context.req.header('content-type') ?? ''))
    return badRequest(context, 'the body is JSON: send Content-Type: application/json')
  if (!(Number(context.req.header('content-length')) <= questionBytesMax))
    return badRequest(context, `the body is longer than ${questionBytesMax} bytes, or does not say how long it is`)
  const question = readQuestion(await context.req.json().catch(() => undefined))
  if ('fault' in question) return badRequest(context, question.fault)
  return context.text(await explain(question))
}

const questionBytesMax = 65_536

const badRequest = (context: Context, detail: string): Response => context.json({ code: 'bad_request', detail }, 400)

function readQuestion(body: unknown): Question | { fault: string } {
  if (!isRecord(body)) return { fault: 'the body is no JSON object: send {"url": "https://…"}' }
  const { method = 'GET', url, headers = [], from = '203.0.113.7' } = body
  if (typeof method !== 'string' || !/^[A-Z]+(-[A-Z]+)*$/.test(method))
    return { fault: 'method is no method: write it in capitals, such as GET' }
  if (typeof url !== 'string' || !/^(https?|wss?):\/\/[^/?#]+[^\s]*$/i.test(url))
    return { fault: 'url is no URL: write it with http:// or https:// (ws:// or wss:// asks for a WebSocket)' }
  if (typeof from !== 'string' || !readAddress(from))
    return { fault: 'from is no address: write 203.0.113.7 or 2001:db8::7' }
  if (!Array.isArray(headers) || !headers.every(isField))
    return { fault: 'headers is no list of fields: write [["name", "value"]], in visible ASCII' }
  return { method, url, headers, from }
}

const isField = (field: unknown): field is [string, string] =>
  Array.isArray(field) &&
  field.length === 2 &&
  /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(String(field[0])) &&
  typeof field[1] === 'string' &&
  /^[\t\x20-\x7e]*$/.test(field[1])
