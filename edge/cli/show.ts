import { toFaultLine } from '../compile.ts'
import type { CompiledGateway, CompiledRoute, CompiledSite, Fault } from '../compile.ts'
import { describeAction } from '../explain.ts'
import type { ExplainedAction, Explanation } from '../explain.ts'
import { describeCors } from '../policies/cors.ts'
import type { TokenSource } from '../table.ts'
import { toColumns } from './paint.ts'
import type { Paint } from './paint.ts'

/** All faults, one a line, and their number. */
export function showFaults(faults: Fault[], paint: Paint): string {
  const lines = faults.map((fault) => `${paint.bad('✗')} ${toFaultLine(fault)}\n`).join('')
  return `${lines}${count(faults.length, 'fault')}\n`
}

export function showSummary({ sites, splits }: CompiledGateway, paint: Paint): string {
  const tables = new Set(sites.map((site) => site.table))
  const rows = sites.reduce((sum, site) => sum + site.routes.length, 0)
  return `${paint.good('✓')} ${count(tables.size, 'table')}, ${count(sites.length, 'site')}, ${count(rows, 'row')}${splits.length > 0 ? `, ${count(splits.length, 'split')}` : ''}: no faults\n`
}

/** Every site's rows in order of precedence. What holds for all rows of a site is said once, above them. */
export function showRoutes({ sites }: CompiledGateway, paint: Paint): string {
  return sites.map((site) => showSite(site, paint)).join('\n')
}

function showSite(site: CompiledSite, paint: Paint): string {
  const file = fileOf(site)
  const head = `${paint.bold(site.hosts.join(' '))}  ${site.table}  ${paint.dim(file)}\n`
  const rows = site.routes.map((route) => [
    paint.dim((route.source ?? '').replace(file, '')),
    paint.dim(route.methods?.filter((method) => method !== 'HEAD').join(' ') ?? 'any'),
    paint.accent(route.route.path),
    describeAction(route.action),
    [...describeFields(route), ...describeChecks(route)].join('; '),
  ])
  return `${head}  ${paint.dim(describeSite(site))}\n${toColumns(rows)}`
}

/** The file that the rows of a site stand in, without their lines. */
const fileOf = ({ routes }: CompiledSite): string => (routes[0]?.source ?? '').replace(/:\d+$/, '')

function describeSite({ site, errors, routes }: CompiledSite): string {
  const https = routes.flatMap(({ policies }) => policies).find(({ name }) => name === 'https')
  return [
    ...(https ? [`https: ${https.describe.replace(/^no redirect/, 'redirect')}`] : ['http and https']),
    ...(site.cors ? [describeCors(site.cors)] : []),
    ...(site.trustedEdges ? ['only through the edge'] : []),
    ...(site.default ? ['answers for unknown hosts'] : []),
    `errors as ${errors}`,
  ].join('; ')
}

const describeFields = ({ matchHeaders }: CompiledRoute): string[] =>
  matchHeaders.map(([name, value]) => `with ${name}${value === true ? '' : `: ${value}`}`)

/** The checks that tell this row from others of its site. */
function describeChecks({ route, policies }: CompiledRoute): string[] {
  const limits = policies.filter(({ name }) => name === 'limit').map(({ describe }) => `limit ${describe}`)
  const { auth } = route
  const sources = [auth?.from ?? 'bearer'].flat().map(describeSource)
  const where = sources.join() === 'bearer' ? '' : ` in ${sources.join(' or ')}`
  return [
    ...(route.https === false ? ['also over http'] : []),
    ...(route.cors === false ? ['CORS of the upstream'] : []),
    ...(route.cors ? [describeCors(route.cors)] : []),
    ...limits,
    ...(auth ? [`${auth.optional ? 'optional ' : ''}token of ${auth.jwt}${where}`] : []),
  ]
}

function describeSource(source: TokenSource): string {
  if (source === 'bearer') return source
  return 'cookie' in source ? `cookie ${source.cookie}` : `query ${source.query}`
}

export const toRoutesJson = ({ sites }: CompiledGateway): unknown =>
  sites.map((site) => ({
    table: site.table,
    hosts: site.hosts,
    routes: site.routes.map(({ route, source, policies, action }) => ({
      ...route,
      source,
      policies: policies.map(({ name, describe }) => ({ name, asks: describe })),
      does: describeAction(action),
    })),
  }))

/** A decision, from the request to what would be done, in the order in which it was made. */
export function showExplanation(explanation: Explanation, paint: Paint): string {
  const { request, site, row, passedOver, policies, action, requestHeaders, responseHeaders, limits } = explanation
  const { method, scheme, host, path, query, client } = request
  const isProxied = action.kind === 'proxy'
  return [
    `${paint.bold(`${method} ${scheme}://${host}${path}${query}`)} ${paint.dim(`from ${client}`)}\n\n`,
    section('site', site ? describeFoundSite(site, paint) : paint.bad('none has this host')),
    section('row', row ? `${paint.accent(row.id)}  ${paint.dim(row.source ?? '')}` : paint.bad('none')),
    passedOver.length > 0 ? `  ${paint.dim(row ? 'before it' : 'none matches')}\n` : '',
    showPassedOver(explanation, paint),
    policies.length > 0 ? section('policies', '') : '',
    policies.length > 0
      ? toColumns(
          policies.map((policy) => showPolicy(policy, paint)),
          '    ',
        )
      : '',
    section('action', showAction(action, paint)),
    action.kind === 'proxy' ? showUpstream(action, paint) : '',
    action.kind === 'proxy' && action.cache !== null ? section('cache', paint.dim(action.cache)) : '',
    isProxied
      ? section(
          'limits',
          Object.entries(limits)
            .map(([name, value]) => `${name} ${value}`)
            .join(', '),
        )
      : '',
    isProxied ? section('request', '') + showFields(requestHeaders.added, '+', paint) : '',
    isProxied ? showNames(requestHeaders.removed, paint) : '',
    section('answer', ''),
    showFields(responseHeaders.added, '+', paint),
    showFields(responseHeaders.unlessPresent, '?', paint),
    showNames(responseHeaders.removed, paint),
    `\n${paint.dim(`  + added   ${responseHeaders.unlessPresent.length > 0 ? '? added unless the answer has it   ' : ''}- removed`)}\n`,
  ].join('')
}

const section = (name: string, text: string): string => `${`  ${name.padEnd(10)}${text}`.trimEnd()}\n`

const describeFoundSite = ({ hosts, table, errors }: NonNullable<Explanation['site']>, paint: Paint): string =>
  `${hosts.join(' ')}  ${paint.dim(`table ${table}, errors as ${errors}`)}`

const shownOtherPaths = 6

/** Rows whose path matches are always shown; of the others the last, which came closest in the order. */
function showPassedOver({ passedOver, site }: Explanation, paint: Paint): string {
  const others = passedOver.filter(({ near }) => !near)
  const left = new Set(others.slice(0, -shownOtherPaths))
  const shown = passedOver.filter((one) => !left.has(one))
  const rows = shown.map(({ id, source, reason }) => [
    paint.dim(/:\d+$/.exec(source ?? '')?.[0] ?? ''),
    id.replace(`${site?.table} `, ''),
    reason,
  ])
  const more = left.size > 0 ? `    ${paint.dim(`and ${count(left.size, 'more row')} for other paths`)}\n` : ''
  return rows.length > 0 ? toColumns(rows, '    ') + more : ''
}

function showPolicy({ name, asks, outcome, reason }: Explanation['policies'][number], paint: Paint): string[] {
  const marks: Record<string, string> = {
    pass: paint.good('✓'),
    answer: paint.good('✓'),
    redirect: paint.accent('→'),
    refuse: paint.bad('✗'),
  }
  return [`${marks[outcome] ?? paint.dim('·')} ${name}`, asks, paint.dim(reason)]
}

/** Only what there is to choose: with one server, as long as nobody asks it whether it is well, nothing. */
function showUpstream(action: ExplainedAction & { kind: 'proxy' }, paint: Paint): string {
  const { servers, settings, asks, split } = action
  const sides = split ? showSplit(split, paint) : ''
  const checks = settings.some((setting) => setting.startsWith('checked'))
  if (servers.length === 1 && !checks) return sides
  const chosen = servers.length > 1 ? `${asks.server}  ${paint.dim(asks.reason)}` : ''
  return sides + section('asks', chosen || asks.server) + settings.map((one) => `    ${paint.dim(one)}\n`).join('')
}

function showSplit({ side, reason, sides, settings }: SplitShown, paint: Paint): string {
  const rows = sides.map(({ name, weight, servers }) => [
    name === side ? paint.bold(name) : name,
    String(weight),
    paint.dim(servers.join(', ')),
  ])
  const shown = settings.map((one) => `    ${paint.dim(one)}\n`).join('')
  return section('side', `${side}  ${paint.dim(reason)}`) + toColumns(rows, '    ') + shown
}

type SplitShown = NonNullable<(ExplainedAction & { kind: 'proxy' })['split']>

function showAction(action: ExplainedAction, paint: Paint): string {
  if (action.kind === 'proxy') {
    const what = `proxy ${action.upstream} ${action.target}`
    const how = `${action.websocket ? ' as a WebSocket' : ''}${action.compress ? `, ${action.compress}` : ''}`
    return `${paint.bold(what)}${how}  ${paint.dim(`at ${action.servers.join(', ')}`)}`
  }
  if (action.kind === 'files') {
    const spa = action.spa ? ', index.html for pages' : ''
    return `${paint.bold(`files ${action.path}`)}  ${paint.dim(`below ${action.root}${spa}`)}`
  }
  if (action.location) return paint.bold(`redirect ${action.status} ${action.location}`)
  if (action.error) return `${paint.bold(paint.bad(`refuse ${action.status} ${action.error}`))}  ${action.detail}`
  return `${paint.bold(`respond ${action.status}`)}  ${cut(action.body)}`
}

const showFields = (fields: [string, string][], mark: string, paint: Paint): string =>
  fields.map(([name, value]) => `    ${mark} ${name}: ${paint.dim(cut(value))}\n`).join('')

const hopByHop = 'connection keep-alive proxy-connection proxy-authenticate te trailer transfer-encoding upgrade'.split(
  ' ',
)

/** Names of fields; those that end at every hop are one. */
function showNames(names: string[], paint: Paint): string {
  const isCommon = hopByHop.every((name) => names.includes(name))
  const shown = isCommon ? ['hop-by-hop fields', ...names.filter((name) => !hopByHop.includes(name))] : names
  return shown.length > 0 ? `    - ${paint.dim(shown.join(', '))}\n` : ''
}

const cut = (text: string): string => (text.length > 90 ? `${text.slice(0, 88)} …` : text)

const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`
