import type { Trace } from '../trace-context.ts'
import type { RequestEdits } from '../compile.ts'
import type { Exchange } from '../exchange.ts'
import type { CachePreset, HeadersPreset, Route, SharedCache, Site } from '../table.ts'

/** The edits of an answer's fields that a row asks for, resolved at load. */
export interface ResponseEdits {
  /** Lower-cased names that are not taken from an upstream's answer: hop-by-hop, overridden or removed. */
  drops: ReadonlySet<string>
  /** Always sent; flat. */
  set: string[]
  /** Sent unless the upstream's answer has them: lower-cased name, then the field, flat. */
  defaults: { name: string; field: [string, string] }[]
  /** Cache-Control of successful answers. */
  cacheControl: string | undefined
}

/** Fields that end at each hop (RFC 9110 §7.6.1), and those that only the gateway says. */
const hopByHop = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]
const gatewayOnly = ['x-request-id', 'x-daemun-edge']

const basic = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'SAMEORIGIN',
  'Referrer-Policy': 'strict-origin-when-cross-origin',
}

const presets: Record<HeadersPreset, Record<string, string>> = {
  none: {},
  basic,
  strict: {
    ...basic,
    'X-Frame-Options': 'DENY',
    'Content-Security-Policy': "base-uri 'self'; frame-ancestors 'none'; object-src 'none'",
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
  },
}

/** RFC 9111 §5.2.2, RFC 8246. */
const cachePresets: Record<Exclude<CachePreset, 'shared'>, string> = {
  'no-store': 'no-store',
  revalidate: 'no-cache',
  immutable: 'public, max-age=31536000, immutable',
}

export function toResponseEdits(site: Site, route: Route | undefined): ResponseEdits {
  const security = route?.headers ?? site.headers ?? 'basic'
  const { set = {}, remove = [] } = route?.responseHeaders ?? {}
  const shared = readShared(route?.cache)
  const limited = route?.limit ? ['ratelimit', 'ratelimit-policy'] : []
  const hsts = site.https ? ['strict-transport-security'] : []
  return {
    drops: new Set(
      [
        ...hopByHop,
        ...gatewayOnly,
        ...limited,
        ...hsts,
        ...(shared ? ['cache-tag'] : []),
        ...Object.keys(set),
        ...remove,
      ].map((name) => name.toLowerCase()),
    ),
    set: Object.entries(set).flat(),
    defaults: Object.entries(typeof security === 'string' ? presets[security] : security)
      .filter(([name]) => !remove.some((removed) => removed.toLowerCase() === name.toLowerCase()))
      .map((field) => ({ name: field[0].toLowerCase(), field })),
    cacheControl: toCacheControl(route?.cache),
  }
}

/** What a row says of the gateway's own cache, if it has one. */
export function readShared(cache: Route['cache']): SharedCache | undefined {
  if (typeof cache === 'string') return cache === 'shared' ? {} : undefined
  return cache?.shared === true ? {} : cache?.shared
}

function toCacheControl(cache: Route['cache']): string | undefined {
  if (typeof cache !== 'string') return cache?.control
  return cache === 'shared' ? undefined : cachePresets[cache]
}

/** The fields an answer of the gateway itself carries: its own, then the row's and the policies'. */
export function toAnswerHeaders(exchange: Exchange, edits: ResponseEdits, own: string[]): string[] {
  const headers = [...own]
  const has = (name: string): boolean => own.some((field, index) => index % 2 === 0 && field.toLowerCase() === name)
  for (const { name, field } of edits.defaults) if (!has(name) && !edits.drops.has(name)) headers.push(...field)
  headers.push(...edits.set)
  return appendOwn(headers, exchange)
}

/**
 * An upstream's answer as the client gets it: without hop-by-hop fields and those its Connection field names, with
 * the row's edits. `received` is flat, as received. Pure: a function of the plan, the status and the fields.
 */
export function toClientHeaders(
  exchange: Exchange,
  edits: ResponseEdits,
  status: number,
  received: string[],
): string[] {
  const headers: string[] = []
  const cacheControl =
    edits.cacheControl !== undefined && (status < 300 || status === 304) ? edits.cacheControl : undefined
  let named: string[] | undefined
  let present = 0
  for (let i = 0; i < received.length; i += 2) {
    const field = received[i] ?? ''
    const value = received[i + 1] ?? ''
    const name = lowerCased(field)
    if (edits.drops.has(name)) {
      if (name === 'connection' && value !== 'keep-alive' && value !== 'close') named = readTokens(value, named)
      continue
    }
    if (cacheControl !== undefined && (name === 'cache-control' || name === 'expires' || name === 'pragma')) continue
    for (let bit = 0; bit < edits.defaults.length; bit++) if (edits.defaults[bit]?.name === name) present |= 1 << bit
    headers.push(field, value)
  }
  const kept = named ? dropNamed(headers, named) : headers
  for (let bit = 0; bit < edits.defaults.length; bit++) {
    const entry = edits.defaults[bit]
    if (entry && (present & (1 << bit)) === 0 && !edits.drops.has(entry.name)) kept.push(entry.field[0], entry.field[1])
  }
  if (cacheControl !== undefined) kept.push('Cache-Control', cacheControl)
  for (const text of edits.set) kept.push(text)
  return appendOwn(kept, exchange)
}

/**
 * The request's fields as the upstream gets them: the client's without those the row drops, then what the gateway
 * knows of the client, then its identity. Host first; framing is the runtime's.
 */
export function toUpstreamHeaders(exchange: Exchange, edits: RequestEdits): string[] {
  const headers = ['Host', exchange.authority]
  const { headers: received } = exchange
  if (edits.drops.size === 0) for (const text of received) headers.push(text)
  else
    for (let i = 0; i < received.length; i += 2) {
      const field = received[i] ?? ''
      if (!edits.drops.has(lowerCased(field))) headers.push(field, received[i + 1] ?? '')
    }
  headers.push(
    'X-Forwarded-For',
    exchange.client.text,
    'X-Forwarded-Proto',
    exchange.scheme,
    'X-Forwarded-Host',
    exchange.authority,
    'X-Real-IP',
    exchange.client.text,
    'X-Request-Id',
    exchange.requestId,
  )
  if (exchange.trace?.sent && !edits.drops.has('traceparent')) pushTrace(headers, exchange.trace.sent)
  if (exchange.identity) for (const text of exchange.identity.fields) headers.push(text)
  for (const text of edits.set) headers.push(text)
  return headers
}

function pushTrace(headers: string[], { traceparent, tracestate }: NonNullable<Trace['sent']>): void {
  headers.push('traceparent', traceparent)
  if (tracestate !== undefined) headers.push('tracestate', tracestate)
}

function appendOwn(headers: string[], exchange: Exchange): string[] {
  for (const text of exchange.answerHeaders) headers.push(text)
  headers.push('X-Request-Id', exchange.requestId)
  return headers
}

function readTokens(value: string, known: string[] = []): string[] {
  return [...known, ...value.toLowerCase().split(/[ \t]*,[ \t]*/)]
}

/** Framing and what the answer means cannot be named away. */
function dropNamed(headers: string[], named: string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = lowerCased(headers[i] ?? '')
    if (!named.includes(name) || name === 'content-length' || name === 'content-type')
      kept.push(headers[i] ?? '', headers[i + 1] ?? '')
  }
  return kept
}

const remembered = new Map<string, string>()
const rememberedMax = 4_096

function lowerCased(field: string): string {
  const known = remembered.get(field)
  if (known !== undefined) return known
  const name = field.toLowerCase()
  if (remembered.size < rememberedMax && field.length <= 64) remembered.set(field, name)
  return name
}
