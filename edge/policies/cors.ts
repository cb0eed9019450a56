import type { ResponseEdits } from '../actions/headers.ts'
import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import type { Refusal } from '../error.ts'
import type { Report } from '../shape.ts'
import type { Cors, Route, Site } from '../table.ts'
import { toTwin } from '../twin.ts'
import type { Binding, BoundPolicy, Verdict } from './index.ts'

/** Whose pages may read a row's answers (Fetch, "CORS protocol"). */
export interface CompiledCors {
  /** '*': all. */
  origins: '*' | ReadonlySet<string>
  /** Hosts of the origins' twins, which stand for them where a twin is asked. */
  twins: ReadonlySet<string>
  credentials: boolean
  methods: readonly string[]
  /** Lower-cased; '*': all. */
  headers: '*' | readonly string[]
  /** Access-Control-Expose-Headers. */
  exposed: string
  maxAgeSeconds: number
}

/** Answers browsers that ask before they send (preflight), and says of every other answer whose pages may read it. */
export function bindCors({ site, route, report }: Binding): BoundPolicy | undefined {
  const cors = toCors(site, route)
  if (!cors) return undefined
  if (route.cors) findCorsFaults(route.cors, 'cors', report)
  findDoubledFields(route, report)

  function check(exchange: Exchange): Verdict {
    const own = toCorsFields(cors as CompiledCors, exchange)
    exchange.answerHeaders.push(...own)
    const asked = readPreflight(exchange)
    if (asked && route.methods && !takes(route.methods, asked.method))
      return refused(`nothing here is asked for with '${asked.method.slice(0, 40)}'`)
    if (asked) return answerPreflight(cors as CompiledCors, exchange, asked)
    return own.length > 2 ? readable : own.length === 0 || !hasOrigin(exchange) ? noPage : unreadable
  }

  return { name: 'cors', describe: describeCors((route.cors || site.cors) as Cors), check }
}

/** What a row or, without one, a site says of other origins' pages. */
export function toCors(site: Pick<Site, 'cors'>, route?: Pick<Route, 'cors'>): CompiledCors | undefined {
  const cors = route?.cors ?? site.cors
  return cors ? compileCors(cors) : undefined
}

function compileCors(cors: Cors): CompiledCors {
  const origins = readOrigins(cors.origins)
  return {
    origins: origins.includes('*') ? '*' : new Set(origins),
    twins: new Set(origins.filter((origin) => URL.canParse(origin)).map((origin) => toTwin(new URL(origin).hostname))),
    credentials: cors.credentials ?? false,
    methods: cors.methods ?? ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    headers: cors.headers === '*' ? '*' : (cors.headers ?? ['authorization', 'content-type']).map(toLower),
    exposed: [...ownFields, ...(cors.exposedHeaders ?? [])].join(', '),
    maxAgeSeconds: cors.maxAgeSeconds ?? 600,
  }
}

/** One text may hold several: between commas, or as a JSON list. */
export function readOrigins(written: string | string[]): string[] {
  if (Array.isArray(written)) return written.flatMap(readOrigins)
  const text = written.trim()
  if (!text.startsWith('["')) return text.split(',').map((one) => one.trim())
  try {
    return [JSON.parse(text)].flat().map(String)
  } catch {
    return [text]
  }
}

/** As browsers write it in Origin (RFC 6454 §6.2): no path, no default port, lower case; 'null' is nobody's own. */
export const isPageOrigin = (text: string): boolean =>
  text === '*' || (/^https?:/.test(text) && URL.canParse(text) && new URL(text).origin === text)

/** The fields that let the page read the answer; when it depends on who asks, caches are told so. */
export function toCorsFields(cors: CompiledCors, exchange: Exchange): string[] {
  const { origins, credentials, exposed } = cors
  const origin = fieldValue(exchange.headers, 'origin')
  if (origins === '*') return ['Access-Control-Allow-Origin', '*', 'Access-Control-Expose-Headers', exposed]
  if (origin === undefined || !isAllowed(cors, origin, exchange)) return ['Vary', 'Origin']
  const allowed = ['Access-Control-Allow-Origin', origin, 'Access-Control-Expose-Headers', exposed, 'Vary', 'Origin']
  return credentials ? [...allowed, 'Access-Control-Allow-Credentials', 'true'] : allowed
}

/** A twin's pages come from twins too, on whatever port. */
function isAllowed({ origins, twins }: CompiledCors, origin: string, { host }: Exchange): boolean {
  if (origins === '*' || origins.has(origin)) return true
  return host.endsWith('.localhost') && isPageOrigin(origin) && twins.has(new URL(origin).hostname)
}

/** What a browser asks leave for. */
export interface Preflight {
  method: string
  /** Lower-cased names. */
  headers: string[]
}

/** Fetch, "CORS-preflight request". */
export function readPreflight(exchange: Exchange): Preflight | undefined {
  if (exchange.method !== 'OPTIONS' || !hasOrigin(exchange)) return undefined
  const method = fieldValue(exchange.headers, 'access-control-request-method')
  if (method === undefined) return undefined
  const names = fieldValue(exchange.headers, 'access-control-request-headers') ?? ''
  const headers = names.toLowerCase().split(',')
  return { method, headers: headers.map((name) => name.trim()).filter((name) => name !== '') }
}

const takes = (methods: string[], method: string): boolean =>
  methods.includes(method) || (method === 'HEAD' && methods.includes('GET'))

const hasOrigin = ({ headers }: Exchange): boolean => fieldValue(headers, 'origin') !== undefined

function answerPreflight(cors: CompiledCors, exchange: Exchange, { method, headers }: Preflight): Verdict {
  const origin = fieldValue(exchange.headers, 'origin') ?? ''
  if (!isAllowed(cors, origin, exchange)) return refused(`pages of '${origin.slice(0, 200)}' may not ask`)
  if (!cors.methods.includes(method)) return refused(`other origins' pages may not ask with '${method.slice(0, 40)}'`)
  const { headers: allowed } = cors
  const unknown = headers.find((name) => !isFieldName(name) || (allowed !== '*' && !allowed.includes(name)))
  if (unknown !== undefined) return refused(`other origins' pages may not send the field '${unknown.slice(0, 80)}'`)
  const listed = allowed === '*' ? headers : allowed
  return {
    outcome: 'answer',
    reason: 'a browser asks whether it may',
    status: 204,
    headers: [
      'Access-Control-Allow-Methods',
      cors.methods.join(', '),
      ...(listed.length > 0 ? ['Access-Control-Allow-Headers', listed.join(', ')] : []),
      'Access-Control-Max-Age',
      String(cors.maxAgeSeconds),
    ],
  }
}

const refused = (detail: string): Verdict => {
  const refusal: Refusal = { code: 'cors_refused', detail }
  return { outcome: 'refuse', reason: detail, refusal }
}

const corsAnswerFields = [
  'access-control-allow-origin',
  'access-control-allow-credentials',
  'access-control-allow-methods',
  'access-control-allow-headers',
  'access-control-expose-headers',
  'access-control-max-age',
]

/** What an upstream says of this is not passed on then: two answers to one question are none. */
export const dropCorsFields = (edits: ResponseEdits, cors: CompiledCors | undefined): ResponseEdits =>
  cors ? { ...edits, drops: new Set([...edits.drops, ...corsAnswerFields]) } : edits

/** What cannot be meant, or no browser would obey. */
export function findCorsFaults(cors: Cors, at: string, report: Report): void {
  const origins = readOrigins(cors.origins)
  if (!origins.includes('*')) return
  if (origins.length > 1) report(`${at}.origins`, "has '*' and others", "leave '*' out, or the others")
  // Fetch, "CORS protocol and credentials": a browser takes no '*' for an answer then.
  if (cors.credentials)
    report(`${at}.credentials`, "cannot go with the origin '*'", 'list the origins whose pages may use them')
  if (cors.credentials && cors.headers === '*') report(`${at}.headers`, "cannot be '*' with credentials", 'list them')
}

function findDoubledFields({ responseHeaders, headers }: Route, report: Report): void {
  const set = { ...responseHeaders?.set, ...(typeof headers === 'object' && headers) }
  const doubled = Object.keys(set).find((name) => corsAnswerFields.includes(name.toLowerCase()))
  if (doubled !== undefined) report('cors', `says what the row also sets: ${doubled}`, `drop '${doubled}'`)
}

const toLower = (text: string): string => text.toLowerCase()
const isFieldName = (name: string): boolean => /^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)

/** Fields of the gateway's own that pages have a use for. */
const ownFields = ['X-Request-Id', 'Retry-After', 'RateLimit', 'RateLimit-Policy']

const readable: Verdict = { outcome: 'pass', reason: 'the page may read the answer' }
const unreadable: Verdict = { outcome: 'pass', reason: 'the page may not read the answer: its origin is not listed' }
const noPage: Verdict = { outcome: 'pass', reason: "no other origin's page asks" }

/** 'pages of https://app.example with credentials'. */
export const describeCors = ({ origins, credentials }: Cors): string => {
  const listed = readOrigins([origins].flat())
  const more = listed.length > 2 ? ` and ${listed.length - 2} more` : ''
  const named = listed.includes('*') ? 'any origin' : listed.slice(0, 2).join(', ') + more
  return `pages of ${named}${credentials ? ' with credentials' : ''}`
}
