import { toResponseEdits } from './actions/headers.ts'
import type { ResponseEdits } from './actions/headers.ts'
import { compileCache, findCacheFaults, keepsAnswers } from './cache/compile-cache.ts'
import type { CompiledCache } from './cache/cache-plan.ts'
import { limits } from './limits.ts'
import { readPattern, toCanonicalPath } from './path.ts'
import type { PathPattern } from './path.ts'
import { dropCorsFields, findCorsFaults, toCors } from './policies/cors.ts'
import type { CompiledCors } from './policies/cors.ts'
import { bindPolicies } from './policies/index.ts'
import type { BoundPolicy } from './policies/index.ts'
import { compileAcme } from './compile-acme.ts'
import type { CompiledAcme } from './compile-acme.ts'
import { readHost } from './exchange.ts'
import { findAnswerFieldFaults, findFieldFaults, findUnseenField } from './field-faults.ts'
import { readTable } from './read-table.ts'
import type { FoundFault, ReadRow, ReadSite, ReadTable } from './read-table.ts'
import { RowRouter } from './row-router.ts'
import { findNear, suggest } from './shape.ts'
import { actionNames } from './table-shape.ts'
import type {
  Balance,
  ErrorShape,
  Files,
  HeaderEdits,
  Health,
  Key,
  Proxy,
  Redirect,
  Respond,
  Retry,
  Route,
  Rollout,
  Server,
  Site,
  Split,
  Sticky,
  Upstream,
  UpstreamClientName,
} from './table.ts'
import { hasTwin, toTwin } from './twin.ts'
import { isIdempotent } from './upstreams/retry.ts'
import { createVerifier, findKeyFaults, findSecretFault } from './token.ts'
import type { Verifier } from './token.ts'
import type { Environment } from './variables.ts'

export type { ResponseEdits }

/** A table as it was loaded: the data, and where its rows stand. */
export interface TableSource {
  table: unknown
  /** The file, as a person would name it. */
  file?: string
  /** The line of each row's `path`, in the order of the rows; empty when unknown. */
  lines?: number[]
}

export interface CompileOptions {
  /** What variables stand for. */
  environment: Environment
  /** Every host also answers at its `.localhost` twin. */
  development: boolean
  /** What is the same as there is taken over as it is: upstreams, and keys with the tokens they have verified. */
  previous?: CompiledGateway
}

export interface CompiledGateway {
  sites: CompiledSite[]
  /** Exact hosts, twins included. */
  hosts: Map<string, CompiledSite>
  /** '.example.com' for '*.example.com'. */
  wildcards: Map<string, CompiledSite>
  fallback: CompiledSite | undefined
  /** The sides of splits among them. */
  upstreams: CompiledUpstream[]
  splits: CompiledSplit[]
  /** By their ids. */
  keys: Map<string, CompiledKey>
}

interface CompiledKey {
  key: Key
  verifier: Verifier
}

export interface CompiledSite {
  table: string
  hosts: string[]
  errors: ErrorShape
  site: Site
  /** Orders certificates for hosts of the site; undefined: for none of them. */
  acme: CompiledAcme | undefined
  /** In order of precedence. */
  routes: CompiledRoute[]
  router: RowRouter<CompiledRoute>
  /** For answers when no row matched. */
  response: ResponseEdits
  cors: CompiledCors | undefined
  /** Whether any row answers browsers that ask first. */
  hasPreflights: boolean
}

export interface CompiledRoute {
  /** 'cowrite /api/*', with the methods when they tell rows apart. */
  id: string
  table: string
  /** The row as it was written, variables filled in. */
  route: Route
  /** 'file:line', or the file, or undefined. */
  source: string | undefined
  pattern: PathPattern
  /** HEAD included where GET is; undefined: all. */
  methods: string[] | undefined
  /** Lower-cased name, value or true. */
  matchHeaders: [string, string | true][]
  errors: ErrorShape
  policies: BoundPolicy[]
  /** Of the key that the row's auth names. */
  verifier: Verifier | undefined
  action: CompiledAction
  response: ResponseEdits
  cors: CompiledCors | undefined
  bodyBytesMax: number
}

export type CompiledAction =
  | ({
      kind: 'proxy'
      /** With a split its first side, which stands for what is the same of all. */
      upstream: CompiledUpstream
      split: CompiledSplit | undefined
      readTimeoutMs: number
      idleMs: number
      retry: CompiledRetry
      edits: RequestEdits
      compress: boolean
      /** 'invalidate': the row's answers are not kept, but those of others of its site. */
      cache: CompiledCache | 'invalidate' | undefined
    } & Omit<Proxy, 'to' | 'retry'>)
  | { kind: 'files'; files: CompiledFiles }
  | ({ kind: 'redirect' } & Required<Redirect>)
  | ({ kind: 'respond' } & Required<Respond>)

export interface RequestEdits {
  /** Lower-cased names of the client's fields that are not passed on. */
  drops: ReadonlySet<string>
  /** Flat. */
  set: string[]
}

export interface CompiledUpstream {
  /** 'cowrite/core'. */
  id: string
  name: string
  table: string
  servers: CompiledServer[]
  balance: Balance
  slowStartMs: number
  health: CompiledHealth | undefined
  inFlightMax: number
  connectTimeoutMs: number
  client: UpstreamClientName
}

export interface CompiledSplit {
  /** 'shop/app'. */
  id: string
  name: string
  sides: CompiledSide[]
  sticky: Required<Sticky> | undefined
  /** Lower-cased. */
  force: string | undefined
  rollout: CompiledRollout | undefined
  /** What the table says of it, so that another table's can be told from it. */
  declared: string
}

export interface CompiledSide {
  name: string
  weight: number
  /** Its servers: 'shop/app:blue'. */
  upstream: CompiledUpstream
}

/** `to` and `from` are the sides' places. */
export type CompiledRollout = Required<Omit<Rollout, 'to'>> & { to: number; from: number }

export interface CompiledServer {
  url: URL
  /** 'http://127.0.0.1:8100'. */
  origin: string
  weight: number
  backup: boolean
}

/** `status` undefined: any from 200 to 399. */
export type CompiledHealth = Required<Omit<Health, 'status'>> & { status: number | undefined }

/** When a request is sent again. */
export interface CompiledRetry {
  attempts: number
  statuses: readonly number[]
}

export interface CompiledFiles {
  root: string
  spa: boolean
  immutable: ReadonlySet<string>
  noStore: ReadonlySet<string>
  releases: number
}

/** What is wrong with a table, where, and how to mend it. */
export interface Fault {
  table: string
  /** Such as 'keys.access.secret'; in a row as seen from there, such as 'proxy.to'. Empty: the table or the row. */
  at: string
  /** The row's path, when it is in a row. */
  row: string | undefined
  source: string | undefined
  problem: string
  fix: string
}

/** Thrown once, with every fault of every table. */
export class ConfigError extends Error {
  readonly faults: Fault[]
  constructor(faults: Fault[]) {
    super(faults.map(toFaultLine).join('\n'))
    this.name = 'ConfigError'
    this.faults = faults
  }
}

/** "cowrite: row '/api/*' (tables/cowrite.ts:12), proxy.to names …; did you mean 'core'?" */
export function toFaultLine({ table, at, row, source, problem, fix }: Fault): string {
  const place = source === undefined || source === table ? '' : ` (${source})`
  const where = row === undefined ? `${at}${place}` : `row '${row}'${place}${at && `, ${at}`}`
  return `${table}:${where && ` ${where.trim()}`} ${problem}: ${fix}`
}

/**
 * Makes tables runnable: fills in variables, checks everything, resolves names, sorts rows by precedence. Resolves to a
 * frozen gateway or rejects with a ConfigError that names every fault at once.
 */
export async function compileTables(sources: TableSource[], options: CompileOptions): Promise<CompiledGateway> {
  const faults: FoundFault[] = []
  const gateway: CompiledGateway = {
    sites: [],
    hosts: new Map(),
    wildcards: new Map(),
    fallback: undefined,
    upstreams: [],
    splits: [],
    keys: new Map(),
  }
  const tables = sources.map((source) => readTable(source, options.environment, faults))
  const claims = createClaims(gateway, options)
  for (const read of tables) if (read) await compileTable(read, gateway, claims, options.previous)
  findClashingNames(tables)
  if (faults.length > 0) throw new ConfigError(inOrder(faults, sources))
  return Object.freeze(gateway)
}

/** Table by table, site by site, row by row. */
function inOrder(faults: FoundFault[], sources: TableSource[]): Fault[] {
  const sorted = faults.toSorted(
    (a, b) => sources.indexOf(a.source) - sources.indexOf(b.source) || a.site - b.site || a.row - b.row,
  )
  return sorted.map(({ fault }) => fault)
}

async function compileTable(
  read: ReadTable,
  gateway: CompiledGateway,
  claims: Claims,
  previous: CompiledGateway | undefined,
): Promise<void> {
  const { report } = read
  const upstreams = compileUpstreams(read, previous?.upstreams)
  for (const { upstream, split } of upstreams.values())
    gateway.upstreams.push(...(split ? split.sides.map((side) => side.upstream) : [upstream]))
  gateway.splits.push(...[...upstreams.values()].flatMap(({ split }) => split ?? []))
  const compiledKeys = await compileKeys(read, previous)
  for (const one of compiledKeys.values()) gateway.keys.set(one.verifier.id, one)
  const keys = new Map([...compiledKeys].map(([name, { verifier }]) => [name, verifier]))
  const acme = compileAcme(read)
  for (const [index, site] of read.sites.entries()) {
    if (!site) continue
    const compiled = compileSite({ read, site, index, upstreams, keys, acme })
    gateway.sites.push(compiled)
    claims.claim(compiled, (problem, fix) => report(`sites[${index}].hosts`, problem, fix))
    if (site.default && gateway.fallback) report(`sites[${index}].default`, 'is set on a second site', 'keep it on one')
    if (site.default) gateway.fallback = compiled
    const edges = site.trustedEdges && findSecretFault(site.trustedEdges.secret)
    if (site.cors) findCorsFaults(site.cors, `sites[${index}].cors`, report)
    if (edges) report(`sites[${index}].trustedEdges.secret`, edges.problem, edges.fix)
    for (const { at, problem, fix } of findAnswerFieldFaults(site.headers, 'headers'))
      report(`sites[${index}].${at}`, problem, fix)
  }
}

/** What a row's `to` may name. */
interface NamedUpstream {
  upstream: CompiledUpstream
  split: CompiledSplit | undefined
}

function compileUpstreams(
  { name: table, upstreams, report }: ReadTable,
  previous: CompiledUpstream[] = [],
): Map<string, NamedUpstream> {
  for (const [name, upstream] of upstreams) if (upstream) findUpstreamFaults(name, upstream, report)
  const compile = (name: string, upstream: Upstream | undefined): CompiledUpstream =>
    toKnown(previous, compileUpstream(table, name, upstream))
  return new Map(
    upstreams.map(([name, upstream]): [string, NamedUpstream] => {
      const split = upstream?.split && compileSplit(table, name, { upstream, split: upstream.split, compile })
      return [name, { split, upstream: split?.sides[0]?.upstream ?? compile(name, upstream) }]
    }),
  )
}

/** The one that there is already, where nothing about it has changed: with it go its connections and its health. */
function toKnown(known: CompiledUpstream[], upstream: CompiledUpstream): CompiledUpstream {
  const before = known.find(({ id }) => id === upstream.id)
  return before && isSame(before, upstream) ? before : upstream
}

/** Whether data that was written down is the same. */
const isSame = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

const compileUpstream = (table: string, name: string, upstream: Upstream | undefined): CompiledUpstream => ({
  id: `${table}/${name}`,
  name,
  table,
  servers: (upstream?.servers ?? []).map(compileServer),
  balance: upstream?.balance ?? 'round-robin',
  slowStartMs: upstream?.slowStartMs ?? limits.slowStartMs,
  health: upstream?.health && compileHealth(upstream.health),
  inFlightMax: upstream?.inFlightMax ?? limits.inFlightMax,
  connectTimeoutMs: upstream?.connectTimeoutMs ?? limits.connectTimeoutMs,
  client: upstream?.upstreamClient ?? 'lean',
})

interface SplitParts {
  upstream: Upstream
  split: Split
  compile: (name: string, upstream: Upstream) => CompiledUpstream
}

function compileSplit(table: string, name: string, { upstream, split, compile }: SplitParts): CompiledSplit {
  const names = Object.keys(split.sides)
  return {
    id: `${table}/${name}`,
    name,
    sides: Object.entries(split.sides).map(([side, { servers, weight }]) => ({
      name: side,
      weight,
      upstream: compile(`${name}:${side}`, { ...upstream, servers }),
    })),
    sticky: split.sticky && { maxAgeSeconds: limits.stickySeconds, ...split.sticky },
    force: split.force?.header.toLowerCase(),
    rollout: split.rollout && compileRollout(split.rollout, names),
    declared: JSON.stringify(split),
  }
}

const compileRollout = ({ to, ...rollout }: Rollout, sides: string[]): CompiledRollout => ({
  to: sides.indexOf(to),
  from: 1 - sides.indexOf(to),
  steps: rollout.steps ?? [1, 5, 25, 50, 100],
  everyMs: rollout.everyMs ?? limits.rolloutEveryMs,
  minRequests: rollout.minRequests ?? limits.rolloutRequestsMin,
  failurePercentMax: rollout.failurePercentMax ?? limits.rolloutFailurePercentMax,
  p99TimesMax: rollout.p99TimesMax ?? limits.rolloutP99TimesMax,
})

function compileServer(server: string | Server): CompiledServer {
  const { url, weight = 1, backup = false } = typeof server === 'string' ? { url: server } : server
  const parsed = new URL(url)
  return { url: parsed, origin: parsed.origin, weight, backup }
}

const compileHealth = (health: Health): CompiledHealth => ({
  path: health.path,
  everyMs: health.everyMs ?? limits.healthEveryMs,
  timeoutMs: health.timeoutMs ?? limits.healthTimeoutMs,
  healthyAfter: health.healthyAfter ?? limits.healthyAfter,
  unhealthyAfter: health.unhealthyAfter ?? limits.unhealthyAfter,
  status: health.status,
})

/** What no server could be chosen by, or nobody can have meant. */
function findUpstreamFaults(name: string, { servers, split, balance }: Upstream, report: ReadTable['report']): void {
  const at = `upstreams.${name}`
  if (servers && split) report(at, "has both 'servers' and 'split'", 'put the servers into the sides')
  else if (split) findSplitFaults(`${at}.split`, split, report)
  else if (servers) findServerFaults(`${at}.servers`, servers, report)
  else report(at, "has no 'servers'", "add 'servers', or 'split' with sides that have them")
  const field = typeof balance === 'object' && typeof balance.hash === 'object' && 'header' in balance.hash
  const faults = field ? findUnseenField((balance.hash as { header: string }).header, 'balance.hash.header') : []
  for (const fault of faults) report(`${at}.${fault.at}`, fault.problem, fault.fix)
}

function findServerFaults(at: string, servers: (string | Server)[], report: ReadTable['report']): void {
  const compiled = servers.map(compileServer)
  if (compiled.every(({ backup }) => backup)) report(at, 'are all backups', 'leave one that is not')
  else if (compiled.every(({ weight, backup }) => backup || weight === 0))
    report(at, 'have no weight', 'give one a weight above 0')
  const seen = compiled.map(({ origin }) => origin)
  for (const twice of new Set(seen.filter((origin, index) => seen.indexOf(origin) !== index)))
    report(at, `name ${twice} twice`, 'give it more weight instead')
}

function findSplitFaults(at: string, { sides, force, rollout }: Split, report: ReadTable['report']): void {
  const names = Object.keys(sides)
  for (const name of names) findServerFaults(`${at}.sides.${name}.servers`, sides[name]?.servers ?? [], report)
  if (names.length < 2) report(`${at}.sides`, `are ${names.length}`, 'declare two or more')
  else if (names.every((name) => sides[name]?.weight === 0))
    report(`${at}.sides`, 'have no weight', 'give one a weight above 0')
  for (const fault of force ? findUnseenField(force.header, 'force.header') : [])
    report(`${at}.${fault.at}`, fault.problem, fault.fix)
  if (!rollout) return
  const { to, steps = [] } = rollout
  if (!names.includes(to))
    report(`${at}.rollout.to`, `names the side '${to}', which is not declared`, suggest(to, names))
  else if (names.length !== 2) report(`${at}.rollout`, `is for two sides, and there are ${names.length}`, 'leave two')
  if (steps.some((step, index) => index > 0 && step <= (steps[index - 1] ?? 0)))
    report(`${at}.rollout.steps`, `are ${steps.join(', ')}`, 'write them from the smallest to the largest')
}

async function compileKeys(
  { name: table, keys, report }: ReadTable,
  previous: CompiledGateway | undefined,
): Promise<Map<string, CompiledKey>> {
  const compiled = new Map<string, CompiledKey>()
  for (const [name, key = noKey] of keys) {
    const faults = key === noKey ? [] : await findKeyFaults(key)
    for (const { at, problem, fix } of faults) report(`keys.${name}${at && `.${at}`}`, problem, fix)
    const id = `${table}/${name}`
    const known = previous?.keys.get(id)
    compiled.set(name, known && isSame(known.key, key) ? known : { key, verifier: createVerifier(id, key) })
  }
  return compiled
}

/** Stands for a key of the wrong shape, so that rows may name it. */
const noKey: Key = { algorithms: [] }

interface SiteParts {
  read: ReadTable
  site: ReadSite
  index: number
  upstreams: Map<string, NamedUpstream>
  keys: Map<string, Verifier>
  acme: CompiledAcme | undefined
}

function compileSite({ read, site: { routes, ...rest }, index, upstreams, keys, acme }: SiteParts): CompiledSite {
  const site: Site = { ...rest, routes: routes.flatMap((row) => (row ? [row.route] : [])) }
  const compiled: CompiledSite = {
    table: read.name,
    hosts: site.hosts,
    errors: site.errors ?? 'problem',
    site,
    acme: site.hosts.some((host) => acme?.isOrdered(host)) ? acme : undefined,
    routes: [],
    router: new RowRouter(),
    response: toResponseEdits(site, undefined),
    cors: toCors(site),
    hasPreflights: false,
  }
  const counts = new Map<string, number>()
  const rows = routes.flatMap((readRow, row) => {
    if (!readRow) return []
    const report = (at: string, problem: string, fix: string): void =>
      read.report(`sites[${index}].routes[${row}]${at && `.${at}`}`, problem, fix)
    const source = read.sourceOf(index, row)
    const id = toRouteId(read.name, readRow.route)
    const nth = counts.get(id) ?? 0
    counts.set(id, nth + 1)
    const made = compileRoute({ ...readRow, id, nth, site, table: read.name, source, upstreams, keys, report })
    return made ? [{ made, report }] : []
  })
  rows.sort((a, b) => compareRoutes(a.made, b.made))
  findShadowedRows(rows)
  compiled.routes = rows.map(({ made }) => made)
  compiled.hasPreflights = compiled.routes.some(({ cors }) => cors !== undefined)
  for (const route of compiled.routes)
    for (const method of route.methods ?? ['ALL'])
      compiled.router.add(method, `${route.pattern.path}${route.pattern.kind === 'prefix' ? '/*' : ''}`, route)
  return compiled
}

const toRouteId = (table: string, { methods, path }: Route): string =>
  `${table} ${methods ? `${methods.join(',')} ` : ''}${path}`

interface RouteParts extends ReadRow {
  id: string
  /** Which of the site's rows of this id; where it stands among the others may change. */
  nth: number
  site: Site
  table: string
  source: string | undefined
  upstreams: Map<string, NamedUpstream>
  keys: Map<string, Verifier>
  report: ReadTable['report']
}

/** undefined when the row has a fault that leaves nothing to compare with other rows. */
function compileRoute(parts: RouteParts): CompiledRoute | undefined {
  const { id, nth, site, table, source, keys, report, broken } = parts
  // Without its 'auth', a limit by subject would be reported as well.
  const route = broken.has('auth') ? { ...parts.route, limit: undefined } : parts.route
  const pattern = readPattern(route.path)
  if ('fault' in pattern) return void report('path', `'${route.path}' can match no request`, pattern.fault)
  const action = compileAction(parts)
  const cors = toCors(site, route)
  const policies = bindPolicies({ id: `${id}#${site.hosts[0]}#${nth}`, route, site, keys, report })
  for (const { at, problem, fix } of [...findFieldFaults(route), ...findCacheFaults(route)]) report(at, problem, fix)
  if (!action || broken.size > 0) return undefined
  return {
    id,
    table,
    route,
    source,
    pattern,
    methods: route.methods && [
      ...new Set(route.methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))),
    ],
    matchHeaders: Object.entries(route.matchHeaders ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
    errors: route.errors ?? site.errors ?? 'problem',
    policies,
    verifier: route.auth && keys.get(route.auth.jwt),
    action,
    response: dropCorsFields(toResponseEdits(site, route), cors),
    cors,
    bodyBytesMax: route.bodyBytesMax ?? limits.bodyBytesMax,
  }
}

function compileAction(parts: RouteParts): CompiledAction | undefined {
  const { route, broken, report } = parts
  const named = actionNames.filter((name) => route[name] !== undefined || broken.has(name))
  // A misspelt action was reported as an unknown key.
  if (named.length === 0 && Object.keys(route).some((key) => findNear(key, actionNames))) return undefined
  if (named.length !== 1)
    return void report(
      '',
      named.length === 0 ? 'has no action' : `has ${named.length} actions (${named.join(', ')})`,
      `give it exactly one of ${actionNames.join(', ')}`,
    )
  if (named.some((name) => broken.has(name))) return undefined
  if (route.proxy) return compileProxy(parts, route.proxy)
  if (route.files) return { kind: 'files', files: compileFiles(route.files) }
  if (route.redirect) return { kind: 'redirect', to: route.redirect.to, status: route.redirect.status ?? 308 }
  const { status = 200, type = 'text/plain; charset=utf-8', body = '' } = route.respond ?? {}
  return { kind: 'respond', status, type, body }
}

function compileProxy(
  { route, site, table, upstreams, report }: RouteParts,
  { to, ...proxy }: Proxy,
): CompiledAction | undefined {
  const named = upstreams.get(to)
  const pattern = readPattern(route.path)
  if (proxy.strip && 'path' in pattern && pattern.path !== proxy.strip && !pattern.path.startsWith(`${proxy.strip}/`))
    report(
      'proxy.strip',
      `'${proxy.strip}' does not lead '${route.path}'`,
      'strip only what every path of the row begins with',
    )
  if (proxy.strip && proxy.path) report('proxy', "has both 'strip' and 'path'", 'keep one')
  if (proxy.path !== undefined && toCanonicalPath(proxy.path) !== proxy.path)
    report(
      'proxy.path',
      `'${proxy.path}' is not in canonical form`,
      'write no dot segments, empty segments or needless escapes',
    )
  if (proxy.retry && route.methods?.every((method) => !isIdempotent(method)))
    report('proxy.retry', `has nothing to send again: no ${route.methods.join(' or ')} may be repeated`, 'drop it')
  if (!named)
    return void report(
      'proxy.to',
      `names the upstream '${to}', which is not declared`,
      upstreams.size > 0 ? suggest(to, [...upstreams.keys()]) : `declare it in the table's 'upstreams'`,
    )
  return {
    kind: 'proxy',
    ...proxy,
    ...named,
    readTimeoutMs: proxy.readTimeoutMs ?? limits.readTimeoutMs,
    idleMs: proxy.idleMs ?? limits.websocketIdleMs,
    retry: compileRetry(proxy.retry),
    edits: compileRequestEdits(route.requestHeaders ?? {}, named.split?.force),
    compress: route.compress ?? site.compress ?? false,
    cache: compileCache(route, table) ?? (site.routes.some(keepsAnswers) ? 'invalidate' : undefined),
  }
}

/** One attempt: none is sent again. */
const compileRetry = (retry: false | Retry = {}): CompiledRetry =>
  retry === false
    ? { attempts: 1, statuses: [] }
    : { attempts: retry.attempts ?? limits.retryAttempts, statuses: retry.statuses ?? [] }

/** `forces`: the field that names a side is for the gateway only. */
const compileRequestEdits = ({ set = {}, remove = [] }: HeaderEdits, forces: string | undefined): RequestEdits => ({
  drops: new Set([...Object.keys(set), ...remove, ...(forces ? [forces] : [])].map((name) => name.toLowerCase())),
  set: Object.entries(set).flat(),
})

const compileFiles = (files: Files): CompiledFiles => ({
  root: files.root,
  spa: files.spa ?? false,
  immutable: new Set(files.immutable),
  noStore: new Set(['index.html', ...(files.noStore ?? [])]),
  releases: files.releases ?? limits.releases,
})

/** Precedence: exact before prefix, the longer prefix first, rows for some methods before rows for all, then the order in the table. */
function compareRoutes(a: CompiledRoute, b: CompiledRoute): number {
  if (a.pattern.kind !== b.pattern.kind) return a.pattern.kind === 'exact' ? -1 : 1
  if (a.pattern.path.length !== b.pattern.path.length) return b.pattern.path.length - a.pattern.path.length
  return Number(a.methods === undefined) - Number(b.methods === undefined)
}

/**
 * A row is shadowed when the rows before it with the same path take every request that it could match. Other paths
 * cannot shadow it: a more specific pattern leaves some of its paths over.
 */
function findShadowedRows(rows: { made: CompiledRoute; report: ReadTable['report'] }[]): void {
  const known = new Map<string, CompiledRoute[]>()
  for (const { made, report } of rows) {
    const pattern = `${made.pattern.kind} ${made.pattern.path}`
    const earlierOnes = known.get(pattern) ?? []
    const before = earlierOnes.filter((earlier) => takesFieldsOf(earlier, made))
    known.set(pattern, [...earlierOnes, made])
    const all = before.find((earlier) => earlier.methods === undefined)
    const taken = new Set(before.flatMap((earlier) => earlier.methods ?? []))
    const covered = made.methods?.every((method) => taken.has(method)) === true
    const by = all ?? (covered ? before.at(-1) : undefined)
    if (!by) continue
    const place = by.source ? ` at ${by.source}` : ''
    report(
      '',
      `can be reached by no request: '${by.id}'${place} takes all that it matches`,
      'drop one of them, move the narrower one up, or tell them apart by methods or matchHeaders',
    )
  }
}

const takesFieldsOf = (earlier: CompiledRoute, later: CompiledRoute): boolean =>
  earlier.matchHeaders.every(([name, value]) =>
    later.matchHeaders.some(([other, wanted]) => other === name && (value === true || value === wanted)),
  )

interface Claims {
  claim(site: CompiledSite, report: (problem: string, fix: string) => void): void
}

/** Gives each host to one site, and in development its twin too. */
function createClaims(gateway: CompiledGateway, { development }: CompileOptions): Claims {
  const claimed = new Map<string, { site: CompiledSite; host: string }>()

  function claim(site: CompiledSite, report: (problem: string, fix: string) => void): void {
    for (const [index, host] of site.hosts.entries()) {
      const asked = host.replace('*', 'x')
      const canonical = readHost(asked)?.host
      if (canonical !== asked)
        report(`names '${host}', which no request can ask for`, canonical ? `write '${canonical}'` : 'write a host')
      else if (site.hosts.indexOf(host) !== index) report(`names '${host}' twice`, 'drop one')
      else if (take(host, host, site, report) && development && hasTwin(host)) take(toTwin(host), host, site, report)
    }
  }

  /** `name` is `host` or its twin. */
  function take(name: string, host: string, site: CompiledSite, report: (problem: string, fix: string) => void) {
    const owner = claimed.get(name)
    if (owner?.site === site) return true
    if (owner) {
      const by = owner.host === name ? '' : `, as the twin of '${owner.host}' in development`
      const what = name === host ? `'${name}'` : `'${host}', whose twin in development is '${name}'`
      report(`names ${what}, which the site ${owner.site.hosts[0]} of '${owner.site.table}' has${by}`, hostFix)
      return false
    }
    claimed.set(name, { site, host })
    if (name.startsWith('*.')) gateway.wildcards.set(name.slice(1), site)
    else gateway.hosts.set(name, site)
    return true
  }

  return { claim }
}

const hostFix = 'give each host to one site'

function findClashingNames(tables: (ReadTable | undefined)[]): void {
  const seen = new Set<string>()
  for (const { name, report } of tables.filter((read) => read !== undefined)) {
    if (seen.has(name)) report('name', `'${name}' is the name of another table too`, 'rename one')
    seen.add(name)
  }
}
