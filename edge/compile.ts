import { RegExpRouter } from 'hono/router/reg-exp-router'
import { SmartRouter } from 'hono/router/smart-router'
import { TrieRouter } from 'hono/router/trie-router'
import { toResponseEdits } from './actions/headers.ts'
import type { ResponseEdits } from './actions/headers.ts'
import { limits } from './limits.ts'
import { readPattern, toCanonicalPath } from './path.ts'
import type { PathPattern } from './path.ts'
import { bindPolicies } from './policies/index.ts'
import type { BoundPolicy } from './policies/index.ts'
import { isRecord, suggest } from './shape.ts'
import { actionNames, tableShape } from './table-shape.ts'
import type { ErrorShape, Files, HeaderEdits, Proxy, Redirect, Respond, Route, Site, Table, Upstream } from './table.ts'
import { createVerifier, findKeyFaults, findSecretFault } from './token.ts'
import type { Verifier } from './token.ts'
import { fillVariables } from './variables.ts'
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
}

export interface CompiledGateway {
  sites: CompiledSite[]
  /** Exact hosts, twins included. */
  hosts: Map<string, CompiledSite>
  /** '.example.com' for '*.example.com'. */
  wildcards: Map<string, CompiledSite>
  fallback: CompiledSite | undefined
  upstreams: CompiledUpstream[]
}

export interface CompiledSite {
  table: string
  hosts: string[]
  errors: ErrorShape
  site: Site
  /** In order of precedence. */
  routes: CompiledRoute[]
  router: SmartRouter<CompiledRoute>
  /** For answers when no row matched. */
  response: ResponseEdits
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
  action: CompiledAction
  response: ResponseEdits
  bodyBytesMax: number
}

export type CompiledAction =
  | ({ kind: 'proxy'; upstream: CompiledUpstream; readTimeoutMs: number; idleMs: number; edits: RequestEdits } & Omit<
      Proxy,
      'to'
    >)
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
  servers: URL[]
  connectTimeoutMs: number
}

export interface CompiledFiles {
  root: string
  spa: boolean
  immutable: ReadonlySet<string>
  noStore: ReadonlySet<string>
}

/** What is wrong with a table, where, and how to mend it. */
export interface Fault {
  table: string
  /** Such as 'sites[0].routes[2].proxy.to'. */
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

/** "cowrite: row '/api/*' (tables/cowrite.ts:12), proxy.to: names …; did you mean 'core'?" */
export function toFaultLine(fault: Fault): string {
  const place =
    fault.row === undefined ? fault.at : `row '${fault.row}'${fault.source ? ` (${fault.source})` : ''}, ${fault.at}`
  const where = fault.row === undefined && fault.source ? `${place} (${fault.source})` : place
  return `${fault.table}: ${where} ${fault.problem}: ${fault.fix}`
}

/**
 * Makes tables runnable: fills in variables, checks everything, resolves names, sorts rows by precedence. Resolves to a
 * frozen gateway or rejects with a ConfigError that names every fault at once.
 */
export async function compileTables(sources: TableSource[], options: CompileOptions): Promise<CompiledGateway> {
  const faults: Fault[] = []
  const gateway: CompiledGateway = {
    sites: [],
    hosts: new Map(),
    wildcards: new Map(),
    fallback: undefined,
    upstreams: [],
  }
  const tables = sources.map((source) => readTable(source, options, faults))
  for (const read of tables) if (read) await compileTable(read, gateway, options)
  findClashingNames(tables)
  if (faults.length > 0) throw new ConfigError(faults)
  return Object.freeze(gateway)
}

interface ReadTable {
  table: Table
  /** Rows, sites, upstreams and keys of the wrong shape: reported, and left out of what follows. */
  broken: ReadonlySet<string>
  report: (at: string, problem: string, fix: string) => void
  sourceOf: (site: number, row: number) => string | undefined
}

/** Fills in variables and checks the shape; undefined when that alone leaves nothing to go on with. */
function readTable(source: TableSource, options: CompileOptions, faults: Fault[]): ReadTable | undefined {
  const name =
    isRecord(source.table) && typeof source.table['name'] === 'string' ? source.table['name'] : (source.file ?? 'table')
  const unset = new Set<string>()
  const sourceOf = toSourceFinder(source)
  const report = (at: string, problem: string, fix: string): void => {
    if (unset.has(at)) return
    const row = /^sites\[(\d+)\]\.routes\[(\d+)\](?:\.|$)/.exec(at)
    const path = row && rowPath(source.table, Number(row[1]), Number(row[2]))
    faults.push({
      table: name,
      at: row && path ? at.slice(row[0].length) || 'it' : at || 'it',
      row: path ?? undefined,
      source: row ? sourceOf(Number(row[1]), Number(row[2])) : source.file,
      problem,
      fix,
    })
  }
  const table = fillVariables(source.table, options.environment, (at, problem, fix) => {
    report(at, problem, fix)
    unset.add(at)
  })
  const broken = new Set<string>()
  tableShape(table, '', (at, problem, fix) => {
    report(at, problem, fix)
    if (!problem.startsWith('has an unknown key')) broken.add(toUnit(at))
  })
  return broken.has('') ? undefined : { table: table as Table, broken, report, sourceOf }
}

/** The smallest part of a table that can be left out: a row, a site, an upstream or a key. */
const toUnit = (at: string): string =>
  /^(?:sites\[\d+\](?:\.routes\[\d+\])?|(?:upstreams|keys)\.[^.]+)/.exec(at)?.[0] ?? ''

async function compileTable(read: ReadTable, gateway: CompiledGateway, options: CompileOptions): Promise<void> {
  const { table, report, broken } = read
  const upstreams = compileUpstreams(read)
  gateway.upstreams.push(...upstreams.values())
  const keys = await compileKeys(read)
  for (const [index, site] of table.sites.entries()) {
    if (broken.has(`sites[${index}]`)) continue
    const compiled = compileSite({ read, site, index, upstreams, keys })
    gateway.sites.push(compiled)
    claimHosts(compiled, gateway, options, (problem, fix) => report(`sites[${index}].hosts`, problem, fix))
    if (site.default && gateway.fallback) report(`sites[${index}].default`, 'is set on a second site', 'keep it on one')
    if (site.default) gateway.fallback = compiled
    const edges = site.trustedEdges && findSecretFault(site.trustedEdges.secret)
    if (edges) report(`sites[${index}].trustedEdges.secret`, edges.problem, edges.fix)
  }
}

function compileUpstreams({ table, broken }: ReadTable): Map<string, CompiledUpstream> {
  const compile = ([name, upstream]: [string, Upstream]): [string, CompiledUpstream] => [
    name,
    {
      id: `${table.name}/${name}`,
      name,
      table: table.name,
      servers: broken.has(`upstreams.${name}`) ? [] : upstream.servers.map((server) => new URL(server)),
      connectTimeoutMs: upstream.connectTimeoutMs ?? limits.connectTimeoutMs,
    },
  ]
  return new Map(Object.entries(table.upstreams ?? {}).map(compile))
}

async function compileKeys({ table, broken, report }: ReadTable): Promise<Map<string, Verifier>> {
  const verifiers = new Map<string, Verifier>()
  for (const [name, key] of Object.entries(table.keys ?? {})) {
    const faults = broken.has(`keys.${name}`) ? [] : await findKeyFaults(key)
    for (const { at, problem, fix } of faults) report(`keys.${name}${at && `.${at}`}`, problem, fix)
    verifiers.set(name, createVerifier(`${table.name}/${name}`, key))
  }
  return verifiers
}

interface SiteParts {
  read: ReadTable
  site: Site
  index: number
  upstreams: Map<string, CompiledUpstream>
  keys: Map<string, Verifier>
}

function compileSite({ read, site, index, upstreams, keys }: SiteParts): CompiledSite {
  const compiled: CompiledSite = {
    table: read.table.name,
    hosts: site.hosts,
    errors: site.errors ?? 'problem',
    site,
    routes: [],
    router: new SmartRouter({ routers: [new RegExpRouter<CompiledRoute>(), new TrieRouter<CompiledRoute>()] }),
    response: toResponseEdits(site, undefined),
  }
  const rows = site.routes.flatMap((route, row) => {
    if (read.broken.has(`sites[${index}].routes[${row}]`)) return []
    const report = (at: string, problem: string, fix: string): void =>
      read.report(`sites[${index}].routes[${row}]${at && `.${at}`}`, problem, fix)
    const source = read.sourceOf(index, row)
    const made = compileRoute({ route, row, site, table: read.table, source, upstreams, keys, report })
    return made ? [{ made, report }] : []
  })
  rows.sort((a, b) => compareRoutes(a.made, b.made))
  findShadowedRows(rows)
  compiled.routes = rows.map(({ made }) => made)
  for (const route of compiled.routes)
    for (const method of route.methods ?? ['ALL'])
      compiled.router.add(method, `${route.pattern.path}${route.pattern.kind === 'prefix' ? '/*' : ''}`, route)
  return compiled
}

interface RouteParts {
  route: Route
  row: number
  site: Site
  table: Table
  source: string | undefined
  upstreams: Map<string, CompiledUpstream>
  keys: Map<string, Verifier>
  report: ReadTable['report']
}

function compileRoute({
  route,
  row,
  site,
  table,
  source,
  upstreams,
  keys,
  report,
}: RouteParts): CompiledRoute | undefined {
  const pattern = readPattern(route.path)
  if ('fault' in pattern) return void report('path', `'${route.path}' can match no request`, pattern.fault)
  const action = compileAction(route, table.name, upstreams, report)
  const id = `${table.name} ${route.methods ? `${route.methods.join(',')} ` : ''}${route.path}`
  const policies = bindPolicies({ id: `${id}#${site.hosts[0]}#${row}`, route, site, keys, report })
  if (!action) return undefined
  return {
    id,
    table: table.name,
    route,
    source,
    pattern,
    methods: route.methods && [
      ...new Set(route.methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))),
    ],
    matchHeaders: Object.entries(route.matchHeaders ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
    errors: route.errors ?? site.errors ?? 'problem',
    policies,
    action,
    response: toResponseEdits(site, route),
    bodyBytesMax: route.bodyBytesMax ?? limits.bodyBytesMax,
  }
}

function compileAction(
  route: Route,
  table: string,
  upstreams: Map<string, CompiledUpstream>,
  report: ReadTable['report'],
): CompiledAction | undefined {
  const named = actionNames.filter((name) => route[name] !== undefined)
  if (named.length !== 1)
    return void report(
      '',
      named.length === 0 ? 'has no action' : `has ${named.length} actions (${named.join(', ')})`,
      `give it exactly one of ${actionNames.join(', ')}`,
    )
  if (route.proxy) return compileProxy(route, route.proxy, table, upstreams, report)
  if (route.files) return { kind: 'files', files: compileFiles(route.files) }
  if (route.redirect) return { kind: 'redirect', to: route.redirect.to, status: route.redirect.status ?? 308 }
  const { status = 200, type = 'text/plain; charset=utf-8', body = '' } = route.respond ?? {}
  return { kind: 'respond', status, type, body }
}

function compileProxy(
  route: Route,
  { to, ...proxy }: Proxy,
  table: string,
  upstreams: Map<string, CompiledUpstream>,
  report: ReadTable['report'],
): CompiledAction | undefined {
  const upstream = upstreams.get(to)
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
  if (!upstream)
    return void report(
      'proxy.to',
      `names the upstream '${to}' of '${table}', which is not declared`,
      suggest(to, [...upstreams.keys()]),
    )
  return {
    kind: 'proxy',
    ...proxy,
    upstream,
    readTimeoutMs: proxy.readTimeoutMs ?? limits.readTimeoutMs,
    idleMs: proxy.idleMs ?? limits.websocketIdleMs,
    edits: compileRequestEdits(route.requestHeaders ?? {}),
  }
}

const compileRequestEdits = ({ set = {}, remove = [] }: HeaderEdits): RequestEdits => ({
  drops: new Set([...Object.keys(set), ...remove].map((name) => name.toLowerCase())),
  set: Object.entries(set).flat(),
})

const compileFiles = ({ root, spa = false, immutable = [], noStore = [] }: Files): CompiledFiles => ({
  root,
  spa,
  immutable: new Set(immutable),
  noStore: new Set(['index.html', ...noStore]),
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
  for (const [index, { made, report }] of rows.entries()) {
    const before = rows
      .slice(0, index)
      .map((row) => row.made)
      .filter((earlier) => takesFieldsOf(earlier, made))
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
  earlier.pattern.kind === later.pattern.kind &&
  earlier.pattern.path === later.pattern.path &&
  earlier.matchHeaders.every(([name, value]) =>
    later.matchHeaders.some(([other, wanted]) => other === name && (value === true || value === wanted)),
  )

function claimHosts(
  site: CompiledSite,
  gateway: CompiledGateway,
  { development }: CompileOptions,
  report: (problem: string, fix: string) => void,
): void {
  for (const host of site.hosts) {
    const names = development && hasTwin(host) ? [host, toTwin(host)] : [host]
    for (const name of new Set(names)) {
      const map = name.startsWith('*.') ? gateway.wildcards : gateway.hosts
      const key = name.startsWith('*.') ? name.slice(1) : name
      const owner = map.get(key)
      if (owner)
        report(
          `names '${name}', which a site of '${owner.table}' (${owner.hosts[0]}) has already`,
          'give each host to one site',
        )
      else map.set(key, site)
    }
  }
}

/** 'demo.moviesir.cloud' → 'demo.moviesir.localhost': browsers resolve it to this machine. */
export const toTwin = (host: string): string => host.replace(/\.[^.]+$/, '.localhost')
const hasTwin = (host: string): boolean => host.includes('.') && !/[\d\]]$/.test(host)

function findClashingNames(tables: (ReadTable | undefined)[]): void {
  const seen = new Set<string>()
  for (const { table, report } of tables.filter((read) => read !== undefined)) {
    if (seen.has(table.name)) report('name', `'${table.name}' is the name of another table too`, 'rename one')
    seen.add(table.name)
  }
}

function toSourceFinder({ table, file, lines = [] }: TableSource): ReadTable['sourceOf'] {
  const sites = isRecord(table) && Array.isArray(table['sites']) ? (table['sites'] as unknown[]) : []
  const counts = sites.map((site) => (isRecord(site) && Array.isArray(site['routes']) ? site['routes'].length : 0))
  const total = counts.reduce((sum, count) => sum + count, 0)
  return (site, row) => {
    const line =
      lines.length === total ? lines[counts.slice(0, site).reduce((sum, count) => sum + count, 0) + row] : undefined
    return file && (line === undefined ? file : `${file}:${line}`)
  }
}

function rowPath(table: unknown, site: number, row: number): string | undefined {
  const sites = isRecord(table) && Array.isArray(table['sites']) ? (table['sites'] as unknown[]) : []
  const routes =
    isRecord(sites[site]) && Array.isArray(sites[site]['routes']) ? (sites[site]['routes'] as unknown[]) : []
  const route = routes[row]
  return isRecord(route) && typeof route['path'] === 'string' ? route['path'] : undefined
}
