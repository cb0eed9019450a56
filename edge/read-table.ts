import type { Fault, TableSource } from './compile.ts'
import { isRecord } from './shape.ts'
import { tableShape } from './table-shape.ts'
import type { Acme, Key, Route, Site, Tls, Upstream } from './table.ts'
import { fillVariables } from './variables.ts'
import type { Environment } from './variables.ts'

/** A table that was read: all of it that has the right shape, so that one fault hides no other. */
export interface ReadTable {
  name: string
  /** undefined: declared, but of the wrong shape. */
  upstreams: [string, Upstream | undefined][]
  keys: [string, Key | undefined][]
  /** undefined: there is none, or it has the wrong shape. */
  acme: Acme | undefined
  sites: (ReadSite | undefined)[]
  report: (at: string, problem: string, fix: string) => void
  sourceOf: (site: number, row: number) => string | undefined
}

/** A row is undefined when its path has the wrong shape. */
export type ReadSite = Omit<Site, 'routes'> & { routes: (ReadRow | undefined)[] }

export interface ReadRow {
  /** Without the keys in `broken`. */
  route: Route
  /** Keys whose values have the wrong shape: reported already. */
  broken: ReadonlySet<string>
}

/** A fault and where it was found, so that faults can be told in the order of what people wrote. */
export interface FoundFault {
  fault: Fault
  source: TableSource
  /** -1: in no site. */
  site: number
  /** -1: in no row. */
  row: number
}

/** Fills in variables and checks the shape; undefined when there is no table at all. */
export function readTable(source: TableSource, environment: Environment, faults: FoundFault[]): ReadTable | undefined {
  const unset = new Set<string>()
  const report = createReport(source, faults, unset)
  const data = fillVariables(source.table, environment, (at, problem, fix) => {
    report(at, problem, fix)
    unset.add(at)
  })
  const broken = new Set<string>()
  tableShape(data, '', (at, problem, fix) => {
    report(at, problem, fix)
    if (!problem.startsWith('has an unknown key')) broken.add(toUnit(at))
  })
  if (!isRecord(data)) return undefined
  return {
    name: toTableName(source),
    upstreams: readEntries<Upstream>(data, 'upstreams', broken),
    keys: readEntries<Key>(data, 'keys', broken),
    acme: [...broken].some((at) => at.startsWith('tls')) ? undefined : (data['tls'] as Tls | undefined)?.acme,
    sites: toList(data['sites']).map((site, index) =>
      isRecord(site) ? readSite(site, `sites[${index}]`, broken) : undefined,
    ),
    report,
    sourceOf: toSourceFinder(source),
  }
}

/** Reports a fault with its row, and nothing about a text whose variable is missing, which was said. */
function createReport(source: TableSource, faults: FoundFault[], unset: ReadonlySet<string>): ReadTable['report'] {
  const sourceOf = toSourceFinder(source)
  return (at, problem, fix) => {
    if (unset.has(at) || follows(source.table, at, problem)) return
    const [rowAt = '', site, row] = /^sites\[(\d+)\](?:\.routes\[(\d+)\](?:\.|$))?/.exec(at) ?? []
    const path = row === undefined ? undefined : readRowPath(source.table, Number(site), Number(row))
    faults.push({
      source,
      site: Number(site ?? -1),
      row: Number(row ?? -1),
      fault: {
        table: toTableName(source),
        at: path === undefined ? at : at.slice(rowAt.length),
        row: path,
        source: row === undefined ? source.file : sourceOf(Number(site), Number(row)),
        problem,
        fix,
      },
    })
  }
}

/** A name that is not declared because its whole group has the wrong shape. */
function follows(table: unknown, at: string, problem: string): boolean {
  const group = at.endsWith('.proxy.to') ? 'upstreams' : at.endsWith('.auth.jwt') ? 'keys' : undefined
  if (group === undefined || !problem.includes('not declared')) return false
  return isRecord(table) && table[group] !== undefined && !isRecord(table[group])
}

const toTableName = ({ table, file }: TableSource): string =>
  isRecord(table) && typeof table['name'] === 'string' && table['name'] !== '' ? table['name'] : (file ?? 'table')

/** The smallest part of a table that is left out: a key of a row, a row, a host, a key of a site, an upstream, a key. */
const toUnit = (at: string): string =>
  /^(?:sites\[\d+\](?:\.routes\[\d+\](?:\.\w+)?|\.hosts\[\d+\]|\.\w+)?|(?:upstreams|keys)\.[^.]+)/.exec(at)?.[0] ?? at

function readEntries<Entry>(
  data: Record<string, unknown>,
  group: string,
  broken: ReadonlySet<string>,
): [string, Entry | undefined][] {
  const entries = isRecord(data[group]) ? Object.entries(data[group]) : []
  return entries.map(([name, entry]) => [name, broken.has(`${group}.${name}`) ? undefined : (entry as Entry)])
}

function readSite(site: Record<string, unknown>, at: string, broken: ReadonlySet<string>): ReadSite {
  const sound = withoutBroken(site, at, broken)
  return {
    ...sound,
    hosts: toList(sound['hosts']).filter((_, index) => !broken.has(`${at}.hosts[${index}]`)) as string[],
    routes: toList(sound['routes']).map((row, index) => readRow(row, `${at}.routes[${index}]`, broken)),
  }
}

function readRow(row: unknown, at: string, broken: ReadonlySet<string>): ReadRow | undefined {
  if (!isRecord(row) || row['path'] === undefined || broken.has(`${at}.path`)) return undefined
  const faulty = new Set(Object.keys(row).filter((key) => broken.has(`${at}.${key}`)))
  return { route: withoutBroken(row, at, broken) as unknown as Route, broken: faulty }
}

const withoutBroken = (data: Record<string, unknown>, at: string, broken: ReadonlySet<string>) =>
  Object.fromEntries(Object.entries(data).filter(([key]) => !broken.has(`${at}.${key}`)))

function toSourceFinder({ table, file, lines = [] }: TableSource): ReadTable['sourceOf'] {
  const counts = readSites(table).map((site) => readRows(site).length)
  const total = counts.reduce((sum, count) => sum + count, 0)
  return (site, row) => {
    const line =
      lines.length === total ? lines[counts.slice(0, site).reduce((sum, count) => sum + count, 0) + row] : undefined
    return file && (line === undefined ? file : `${file}:${line}`)
  }
}

function readRowPath(table: unknown, site: number, row: number): string | undefined {
  const route = readRows(readSites(table)[site])[row]
  return isRecord(route) && typeof route['path'] === 'string' ? route['path'] : undefined
}

const readSites = (table: unknown): unknown[] => (isRecord(table) ? toList(table['sites']) : [])
const readRows = (site: unknown): unknown[] => (isRecord(site) ? toList(site['routes']) : [])
const toList = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])
