/**
 * The vocabulary: what may stand in a table. A table is data; `compile.ts` checks it, everything below runs on what
 * that made of it. Any text may name variables: '${NAME}' must be set, '${NAME:-default}' need not be.
 */
export interface Table {
  /** Names the system in logs, metrics and errors: lower-case letters, digits and dashes. */
  name: string
  /** Groups of servers that rows proxy to, by name. */
  upstreams?: Record<string, Upstream>
  /** What verifies tokens, by name. */
  keys?: Record<string, Key>
  /** Where certificates come from besides files. */
  tls?: Tls
  /** Sets of hosts with their rows. */
  sites: Site[]
}

export interface Tls {
  /** Orders certificates by itself, one per site, and renews them (RFC 8555). Not on Workers, where the platform does. */
  acme?: Acme
}

export interface Acme {
  /** Whom the authority may write to; giving it agrees to the authority's terms. Empty: nothing is ordered. */
  email: string
  /** The authority's directory. Default that of Let's Encrypt. */
  directory?: string
  /** A PEM file with the authority by which the directory itself is trusted, when it is a private one. */
  caFile?: string
  /** For which of the table's hosts. Default all. */
  hosts?: string[]
}

export interface Upstream {
  /** Origins such as 'http://127.0.0.1:8100': scheme, host and port, no path; or with what tells them apart. */
  servers?: (string | Server)[]
  /** Instead of servers: several sides of them, of which each gets a share. All else here holds for each side. */
  split?: Split
  /** Which of several servers is asked. Default 'round-robin'. */
  balance?: Balance
  /** A server that has come back reaches its full share after this. Default 10,000; 0: at once. */
  slowStartMs?: number
  /** Asks each server whether it is well. Without it, servers are judged by their answers only. */
  health?: Health
  /** How many requests may be with the upstream at once; above it 503. Default 1,024. */
  inFlightMax?: number
  /** How long a connection may take to open; then 504. Default 2,000. */
  connectTimeoutMs?: number
  /** What asks its servers on Node: the gateway's own client, or undici's. Default 'lean'. */
  upstreamClient?: UpstreamClientName
}

export type UpstreamClientName = 'lean' | 'undici'

export interface Split {
  /** Two or more, such as 'blue' and 'green'. */
  sides: Record<string, Side>
  /** Keeps a client on its side by a cookie. Without it, each request is drawn anew. */
  sticky?: Sticky
  /** A request that carries this field with a side's name goes there, whatever the weights. Default none. */
  force?: { header: string }
  /** Gives one of two sides all requests, step by step, as long as it does as well as the other. On Node only. */
  rollout?: Rollout
}

export interface Side {
  /** As those of an upstream. */
  servers: (string | Server)[]
  /** How much it gets, compared with the others; 0: only what names it. */
  weight: number
}

export interface Sticky {
  /** The cookie's name. */
  cookie: string
  /** How long it is kept. Default 86,400. */
  maxAgeSeconds?: number
}

export interface Rollout {
  /** The side that is rolled out; the other is what it is compared with. */
  to: string
  /** Its shares, in percent. Default [1, 5, 25, 50, 100]. */
  steps?: number[]
  /** How long each step lasts at least. Default 60,000. */
  everyMs?: number
  /** So many requests it must have had in a step. Default 100. */
  minRequests?: number
  /** So many more in a hundred than of the other side's may fail. Default 1. */
  failurePercentMax?: number
  /** Its slowest hundredth may take so many times as long as the other side's to begin. Default 2. */
  p99TimesMax?: number
}

export interface Server {
  /** The origin. */
  url: string
  /** How much it takes, compared with the others; 0: nothing. Default 1. */
  weight?: number
  /** Asked only when no other server can be. Default false. */
  backup?: boolean
}

/** In turn, by weight; the least busy; or always the same one for an address, a field's or a cookie's value. */
export type Balance =
  | 'round-robin'
  | 'least-connections'
  | { hash: 'address' | { header: string } | { cookie: string } }

export interface Health {
  /** What is asked for with GET. */
  path: string
  /** How often each server is asked, give or take a tenth. Default 5,000. */
  everyMs?: number
  /** An answer must have come by then. Default 2,000. */
  timeoutMs?: number
  /** So many good checks in a row bring a server back. Default 2. */
  healthyAfter?: number
  /** So many bad ones in a row put it aside. Default 3. */
  unhealthyAfter?: number
  /** The status of a good answer. Default any from 200 to 399. */
  status?: number
}

export interface Key {
  /** The shared secret of HS256, at least 32 bytes and not a published example. */
  secret?: string
  /** The public key of RS256, ES256 or EdDSA as PEM (SPKI). */
  publicKey?: string
  /** Where a JSON Web Key Set is fetched (RFC 7517): https, or http on a loopback address. */
  jwks?: string
  /** Which signatures are accepted (RFC 7518 §3.1, RFC 8037); never mixes secrets and public keys. */
  algorithms: Algorithm[]
  /** The `iss` that a token must carry; several are alternatives. */
  issuer?: string | string[]
  /** The `aud` of which a token must carry at least one. */
  audience?: string | string[]
  /** Claims that a token must carry, whatever their value. `exp` always is one. */
  requiredClaims?: string[]
  /** Tokens whose claim has such a value are refused: { type: 'refresh' } keeps refresh tokens out. */
  refusedClaims?: Record<string, string | string[]>
  /** How far clocks may disagree. Default 30, at most 60. */
  clockToleranceSeconds?: number
}

export type Algorithm = 'HS256' | 'RS256' | 'ES256' | 'EdDSA'

export interface Site {
  /** Exact hosts, or '*.example.com' for every host below example.com (not itself). */
  hosts: string[]
  /** Answers requests for hosts that no table names. At most one site in all tables. */
  default?: boolean
  /** Redirect http to https and send Strict-Transport-Security (RFC 6797); true means both. Default false. */
  https?: boolean | Https
  /** Only requests signed with this secret are served: those that came through our own edge. */
  trustedEdges?: TrustedEdges
  /** The shape of the gateway's own error bodies. Default 'problem' (RFC 9457). */
  errors?: ErrorShape
  /** Security headers of every answer: a preset, or names and values. Default 'basic'. */
  headers?: HeadersPreset | Record<string, string>
  /** Whose pages, from other origins, may read the answers; preflights are answered here. Default nobody's. */
  cors?: Cors
  /** Compresses texts that upstreams send plain, for clients that take that. Default false. */
  compress?: boolean
  /** Tells clients in Server-Timing how long gateway and upstream took. Default false. */
  serverTiming?: boolean
  /** The rows. Which one matches does not depend on their order, except between rows that match the same. */
  routes: Route[]
}

export interface Https {
  /** 308 to the same URL with https. Default true. */
  redirect?: boolean
  /** Strict-Transport-Security; false sends none. Default { maxAgeSeconds: 63072000 }. */
  hsts?: false | { maxAgeSeconds: number; includeSubDomains?: boolean; preload?: boolean }
}

export interface TrustedEdges {
  /** The HMAC secret that edge and VM share, at least 32 bytes. */
  secret: string
}

export type ErrorShape = 'problem' | 'nest' | 'fastapi' | 'drf'
export type HeadersPreset = 'strict' | 'basic' | 'none'

/** One row: what it matches, its policies and exactly one action. */
export interface Route extends Policies, Actions {
  /** '/ws' matches itself only; '/api/*' matches '/api' and everything below '/api/'; '/*' everything. */
  path: string
  /** Only these methods; GET includes HEAD. Default all. */
  methods?: string[]
  /** Only requests that carry these fields; true means any value. */
  matchHeaders?: Record<string, string | true>
}

/** Checks and annotations before the action. */
export interface Policies {
  /** false exempts this row from the site's https redirect. */
  https?: false
  /** How often somebody may ask. Several limits must all allow it. */
  limit?: Limit | Limit[]
  /** Who may ask. */
  auth?: Auth
  /** The most bytes of a request body; then 413. Default 1,048,576. */
  bodyBytesMax?: number
  /** Who keeps answers, and how long: clients, by their Cache-Control, or the gateway, for everybody ('shared'). */
  cache?: CachePreset | Cache
  /** Security headers of this row, instead of the site's. */
  headers?: HeadersPreset | Record<string, string>
  /** Whose pages may read this row's answers, instead of the site's; false: the upstream says it itself. */
  cors?: false | Cors
  /** Whether the upstream's texts are compressed on this row, instead of the site's. */
  compress?: boolean
  /** The shape of the gateway's own error bodies on this row, instead of the site's. */
  errors?: ErrorShape
  /** Edits of the request's fields on their way to the upstream. */
  requestHeaders?: HeaderEdits
  /** Edits of the answer's fields on their way to the client. */
  responseHeaders?: HeaderEdits
}

/** Cross-origin resource sharing (Fetch, "CORS protocol"). */
export interface Cors {
  /** Such as 'https://app.example'; one text may name several between commas. '*': any, without credentials. */
  origins: string | string[]
  /** Lets browsers send cookies along. Default false. */
  credentials?: boolean
  /** What pages may ask with. Default GET, HEAD, POST, PUT, PATCH and DELETE. */
  methods?: string[]
  /** Fields that pages may send; '*': any, without credentials. Default Authorization and Content-Type. */
  headers?: '*' | string[]
  /** Fields of answers that pages may read, besides the gateway's own. */
  exposedHeaders?: string[]
  /** How long browsers need not ask again. Default 600. */
  maxAgeSeconds?: number
}

/**
 * For clients: no-store: never kept; revalidate: kept, asked for each time; immutable: kept a year. shared: the gateway
 * keeps the upstream's answers and gives them to all who may have them (RFC 9111).
 */
export type CachePreset = 'no-store' | 'revalidate' | 'immutable' | 'shared'

/** One of them, or both: what clients are told, and what the gateway keeps as the upstream says. */
export interface Cache {
  /** Cache-Control of successful answers, as clients get it. */
  control?: string
  /** As the preset: true, or more about it. */
  shared?: true | SharedCache
}

export interface SharedCache {
  /** How long an answer is fresh that does not say so. Default: it is not kept. */
  freshMs?: number
  /** How long a stale answer is still sent while a new one is fetched behind it, where it does not say. Default 0. */
  staleWhileRevalidateMs?: number
  /** How long a stale answer stands in for an upstream that fails, where it does not say. Default 3,600,000. */
  staleIfErrorMs?: number
  /** Request fields that answers differ by, though the upstream has no Vary. */
  vary?: string[]
  /** A longer answer is not kept. Default 1,048,576. */
  entryBytesMax?: number
}

export interface HeaderEdits {
  /** Fields that are replaced or added. */
  set?: Record<string, string>
  /** Fields that are dropped. */
  remove?: string[]
}

export interface Limit {
  /** Whose requests are counted together: of one address (IPv6: one /64), one token's subject, one field's value. */
  by: 'address' | 'subject' | { header: string }
  /** How many in a window. */
  requests: number
  /** The window: '1 s', '10 s', '1 m', '1 h', '1 d'. */
  per: string
  /** How many more at once: a token bucket of `burst` + 1 that refills at requests/per. Without it a sliding window. */
  burst?: number
  /** When the shared store is down: 'local' counts in this process, 'closed' answers 503. Default 'local'. */
  whenDown?: 'local' | 'closed'
}

export interface Auth {
  /** The key, by name, that must have signed the token. */
  jwt: string
  /** Where the token stands; several are tried in order. Default 'bearer' (RFC 6750 §2.1). */
  from?: TokenSource | TokenSource[]
  /** true lets requests without a token pass, without an identity; a bad token is still refused. */
  optional?: boolean
  /** Claims that must have this value, or one of these; otherwise 403. */
  claims?: Record<string, string | string[]>
}

export type TokenSource = 'bearer' | { cookie: string } | { query: string }

/** What answers. Exactly one per row. */
export interface Actions {
  /** Passes the request on to an upstream. */
  proxy?: Proxy
  /** Answers from a folder. */
  files?: Files
  /** Sends the client elsewhere. */
  redirect?: Redirect
  /** Answers by itself. */
  respond?: Respond
}

export interface Proxy {
  /** The upstream, by name. */
  to: string
  /** Cuts these leading segments off the path: with '/api', '/api/x' is sent as '/x' and '/api' as '/'. */
  strip?: string
  /** Sends this path, whatever matched. */
  path?: string
  /** Lets a WebSocket through (RFC 6455). Default false. */
  websocket?: boolean
  /** How long the upstream may stay silent before its answer's head, and between two chunks of it. Default 60,000. */
  readTimeoutMs?: number
  /** How long a WebSocket may stay silent both ways. Default 3,600,000. */
  idleMs?: number
  /** When the whole answer must have come, all attempts together; the upstream is told what is left. Default never. */
  timeoutMs?: number
  /** When a failed request is sent once more; false: never. Never one with a body, nor one that may not be repeated. */
  retry?: false | Retry
}

export interface Retry {
  /** How often at most a request is sent, the first time included. Default 2. */
  attempts?: number
  /** Statuses for which another server is asked. Default none. */
  statuses?: (502 | 503 | 504)[]
}

export interface Files {
  /** The folder, seen from where the gateway starts. What a path has behind the row's prefix names the file. */
  root: string
  /** Navigations that name no file get index.html (a missing script is still a 404). Default false. */
  spa?: boolean
  /**
   * Endings whose files never change once published, such as ['js', 'css']; kept for a year by clients. Names with a
   * hash of the content in them, such as 'app.3f9a1c2b.js', need not be said.
   */
  immutable?: string[]
  /** Files that are never kept, such as ['sw.js']; index.html always is one. */
  noStore?: string[]
  /** How many earlier builds' files with a hash in their names still answer, for pages that are open. Default 3. */
  releases?: number
}

export interface Redirect {
  /** A URL or a path; '{path}' stands for the request's path, '{query}' for its query with the '?', '{host}' for its host. */
  to: string
  /** Default 308. */
  status?: 301 | 302 | 303 | 307 | 308
}

export interface Respond {
  /** 200 to 599. */
  status: number
  /** Content-Type. Default 'text/plain; charset=utf-8'. */
  type?: string
  /** Default empty. */
  body?: string
}
