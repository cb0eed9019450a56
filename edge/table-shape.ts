import { array, either, integer, isBoolean, isRecord, isText, object, oneOf, oneOrMore, record, text } from './shape.ts'
import type { Check } from './shape.ts'
import { toMilliseconds } from './duration.ts'
import { isPageOrigin, readOrigins } from './policies/cors.ts'

/** What `table.ts` says in types, said again for data that no compiler saw. A test holds the two against each other. */

const fieldName = { name: /^[A-Za-z0-9-]+$/, what: 'a field name (letters, digits, dashes)' }
const fieldValue = text(/^[\t\x20-\x7e]*$/, 'visible ASCII on one line')
const name = { name: /^[a-z][a-z0-9-]*$/, what: 'lower-case letters, digits and dashes' }
const fields = record(fieldValue, fieldName)
const milliseconds = integer({ min: 1, max: 2_147_483_647 })
const cookieName = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const errors = oneOf('problem', 'nest', 'fastapi', 'drf')
const headers = either([isText, oneOf('strict', 'basic', 'none')], [() => true, fields])
const host = text(
  /^(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$|^\[[0-9a-f:.]+\]$/,
  "a lower-case host without port, such as 'shop.example' or '*.shop.example'",
)

const limit = object({
  required: {
    by: either(
      [isText, oneOf('address', 'subject')],
      [() => true, object({ required: { header: text(/^[A-Za-z0-9-]+$/, 'a field name') } })],
    ),
    requests: integer({ min: 1, max: 1_000_000_000 }),
    per: text(isDuration, "a duration such as '1 s', '10 s', '1 m', '1 h' or '1 d', at most '366 d'"),
  },
  optional: { burst: integer({ min: 0, max: 1_000_000 }), whenDown: oneOf('local', 'closed') },
})

const tokenSource = either(
  [isText, oneOf('bearer')],
  [
    (value) => isRecord(value) && 'cookie' in value,
    object({ required: { cookie: text(cookieName, 'a cookie name') } }),
  ],
  [() => true, object({ required: { query: text(/^[A-Za-z0-9_.-]+$/, "a parameter's name") } })],
)

const auth = object({
  required: { jwt: text() },
  optional: { from: oneOrMore(tokenSource), optional: oneOf(true, false), claims: record(oneOrMore(text())) },
})

const edits = object({
  optional: { set: fields, remove: array(text(/^[A-Za-z0-9-]+$/, 'a field name')) },
})

const retry = object({
  optional: { attempts: integer({ min: 2, max: 10 }), statuses: array(oneOf(502, 503, 504)) },
})

const proxy = object({
  required: { to: text() },
  optional: {
    strip: text(/^\/[^*?#]*[^/*?#]$/, "leading segments such as '/api'"),
    path: text(/^\//, "a path such as '/ws'"),
    websocket: oneOf(true, false),
    readTimeoutMs: milliseconds,
    idleMs: milliseconds,
    timeoutMs: milliseconds,
    retry: either([isBoolean, oneOf(false)], [() => true, retry]),
  },
})

const ending = array(text(/^[A-Za-z0-9]+$/, "an ending without its dot, such as 'js'"))
const files = object({
  required: { root: text(/[^]/, 'a folder') },
  optional: {
    spa: oneOf(true, false),
    immutable: ending,
    noStore: array(text(/^[^/]/, "a path below the folder, such as 'sw.js'")),
    releases: integer({ min: 0, max: 100 }),
  },
})

const redirect = object({
  required: { to: text(isLocation, "a URL or a path, such as 'https://shop.example{path}{query}' or '/new'") },
  optional: { status: oneOf(301, 302, 303, 307, 308) },
})

const respond = object({
  required: { status: integer({ min: 200, max: 599 }) },
  optional: { type: fieldValue, body: text() },
})

export const actionNames = ['proxy', 'files', 'redirect', 'respond'] as const

const fieldNames = array(text(fieldName.name, fieldName.what))
const pageOrigins = text(
  (value) => readOrigins(value).every(isPageOrigin),
  "an origin as browsers write it, such as 'https://app.example': no path, no default port, lower case",
)
const cors = object({
  required: { origins: either([isText, pageOrigins], [() => true, array(pageOrigins, { min: 1 })]) },
  optional: {
    credentials: oneOf(true, false),
    methods: array(text(/^[A-Z]+(-[A-Z]+)*$/, 'an upper-case method'), { min: 1 }),
    headers: either([isText, oneOf('*')], [() => true, fieldNames]),
    exposedHeaders: fieldNames,
    maxAgeSeconds: integer({ min: 0, max: 86_400 }),
  },
})

const duration = integer({ min: 0, max: 2_147_483_647 })
const cache = object({
  optional: {
    control: fieldValue,
    shared: either(
      [isBoolean, oneOf(true)],
      [
        () => true,
        object({
          optional: {
            freshMs: duration,
            staleWhileRevalidateMs: duration,
            staleIfErrorMs: duration,
            vary: array(text(/^[A-Za-z0-9-]+$/, 'a field name')),
            entryBytesMax: integer({ min: 1, max: 1_073_741_824 }),
          },
        }),
      ],
    ),
  },
})

const route = object({
  required: { path: text(/^\//, "a path such as '/ws' or '/api/*'") },
  optional: {
    methods: array(text(/^[A-Z]+(-[A-Z]+)*$/, 'an upper-case method'), { min: 1 }),
    matchHeaders: record(either([isText, fieldValue], [() => true, oneOf(true)]), fieldName),
    https: oneOf(false),
    limit: oneOrMore(limit),
    auth,
    bodyBytesMax: integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    cache: either([isText, oneOf('no-store', 'revalidate', 'immutable', 'shared')], [() => true, cache]),
    headers,
    compress: oneOf(true, false),
    cors: either([isBoolean, oneOf(false)], [() => true, cors]),
    errors,
    requestHeaders: edits,
    responseHeaders: edits,
    proxy,
    files,
    redirect,
    respond,
  },
})

const https = either(
  [isBoolean, oneOf(true, false)],
  [
    () => true,
    object({
      optional: {
        redirect: oneOf(true, false),
        hsts: either(
          [isBoolean, oneOf(false)],
          [
            () => true,
            object({
              required: { maxAgeSeconds: integer({ min: 0, max: 1_000_000_000 }) },
              optional: { includeSubDomains: oneOf(true, false), preload: oneOf(true, false) },
            }),
          ],
        ),
      },
    }),
  ],
)

const site = object({
  required: { hosts: array(host, { min: 1 }), routes: array(route, { min: 1 }) },
  optional: {
    default: oneOf(true, false),
    https,
    trustedEdges: object({ required: { secret: text() } }),
    serverTiming: oneOf(true, false),
    errors,
    headers,
    compress: oneOf(true, false),
    cors,
  },
})

const origin = text(isOrigin, "an origin such as 'http://127.0.0.1:8100', without a path")
const server = object({
  required: { url: origin },
  optional: { weight: integer({ min: 0, max: 1_000 }), backup: oneOf(true, false) },
})

const balance = either(
  [isText, oneOf('round-robin', 'least-connections')],
  [
    () => true,
    object({
      required: {
        hash: either(
          [isText, oneOf('address')],
          [
            (value) => isRecord(value) && 'cookie' in value,
            object({ required: { cookie: text(cookieName, 'a cookie name') } }),
          ],
          [() => true, object({ required: { header: text(/^[A-Za-z0-9-]+$/, 'a field name') } })],
        ),
      },
    }),
  ],
)

const health = object({
  required: { path: text(/^\/[\x21-\x7e]*$/, "a path such as '/health'") },
  optional: {
    everyMs: integer({ min: 100, max: 3_600_000 }),
    timeoutMs: milliseconds,
    healthyAfter: integer({ min: 1, max: 100 }),
    unhealthyAfter: integer({ min: 1, max: 100 }),
    status: integer({ min: 200, max: 599 }),
  },
})

const servers = array(either([isText, origin], [() => true, server]), { min: 1 })
const percent = integer({ min: 1, max: 100 })

const split = object({
  required: {
    sides: record(object({ required: { servers, weight: integer({ min: 0, max: 1_000 }) } }), name),
  },
  optional: {
    sticky: object({
      required: { cookie: text(cookieName, 'a cookie name') },
      optional: { maxAgeSeconds: integer({ min: 1, max: 34_560_000 }) },
    }),
    force: object({ required: { header: text(/^[A-Za-z0-9-]+$/, 'a field name') } }),
    rollout: object({
      required: { to: text() },
      optional: {
        steps: array(percent, { min: 1 }),
        everyMs: integer({ min: 1_000, max: 86_400_000 }),
        minRequests: integer({ min: 1, max: 1_000_000 }),
        failurePercentMax: integer({ min: 0, max: 100 }),
        p99TimesMax: integer({ min: 1, max: 1_000 }),
      },
    }),
  },
})

const upstream = object({
  optional: {
    servers,
    split,
    balance,
    slowStartMs: integer({ min: 0, max: 3_600_000 }),
    health,
    inFlightMax: integer({ min: 1, max: 1_000_000 }),
    connectTimeoutMs: milliseconds,
    upstreamClient: oneOf('lean', 'undici'),
  },
})

const key = object({
  required: { algorithms: array(oneOf('HS256', 'RS256', 'ES256', 'EdDSA'), { min: 1 }) },
  optional: {
    secret: text(),
    publicKey: text(/-----BEGIN PUBLIC KEY-----/, 'a PEM that begins with -----BEGIN PUBLIC KEY-----'),
    jwks: text(isSafeUrl, 'an https URL (http only on a loopback address)'),
    issuer: oneOrMore(text()),
    audience: oneOrMore(text()),
    requiredClaims: array(text()),
    refusedClaims: record(oneOrMore(text())),
    clockToleranceSeconds: integer({ min: 0, max: 60 }),
  },
})

const acme = object({
  required: { email: text(/^$|^[^\s@<>,;]+@[^\s@<>,;]+$/, "an address such as 'admin@shop.example', or nothing") },
  optional: {
    directory: text(isSafeUrl, 'an https URL (http only on a loopback address)'),
    caFile: text(/[^]/, 'a file'),
    hosts: array(host, { min: 1 }),
  },
})

export const tableShape: Check = object({
  required: { name: text(name.name, name.what), sites: array(site, { min: 1 }) },
  optional: { tls: object({ optional: { acme } }), upstreams: record(upstream, name), keys: record(key, name) },
})

function isDuration(value: string): boolean {
  const parts = /^([1-9]\d{0,8}) ?(ms|s|m|h|d)$/.exec(value)
  return parts !== null && toMilliseconds(value) <= 366 * 86_400_000
}

function isOrigin(value: string): boolean {
  return /^https?:\/\/([^\s/@?#:[\]\\]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?\/?$/.test(value) && URL.canParse(value)
}

/** '/{path}' would begin with two slashes: a browser takes what follows for a host. */
function isLocation(value: string): boolean {
  const placeholders = value.match(/\{[^}]*\}/g) ?? []
  return (
    /^(https?:\/\/[^/]|\/(?!\/|\\|\{path\}))[\x21-\x7e]*$|^\/$/.test(value) &&
    placeholders.every((placeholder) => ['{path}', '{query}', '{host}'].includes(placeholder)) &&
    URL.canParse(value.replaceAll('{path}', '/p').replaceAll('{query}', '?q').replaceAll('{host}', 'h'), 'http://h')
  )
}

function isSafeUrl(value: string): boolean {
  if (!/^https?:\/\//.test(value) || !URL.canParse(value)) return false
  const { protocol, hostname, username, password } = new URL(value)
  if (username !== '' || password !== '') return false
  return protocol === 'https:' || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname)
}
