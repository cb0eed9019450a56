import { fieldValue } from '../exchange.ts'
import type { UseCache } from './cache-plan.ts'
import { readDirectives, readSeconds } from './directives.ts'
import type { Directives } from './directives.ts'
import { readHttpDate } from './http-date.ts'
import { readVary, toVariant } from './vary.ts'
import type { Variant } from './vary.ts'

/** An answer's head as it is kept: data that JSON can carry. Times in milliseconds since the epoch. */
export interface StoredHead {
  status: number
  /** Flat, as received; without hop-by-hop fields, Age and Content-Length; with a Date. */
  headers: string[]
  variant: Variant
  receivedAt: number
  /** How old it was then (RFC 9111 §4.2.3). */
  initialAgeMs: number
  /** How old it may become. */
  freshMs: number
  /** How long behind that it may be used while another is fetched, and when none can be had; 0: not at all. */
  staleWhileRevalidateMs: number
  staleIfErrorMs: number
  /** Never used stale, whoever would take it (must-revalidate, proxy-revalidate). */
  mustRevalidate: boolean
  /** Asked about each time (no-cache). */
  noCache: boolean
  /** Said to be for everybody, also for whom it was not made. */
  isPublic: boolean
  etag: string | undefined
  lastModified: string | undefined
  /** What it can be purged by, besides its URL. */
  tags: string[]
}

/** An answer of an upstream, and the request that it is for as the upstream got it; fields flat. */
export interface Received {
  status: number
  headers: string[]
  sent: string[]
  askedAt: number
  receivedAt: number
}

/** What is kept of an answer to GET, or why nothing may be (RFC 9111 §3). */
export function toStoredHead(use: UseCache, received: Received): StoredHead | { refused: string } {
  const { cache, isPersonal } = use
  const { status, headers } = received
  const control = readControl(headers)
  const { directives } = control
  if (status < 200 || status === 206 || status === 304) return { refused: `status ${status}` }
  const isUnderstood = directives.has('must-understand') && understood.has(status)
  // RFC 9111 §5.2.2.3: no-store beside must-understand is for caches that do not know what that is.
  if (directives.has('no-store') && !isUnderstood) return { refused: 'no-store' }
  if (directives.has('private')) return { refused: 'private' }
  if (directives.has('must-understand') && !isUnderstood) return { refused: 'must-understand' }
  if (fieldValue(headers, 'set-cookie') !== undefined) return { refused: 'Set-Cookie' }
  if (/^text\/event-stream\b/i.test(fieldValue(headers, 'content-type') ?? '')) return { refused: 'events' }
  const isPublic = directives.has('public') || directives.has('s-maxage')
  if (isPersonal && !isPublic) return { refused: 'not said to be public' }
  const names = readVary(fieldValue(headers, 'vary'), toAlwaysVary(cache.vary, headers))
  if (!names) return { refused: 'Vary' }
  const tags = readTags(fieldValue(headers, 'cache-tag'))
  if (!tags) return { refused: 'Cache-Tag' }
  const freshMs = toFreshMs(control, received, cache.freshMs)
  if (freshMs === undefined && !(directives.has('public') || directives.has('no-cache')))
    return { refused: 'no freshness' }
  const etag = fieldValue(headers, 'etag')
  const lastModified = fieldValue(headers, 'last-modified')
  const head: StoredHead = {
    status,
    headers: toKeptHeaders(received),
    variant: toVariant(names, received.sent),
    receivedAt: received.receivedAt,
    initialAgeMs: toInitialAgeMs(received),
    freshMs: freshMs ?? 0,
    ...toStaleness(directives, use),
    noCache: directives.has('no-cache'),
    isPublic,
    etag,
    lastModified,
    tags,
  }
  return isWorthKeeping(head) ? head : { refused: 'never fresh' }
}

/**
 * A 304 brings what is kept up to date (RFC 9111 §3.2, §4.3.4). Undefined: it speaks of another answer than the one
 * that is kept. What may no longer be kept is refused.
 */
export function freshen(
  use: UseCache,
  stored: StoredHead,
  received: Received,
): StoredHead | { refused: string } | undefined {
  const etag = fieldValue(received.headers, 'etag')
  if (etag !== undefined && stored.etag !== undefined && toOpaque(etag) !== toOpaque(stored.etag)) return undefined
  const updated = toKeptHeaders(received)
  const names = new Set(updated.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase()))
  const headers: string[] = []
  for (let i = 0; i < stored.headers.length; i += 2)
    if (!names.has((stored.headers[i] ?? '').toLowerCase()) || isOfContent(stored.headers[i] ?? ''))
      headers.push(stored.headers[i] ?? '', stored.headers[i + 1] ?? '')
  for (let i = 0; i < updated.length; i += 2)
    if (!isOfContent(updated[i] ?? '')) headers.push(updated[i] ?? '', updated[i + 1] ?? '')
  // The age that the kept answer came with is none of the new one's.
  const age = fieldValue(received.headers, 'age')
  return toStoredHead(use, {
    ...received,
    status: stored.status,
    headers: age === undefined ? headers : [...headers, 'Age', age],
  })
}

const toOpaque = (etag: string): string => etag.replace(/^W\//, '')

/** What belongs to the bytes that are kept, not to the message that a 304 is (digests: RFC 9530). */
const isOfContent = (name: string): boolean =>
  /^(content-(encoding|type|range|length|md5|digest)|repr-digest)$/i.test(name)

/** RFC 9110 §15: statuses whose meaning this cache knows; only must-understand asks. */
const understood: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])

/** Cache-Control, or what is said to shared caches only (RFC 9213). */
interface Control {
  directives: Directives
  isTargeted: boolean
}

function readControl(headers: string[]): Control {
  const targeted = readDirectives(fieldValue(headers, 'cdn-cache-control'))
  const isTargeted = targeted.size > 0
  return { directives: isTargeted ? targeted : readDirectives(fieldValue(headers, 'cache-control')), isTargeted }
}

/** RFC 9111 §4.2.1. Undefined: nothing was said. There are no heuristics: who says nothing may not have meant it. */
function toFreshMs(
  { directives, isTargeted }: Control,
  { status, headers, receivedAt }: Received,
  byDefault: number | undefined,
): number | undefined {
  const seconds = readSeconds(directives, 's-maxage') ?? readSeconds(directives, 'max-age')
  if (seconds !== undefined) return seconds * 1_000
  const expires = isTargeted ? undefined : fieldValue(headers, 'expires')
  if (expires !== undefined) {
    const lifetime = readHttpDate(expires, receivedAt) - toDate(headers, receivedAt)
    return Number.isNaN(lifetime) ? 0 : Math.max(0, lifetime)
  }
  return !directives.has('no-cache') && (status === 200 || status === 301 || status === 308) ? byDefault : undefined
}

const toDate = (headers: string[], receivedAt: number): number => {
  const date = readHttpDate(fieldValue(headers, 'date'), receivedAt)
  return Number.isNaN(date) ? receivedAt : date
}

/** RFC 9111 §4.2.3: by its own word and by the clocks, whichever is more. */
function toInitialAgeMs({ headers, askedAt, receivedAt }: Received): number {
  const [said = ''] = (fieldValue(headers, 'age') ?? '').split(',')
  const saidMs = /^\d+$/.test(said.trim()) ? Math.min(Number(said), 2_147_483_648) * 1_000 : 0
  return Math.max(receivedAt - toDate(headers, receivedAt), saidMs + (receivedAt - askedAt), 0)
}

/** RFC 5861. Times of the answer itself come before those of the row. */
function toStaleness(
  directives: Directives,
  { cache }: UseCache,
): Pick<StoredHead, 'staleWhileRevalidateMs' | 'staleIfErrorMs' | 'mustRevalidate'> {
  const mustRevalidate =
    directives.has('must-revalidate') || directives.has('proxy-revalidate') || directives.has('no-cache')
  // RFC 9111 §5.2.2.10: s-maxage asks for revalidation too, unless it is said otherwise beside it.
  const byDefault = mustRevalidate || directives.has('s-maxage') ? () => 0 : (ms: number) => ms
  const read = (name: string, ofRow: number): number => {
    const seconds = readSeconds(directives, name)
    return seconds === undefined ? byDefault(ofRow) : seconds * 1_000
  }
  return {
    staleWhileRevalidateMs: mustRevalidate ? 0 : read('stale-while-revalidate', cache.staleWhileRevalidateMs),
    staleIfErrorMs: mustRevalidate ? 0 : read('stale-if-error', cache.staleIfErrorMs),
    mustRevalidate: mustRevalidate || (directives.has('s-maxage') && !directives.has('stale-while-revalidate')),
  }
}

/** What upstreams forget to say: encoded bytes are for who takes the coding, a named origin's are for that one. */
function toAlwaysVary(vary: string[], headers: string[]): string[] {
  const names = [...vary]
  if (fieldValue(headers, 'content-encoding') !== undefined) names.push('accept-encoding')
  if ((fieldValue(headers, 'access-control-allow-origin') ?? '*') !== '*') names.push('origin')
  return names
}

const tagsMax = 64
const tagLengthMax = 256

/** Undefined: too many or too long, so that a purge could miss it. */
function readTags(field: string | undefined): string[] | undefined {
  if (field === undefined) return []
  const tags = [...new Set(field.split(',').map((tag) => tag.trim()))].filter((tag) => tag !== '')
  return tags.length > tagsMax || tags.some((tag) => tag.length > tagLengthMax) ? undefined : tags
}

const dropped = new Set([
  'age',
  'connection',
  'content-length',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** RFC 9111 §3.1; who receives an answer without a Date gives it one (RFC 9110 §6.6.1). */
function toKeptHeaders({ headers, receivedAt }: Received): string[] {
  const named = (fieldValue(headers, 'connection') ?? '').toLowerCase().split(/[ \t]*,[ \t]*/)
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] ?? '').toLowerCase()
    if (!dropped.has(name) && !named.includes(name)) kept.push(headers[i] ?? '', headers[i + 1] ?? '')
  }
  if (fieldValue(kept, 'date') === undefined) kept.push('Date', new Date(receivedAt).toUTCString())
  return kept
}

/** What is stale at once and cannot be asked about would never be used. */
const isWorthKeeping = (head: StoredHead): boolean =>
  (head.freshMs > head.initialAgeMs && !head.noCache) ||
  head.staleWhileRevalidateMs > 0 ||
  head.staleIfErrorMs > 0 ||
  head.etag !== undefined ||
  head.lastModified !== undefined
