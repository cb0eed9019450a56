import type { Exchange } from '../exchange.ts'
import { fieldValue } from '../exchange.ts'
import { readDirectives } from './directives.ts'
import type { Directives } from './directives.ts'

/** A row's `cache: 'shared'`, with its defaults filled in. */
export interface CompiledCache {
  /** Tells this row's answers from those of other rows, and of the row that it was before it was changed. */
  row: string
  /** Undefined: an answer that does not say how long it is good for is not kept. */
  freshMs: number | undefined
  staleWhileRevalidateMs: number
  staleIfErrorMs: number
  entryBytesMax: number
  /** Lower-cased. */
  vary: string[]
}

/** What the cache has to do with a request: data, made by deciding. */
export type CachePlan =
  | UseCache
  /** Passed on; its answer is not kept. `reason` is for people. */
  | { use: 'bypass'; forward: 'bypass' | 'method' | 'request'; reason: string }
  /** Changes something, so that what is kept of its URL may be wrong behind it (RFC 9111 §4.4). */
  | { use: 'invalidate'; url: string }

/** GET or HEAD: what is kept may answer it. */
export interface UseCache {
  use: 'store'
  cache: CompiledCache
  url: string
  directives: Directives
  /** Who asks is known, or could be: they get only what is said to be for everybody. */
  isPersonal: boolean
}

/**
 * 'invalidate': a row whose answers are not kept, in a site where others' are. `side`: of a split upstream, whose sides
 * answer differently.
 */
export function toCachePlan(
  exchange: Exchange,
  cache: CompiledCache | 'invalidate',
  side?: string,
): CachePlan | undefined {
  const { method } = exchange
  const url = toCacheUrl(exchange.scheme, exchange.authority, exchange.path + exchange.query)
  if (method !== 'GET' && method !== 'HEAD') {
    if (!isSafe(method)) return { use: 'invalidate', url }
    return cache === 'invalidate' ? undefined : { use: 'bypass', forward: 'method', reason: `${method} is not kept` }
  }
  if (cache === 'invalidate') return undefined
  const directives = readRequestDirectives(exchange.headers)
  const reason = findObstacle(exchange)
  if (reason !== undefined) return { use: 'bypass', forward: 'bypass', reason }
  if (directives.has('no-store')) return { use: 'bypass', forward: 'request', reason: 'no-store is asked for' }
  const kept = side === undefined ? cache : { ...cache, row: `${cache.row} ${side}` }
  return { use: 'store', cache: kept, url, directives, isPersonal: isPersonal(exchange) }
}

/** RFC 9110 §9.2.1. */
const isSafe = (method: string): boolean => method === 'OPTIONS' || method === 'TRACE'

/**
 * Without it a request is anybody's. A cookie may be a session's, so it counts like Authorization, whatever it is
 * called: answers for everybody say so with public or s-maxage.
 */
const isPersonal = ({ authorization, cookie, identity }: Exchange): boolean =>
  authorization !== undefined || cookie !== '' || identity !== undefined

/** What the answer may depend on, and the key does not have. */
function findObstacle({ headers, hasBody, websocket }: Exchange): string | undefined {
  if (websocket) return 'a WebSocket is asked for'
  if (hasBody) return 'the request has a body'
  for (let i = 0; i < headers.length; i += 2) {
    const reason = obstacles.get((headers[i] ?? '').toLowerCase())
    if (reason !== undefined) return reason
  }
  return undefined
}

const override = 'the request names another method'

const obstacles = new Map([
  // RFC 9111 §4.3.2: only the origin can tell.
  ['if-match', 'the request has a condition that only the upstream can judge'],
  ['if-unmodified-since', 'the request has a condition that only the upstream can judge'],
  ['x-http-method-override', override],
  ['x-http-method', override],
  ['x-method-override', override],
])

/** RFC 9111 §5.4: what HTTP/1.0 said instead. */
function readRequestDirectives(headers: string[]): Directives {
  const control = fieldValue(headers, 'cache-control')
  if (control !== undefined) return readDirectives(control)
  return readDirectives(/\bno-cache\b/i.test(fieldValue(headers, 'pragma') ?? '') ? 'no-cache' : undefined)
}

/** What answers are kept under, and what purges name. `target`: the canonical path, and the query. */
export const toCacheUrl = (scheme: string, authority: string, target: string): string =>
  `${scheme}://${authority.replace(scheme === 'https' ? /:443$/ : /:80$/, '')}${target}`
