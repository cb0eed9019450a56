import { toFaultLine } from '../compile.ts'
import type { CompiledGateway, CompiledSite, Fault } from '../compile.ts'
import { describeAction } from '../explain.ts'
import type { ExplainedAction, Explanation } from '../explain.ts'
import { toColumns } from './paint.ts'
import type { Paint } from './paint.ts'

/** All faults, one a line, and their number. */
export function showFaults(faults: Fault[], paint: Paint): string {
  const lines = faults.map((fault) => `${paint.bad('✗')} ${toFaultLine(fault)}\n`).join('')
  return `${lines}${faults.length} ${faults.length === 1 ? 'fault' : 'faults'}\n`
}

export function showSummary({ sites }: CompiledGateway, paint: Paint): string {
  const tables = new Set(sites.map((site) => site.table))
  const rows = sites.reduce((sum, site) => sum + site.routes.length, 0)
  return `${paint.good('✓')} ${count(tables.size, 'table')}, ${count(sites.length, 'site')}, ${count(rows, 'row')}: no faults\n`
}

/** Every site's rows in order of precedence. */
export function showRoutes({ sites }: CompiledGateway, paint: Paint): string {
  return sites.map((site) => `${paint.bold(site.hosts.join(' '))} ${paint.dim(site.table)}\n${showRows(site, paint)}`).join('\n')
}

const showRows = (site: CompiledSite, paint: Paint): string =>
  toColumns(
    site.routes.map((route) => [
      paint.dim(route.methods?.join(',') ?? '*'),
      paint.accent(route.route.path + route.matchHeaders.map(([name, value]) => ` [${name}${value === true ? '' : `: ${value}`}]`).join('')),
      describeAction(route.action),
      route.policies.filter(({ name }) => name !== 'body-size').map(({ name, describe }) => `${name}: ${describe}`).join('; '),
      paint.dim(route.source ?? ''),
    ]),
  )

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
  const none = paint.dim('none')
  return [
    `${paint.bold(`${method} ${scheme}://${host}${path}${query}`)} ${paint.dim(`from ${client}`)}\n`,
    `\n${label('site')}${site ? `${site.hosts.join(' ')} ${paint.dim(`${site.table}, errors as ${site.errors}`)}` : paint.bad('no site has this host')}\n`,
    `${label('row')}${row ? `${paint.accent(row.id)} ${paint.dim(row.source ?? '')}` : paint.bad('no row was matched')}\n`,
    passedOver.length > 0 ? `${paint.dim('  before it')}\n${toColumns(showPassedOver(passedOver, paint), '    ')}` : '',
    policies.length > 0 ? `${label('policies')}\n${toColumns(policies.map((policy) => showPolicy(policy, paint)), '    ')}` : '',
    `${label('action')}${showAction(action, paint)}\n`,
    action.kind === 'proxy' ? `${label('limits')}${Object.entries(limits).map(([name, value]) => `${name} ${value}`).join(', ')}\n` : '',
    action.kind === 'proxy' ? `${label('request')}${showFields(requestHeaders.added, paint, '+') || none}${showNames(requestHeaders.removed, paint)}\n` : '',
    `${label('answer')}${showFields(responseHeaders.added, paint, '+') || none}${showFields(responseHeaders.unlessPresent, paint, '?')}${showNames(responseHeaders.removed, paint)}\n`,
    responseHeaders.unlessPresent.length > 0 ? paint.dim(`\n  + added   ? added unless the upstream sends it   - removed\n`) : '',
  ].join('')
}

const label = (text: string): string => `  ${text.padEnd(10)}`

const shownPassedOver = 12

function showPassedOver(passedOver: Explanation['passedOver'], paint: Paint): string[][] {
  const shown = passedOver.slice(-shownPassedOver).map(({ id, source, reason }) => [paint.dim(id), reason, paint.dim(source ?? '')])
  const left = passedOver.length - shown.length
  return left > 0 ? [[paint.dim(`… ${left} more`), '', ''], ...shown] : shown
}

function showPolicy({ name, asks, outcome, reason }: Explanation['policies'][number], paint: Paint): string[] {
  const mark = outcome === 'pass' ? paint.good('✓') : outcome === 'redirect' ? paint.accent('→') : paint.bad('✗')
  return [`${mark} ${name}`, asks, paint.dim(reason)]
}

function showAction(action: ExplainedAction, paint: Paint): string {
  if (action.kind === 'proxy')
    return `${paint.bold(`proxy ${action.upstream} ${action.target}`)}${action.websocket ? ' as a WebSocket' : ''} ${paint.dim(`at ${action.servers.join(', ')}`)}`
  if (action.kind === 'files') return `${paint.bold(`files ${action.path}`)} ${paint.dim(`below ${action.root}${action.spa ? ', index.html for navigations' : ''}`)}`
  if (action.location) return paint.bold(`redirect ${action.status} ${action.location}`)
  return action.error ? `${paint.bold(paint.bad(`refuse ${action.status} ${action.error}`))} ${action.detail}` : `${paint.bold(`respond ${action.status}`)} ${action.body.slice(0, 60)}`
}

const showFields = (fields: [string, string][], paint: Paint, mark: string): string =>
  fields.map(([name, value]) => `\n    ${mark} ${name}: ${paint.dim(value)}`).join('')

const showNames = (names: string[], paint: Paint): string => (names.length > 0 ? `\n    - ${paint.dim(names.join(', '))}` : '')

const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`
