import type { CompiledGateway, CompiledRoute, CompiledSite } from './compile.ts'
import { fieldValue } from './exchange.ts'
import type { RawRequest } from './exchange.ts'
import { explain } from './explain.ts'
import type { ExplainedAction, Explanation } from './explain.ts'
import type { Facts } from './runtime.ts'

/** A request that is put to both tables, and where it was found. */
export interface Probe {
  raw: RawRequest
  from: 'row' | 'golden' | 'log'
  /** How often it stands there. */
  count: number
}

/** What a change of table does: requests that are treated differently, those with the same differences together. */
export interface Diff {
  requests: number
  different: number
  groups: DiffGroup[]
}

export interface DiffGroup {
  old: Explanation['row']
  new: Explanation['row']
  /** What the first of the requests meets; '-': nothing. Of others, the target may be another. */
  differences: { fact: string; old: string; new: string }[]
  requests: DiffRequest[]
}

export interface DiffRequest {
  method: string
  url: string
  /** Besides Host. */
  fields: [string, string][]
  from: Probe['from']
  count: number
}

/**
 * Decides about every probe by both tables. What stands behind a token is compared as if there were a good one; nothing
 * is counted, sent or fetched.
 */
export async function diffTables(
  before: CompiledGateway,
  after: CompiledGateway,
  probes: Probe[],
  facts: Facts,
): Promise<Diff> {
  const groups = new Map<string, DiffGroup>()
  const merged = mergeProbes(probes)
  let different = 0
  for (const probe of merged) {
    const old = await explain(before, probe.raw, facts, { pastTokens: true })
    const now = await explain(after, probe.raw, facts, { pastTokens: true })
    const differences = compare(toFacts(old), toFacts(now))
    if (differences.length === 0) continue
    different++
    const key = JSON.stringify([
      old.row?.id,
      now.row?.id,
      differences.map((one) => (one.fact === 'target' ? one.fact : one)),
    ])
    const group = groups.get(key) ?? { old: old.row, new: now.row, differences, requests: [] }
    groups.set(key, group)
    group.requests.push(toRequest(probe))
  }
  const asked = ({ requests }: DiffGroup): number => requests.reduce((sum, one) => sum + toWeight(one), 0)
  for (const { requests } of groups.values()) requests.sort((a, b) => toWeight(b) - toWeight(a))
  return { requests: merged.length, different, groups: [...groups.values()].toSorted((a, b) => asked(b) - asked(a)) }
}

/** What clients have asked for counts most. */
const toWeight = ({ from, count }: DiffRequest): number => (from === 'log' ? 1_000 * count : 1)

/** One of each; what is in a log is said to be from there. */
function mergeProbes(probes: Probe[]): Probe[] {
  const merged = new Map<string, Probe>()
  for (const probe of probes) {
    const { method, target, headers, secure } = probe.raw
    const key = JSON.stringify([method, secure, target, headers])
    const known = merged.get(key)
    if (!known) merged.set(key, { ...probe })
    else if (known.from === probe.from) known.count += probe.count
    else if (probe.from === 'log') merged.set(key, { ...probe })
  }
  return [...merged.values()]
}

function toRequest({ raw: { method, target, headers, secure }, from, count }: Probe): DiffRequest {
  const host = fieldValue(headers, 'host') ?? ''
  const fields = Array.from({ length: headers.length / 2 }, (_, index): [string, string] => [
    headers[index * 2] ?? '',
    headers[index * 2 + 1] ?? '',
  ])
  return {
    method,
    url: `${secure ? 'https' : 'http'}://${host}${target}`,
    fields: fields.filter(([name]) => name.toLowerCase() !== 'host'),
    from,
    count,
  }
}

/** What a request meets, by name; what is not there is left out. */
function toFacts({
  site,
  policies,
  action,
  requestHeaders,
  responseHeaders,
  limits,
}: Explanation): Map<string, string> {
  const facts = new Map<string, string>(toActionFacts(action))
  if (site) facts.set('errors', site.errors)
  for (const { name, asks } of policies) facts.set(name, [facts.get(name), asks].filter(Boolean).join(', '))
  for (const [name, value] of Object.entries(limits)) facts.set(name, String(value))
  for (const [name, value] of requestHeaders.added) facts.set(`sends ${name}`, value)
  for (const name of requestHeaders.removed) facts.set(`sends without ${name}`, 'yes')
  // Those of the limit are said with it.
  const answered = responseHeaders.added.filter(([name]) => !name.startsWith('RateLimit'))
  for (const [name, value] of answered) addTo(facts, `answers ${name}`, value)
  for (const [name, value] of responseHeaders.unlessPresent) addTo(facts, `answers ${name}`, value)
  const removed = responseHeaders.removed.filter((name) => !name.startsWith('ratelimit'))
  for (const name of removed) facts.set(`answers without ${name}`, 'yes')
  return facts
}

const addTo = (facts: Map<string, string>, name: string, value: string): void =>
  void facts.set(name, facts.has(name) ? `${facts.get(name)}, ${value}` : value)

function toActionFacts(action: ExplainedAction): [string, string][] {
  if (action.kind === 'proxy') {
    const { upstream, target, servers, balance, settings, websocket, split } = action
    return [
      ['action', `proxy ${split?.name ?? upstream}`],
      ['target', target],
      ...(split ? toSplitFacts(split) : [['servers', servers.join(', ')] satisfies [string, string]]),
      ['balance', balance],
      ['upstream', settings.join(', ')],
      ...(websocket ? [['websocket', 'let through'] satisfies [string, string]] : []),
    ]
  }
  if (action.kind === 'files')
    return [
      ['action', `files ${action.root}${action.spa ? ', index.html for pages' : ''}`],
      ['target', action.path],
    ]
  const { status, location, error, detail, body } = action
  if (location !== null)
    return [
      ['action', `redirect ${status}`],
      ['target', location],
    ]
  if (error !== null)
    return [
      ['action', `refuse ${status} ${error}`],
      ['detail', detail ?? ''],
    ]
  return [
    ['action', `respond ${status}`],
    ['body', body],
  ]
}

const toSplitFacts = ({
  sides,
  settings,
}: NonNullable<(ExplainedAction & { kind: 'proxy' })['split']>): [string, string][] => [
  ...sides.map(({ name, weight, servers }): [string, string] => [`side ${name}`, `${weight} to ${servers.join(', ')}`]),
  ['split', settings.join(', ')],
]

function compare(old: Map<string, string>, now: Map<string, string>): DiffGroup['differences'] {
  const names = [...new Set([...old.keys(), ...now.keys()])].filter((name) => old.get(name) !== now.get(name))
  // Where something else is done, its fields and bounds are others too.
  const isOther = names.includes('action')
  return names
    .filter((name) => !isOther || ownFacts.has(name))
    .map((fact) => ({ fact, old: old.get(fact) ?? '-', new: now.get(fact) ?? '-' }))
}

/** What is said also where another action is taken. */
const ownFacts: ReadonlySet<string> = new Set([
  'action',
  'target',
  'trusted-edges',
  'https',
  'limit',
  'body-size',
  'auth',
])

/**
 * Requests that reach every row of a table: its path and one below, its methods, its fields, its hosts, http and https;
 * and on each host one that no row may be there for.
 */
export function toRowProbes({ sites }: CompiledGateway): Probe[] {
  const requests = sites.flatMap((site) => site.hosts.flatMap((host) => toHostRequests(site, host.replace('*', probe))))
  const unknown = { method: 'GET', host: `${probe}.invalid`, path: '/', fields: [] }
  return [...requests, unknown].flatMap(({ method, host, path, fields }) =>
    [true, false].map((secure) => ({
      raw: { method, target: path, version: '1.1', headers: ['Host', host, ...fields], peer: '203.0.113.7', secure },
      from: 'row' as const,
      count: 1,
    })),
  )
}

const probe = 'daemun-probe'

interface RowRequest {
  method: string
  host: string
  path: string
  fields: string[]
}

const toHostRequests = ({ routes }: CompiledSite, host: string): RowRequest[] => [
  ...routes.flatMap((route) => toRowRequests(route, host)),
  { method: 'GET', host, path: `/${probe}`, fields: [] },
]

function toRowRequests({ pattern, methods, matchHeaders, action }: CompiledRoute, host: string): RowRequest[] {
  const paths = pattern.kind === 'exact' ? [pattern.path] : [pattern.path || '/', `${pattern.path}/${probe}`]
  const fields = matchHeaders.flatMap(([name, value]) => [name, value === true ? probe : value])
  const plain = paths.flatMap((path) => (methods ?? ['GET', 'POST']).map((method) => ({ method, host, path, fields })))
  if (action.kind !== 'proxy' || !action.websocket) return plain
  const upgrade = [...fields, 'Connection', 'Upgrade', 'Upgrade', 'websocket']
  return [...plain, ...paths.map((path) => ({ method: 'GET', host, path, fields: upgrade }))]
}
