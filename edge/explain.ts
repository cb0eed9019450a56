import { isChallenge } from './acme-challenge.ts'
import type {
  CompiledAction,
  CompiledGateway,
  CompiledHealth,
  CompiledRoute,
  CompiledSplit,
  CompiledUpstream,
} from './compile.ts'
import type { CachePlan } from './cache/cache-plan.ts'
import { errorFacts } from './error.ts'
import type { Refusal } from './error.ts'
import type { RawRequest } from './exchange.ts'
import { decide, decideFurther } from './gateway.ts'
import type { Trace } from './gateway.ts'
import { limits } from './limits.ts'
import { isSecretName } from './log.ts'
import { matchesPattern } from './path.ts'
import type { Plan, ProxyPlan } from './plan.ts'
import type { Facts, LimitRule, Limiter } from './runtime.ts'
import { describeBalance, readCookie, toBalanceKey } from './upstreams/balance.ts'
import { createGroup } from './upstreams/group.ts'
import { toCoding } from './actions/compress.ts'
import { describeWeights, tableWeights } from './upstreams/split.ts'

/** What the gateway would do with a request and why: data, so that people and machines read the same. */
export interface Explanation {
  request: { id: string; method: string; scheme: string; host: string; path: string; query: string; client: string }
  site: { table: string; hosts: string[]; errors: string } | null
  row: { id: string; source: string | undefined } | null
  /** More specific rows, in order of precedence, and why each did not match; `near`: its path does. */
  passedOver: { id: string; source: string | undefined; reason: string; near: boolean }[]
  policies: { name: string; asks: string; outcome: string; reason: string }[]
  action: ExplainedAction
  requestHeaders: { added: [string, string][]; removed: string[] }
  /** `unlessPresent`: only when the upstream does not send them. */
  responseHeaders: { added: [string, string][]; unlessPresent: [string, string][]; removed: string[] }
  limits: Record<string, number>
}

export type ExplainedAction =
  | {
      kind: 'proxy'
      upstream: string
      servers: string[]
      balance: string
      /** What of the upstream is told besides: weights and backups, checks, bounds. */
      settings: string[]
      /** Of several sides the one that this request goes to, and all of them with what the table gives them. */
      split: {
        name: string
        side: string
        reason: string
        sides: { name: string; weight: number; servers: string[] }[]
        settings: string[]
      } | null
      /** The server that a gateway which has just started would ask. */
      asks: { server: string; reason: string }
      target: string
      /** How texts that the upstream sends plain reach this client; null: as they are. */
      compress: string | null
      websocket: boolean
      /** What the row's cache makes of the request; null: it has none. */
      cache: string | null
    }
  | { kind: 'files'; root: string; path: string; spa: boolean }
  | {
      kind: 'answer'
      status: number
      location: string | null
      error: string | null
      detail: string | null
      body: string
    }

/** A request that somebody asks about. */
export interface Question {
  method: string
  /** With http or https; ws and wss ask for a WebSocket. */
  url: string
  headers: [string, string][]
  /** The client's address. */
  from: string
}

/** As it would come in over HTTP/1.1. */
export function toRawRequest({ method, url, headers, from }: Question): RawRequest {
  const { host, target, secure } = readUrl(url)
  const hasHost = headers.some(([name]) => name.toLowerCase() === 'host')
  const upgrade = /^ws/i.test(url) ? ['Connection', 'Upgrade', 'Upgrade', 'websocket'] : []
  const fields = [...(hasHost ? [] : ['Host', host]), ...upgrade, ...headers.flat()]
  return { method, target, version: '1.1', headers: fields, peer: from, secure }
}

/** The URL's parts as a client would send them: not normalised, so that explain sees what serving sees. */
function readUrl(url: string): { host: string; target: string; secure: boolean } {
  const [, scheme = '', host = '', rest = ''] = /^(\w+):\/\/([^/?#]*)([^#]*)/.exec(url) ?? []
  return { host, target: rest.startsWith('/') ? rest : `/${rest}`, secure: /^(https|wss)$/i.test(scheme) }
}

/** Decides as serving does, without carrying anything out and without counting. */
export async function explain(
  compiled: CompiledGateway,
  raw: RawRequest,
  facts: Facts,
  { pastTokens = false }: ExplainOptions = {},
): Promise<Explanation> {
  const trace: Trace = { candidates: [], verdicts: [] }
  const uncountedFacts = { ...facts, limiter: uncounted(facts) }
  const decided = await decide(compiled, raw, uncountedFacts, trace)
  const plan = pastTokens ? await decidePast(decided, uncountedFacts, trace) : decided
  const { exchange } = plan
  const { site, route } = exchange
  // A request that cannot be read is refused before any row is looked at.
  const [path = '', query = ''] =
    exchange.path === '' ? raw.target.split(/(?=\?)(.*)/s) : [exchange.path, exchange.query]
  const wasRouted =
    site !== undefined && !(site.acme && isChallenge(exchange)) && (route !== undefined || isUnmatched(plan))
  return {
    request: {
      id: exchange.requestId,
      method: exchange.method,
      scheme: exchange.scheme,
      host: exchange.host,
      path,
      query,
      client: exchange.client.text,
    },
    site: site ? { table: site.table, hosts: site.hosts, errors: route?.errors ?? site.errors } : null,
    row: route ? { id: route.id, source: route.source } : null,
    passedOver: wasRouted ? findPassedOver(site.routes, route, plan, trace) : [],
    policies: (route?.policies ?? []).map((policy, index) => {
      const verdict = trace.verdicts[index]?.verdict ?? notAsked
      return { name: policy.name, asks: policy.describe, outcome: verdict.outcome, reason: verdict.reason }
    }),
    action: toExplainedAction(plan),
    requestHeaders: toRequestEdits(plan, raw),
    responseHeaders: toAnswerEdits(plan),
    limits: toLimits(plan, route),
  }
}

export interface ExplainOptions {
  /** Looks behind policies that ask for a token or a signature, as if there were a good one. Default false. */
  pastTokens?: boolean
}

async function decidePast(plan: Plan, facts: Facts, trace: Trace): Promise<Plan> {
  return isUnproven(plan, trace) ? decidePast(await decideFurther(plan, facts, trace), facts, trace) : plan
}

/** Refused for want of a token or a signature. */
function isUnproven(plan: Plan, { verdicts }: Trace): boolean {
  const { policy, verdict } = verdicts.at(-1) ?? {}
  if (plan.kind !== 'answer' || verdict?.outcome !== 'refuse' || verdict.refusal !== plan.refusal) return false
  return policy?.name === 'auth' || policy?.name === 'trusted-edges'
}

const notAsked = { outcome: 'not asked', reason: 'an earlier policy has answered' }

const isUnmatched = (plan: Plan): boolean =>
  plan.kind === 'answer' && (plan.refusal?.code === 'not_found' || plan.refusal?.code === 'method_not_allowed')

/** A limiter that lets everybody through and counts nobody. */
const uncounted = ({ now }: Facts): Limiter => ({
  take: (rule: LimitRule) => ({
    outcome: 'allowed',
    remaining: rule.burst ?? rule.requests - 1,
    resetAt: now() + rule.windowMs,
  }),
})

/** The rows before the chosen one; with none chosen, all. */
function findPassedOver(
  rows: CompiledRoute[],
  chosen: CompiledRoute | undefined,
  plan: Plan,
  trace: Trace,
): Explanation['passedOver'] {
  const before = chosen ? rows.slice(0, rows.indexOf(chosen)) : rows
  return before.map((route) => ({
    id: route.id,
    source: route.source,
    reason: whyNot(route, plan, trace),
    near: matchesPattern(route.pattern, plan.exchange.path),
  }))
}

function whyNot(route: CompiledRoute, { exchange }: Plan, trace: Trace): string {
  const seen = trace.candidates.find((candidate) => candidate.route === route)
  if (seen) return seen.reason
  if (!matchesPattern(route.pattern, exchange.path))
    return route.pattern.kind === 'exact'
      ? `the path is not '${route.pattern.path}'`
      : `the path is not below '${route.pattern.path}'`
  return `the method is not ${(route.methods ?? []).join(' or ')}`
}

function toExplainedAction(plan: Plan): ExplainedAction {
  if (plan.kind === 'proxy')
    return {
      kind: 'proxy',
      upstream: plan.upstream.name,
      servers: plan.upstream.servers.map((server) => server.origin),
      balance: describeBalance(plan.upstream.balance),
      settings: describeSettings(plan.upstream),
      split: toExplainedSplit(plan),
      asks: toAsked(plan),
      target: plan.target,
      compress: plan.compress ? describeCoding(toCoding(plan.exchange)) : null,
      websocket: plan.websocket,
      cache: plan.cache ? describeCache(plan.cache) : null,
    }
  if (plan.kind === 'files') return { kind: 'files', root: plan.files.root, path: plan.path, spa: plan.files.spa }
  return {
    kind: 'answer',
    status: plan.status,
    location: pairs(plan.headers).find(([name]) => name === 'Location')?.[1] ?? null,
    error: plan.refusal?.code ?? null,
    detail: plan.refusal ? toDetail(plan.refusal) : null,
    body: plan.body,
  }
}

function toExplainedSplit({ side, exchange }: ProxyPlan): (ExplainedAction & { kind: 'proxy' })['split'] {
  if (!side) return null
  const { split, index, forced } = side
  const { sticky, force } = split
  const isKept = sticky !== undefined && readCookie(exchange, sticky.cookie) !== undefined
  return {
    name: split.name,
    side: split.sides[index]?.name ?? '',
    reason: forced ? `the field ${force} names it` : isKept ? `by the cookie ${sticky.cookie}` : 'drawn by weight',
    sides: split.sides.map(({ name, weight, upstream }) => ({
      name,
      weight,
      servers: upstream.servers.map(({ origin }) => origin),
    })),
    settings: describeSplit(split),
  }
}

function describeSplit({ sticky, force, rollout, sides }: CompiledSplit): string[] {
  return [
    ...(sticky ? [`kept by the cookie ${sticky.cookie} for ${sticky.maxAgeSeconds} s`] : []),
    ...(force === undefined ? [] : [`the field ${force} names a side`]),
    ...(rollout
      ? [
          `rolls out ${sides[rollout.to]?.name}: ${rollout.steps.join(', ')} % after ${rollout.everyMs} ms and ${rollout.minRequests} requests each, ` +
            `at most ${rollout.failurePercentMax} % more failures and ${rollout.p99TimesMax} times the p99`,
        ]
      : []),
  ]
}

function describeCache(plan: CachePlan): string {
  if (plan.use === 'bypass') return `passed by: ${plan.reason}`
  if (plan.use === 'invalidate') return `what is kept of ${plan.url} is forgotten when it succeeds`
  return `${plan.url}${plan.isPersonal ? ', only what is said to be public: it carries Authorization, a cookie or a token' : ''}`
}

/** Decided as serving does, as long as every server is up and none is busy. */
function toAsked({ upstream, exchange, retry }: ProxyPlan): { server: string; reason: string } {
  const group = createGroup(upstream, { now: () => 0 })
  const server = group.serverAt(group.choose(exchange, retry)).origin
  const { balance, servers } = upstream
  if (servers.length === 1) return { server, reason: 'it is the only one' }
  if (typeof balance === 'string') return { server, reason: `${balance}: the first when all are up` }
  return { server, reason: `${describeBalance(balance)}: the same for '${toBalanceKey(balance, exchange)}'` }
}

function describeSettings({ servers, health, inFlightMax, slowStartMs }: CompiledUpstream): string[] {
  return [
    ...servers
      .filter(({ weight, backup }) => weight !== 1 || backup)
      .map(({ origin, weight, backup }) => `${origin} ${backup ? 'is a backup, ' : ''}weighs ${weight}`),
    ...(health ? [describeHealth(health)] : []),
    ...(servers.length > 1 ? [`slowStartMs ${slowStartMs}`] : []),
    `inFlightMax ${inFlightMax}`,
  ]
}

const describeHealth = ({ path, everyMs, timeoutMs, healthyAfter, unhealthyAfter, status }: CompiledHealth): string =>
  `checked at ${path} every ${everyMs} ms for ${status ?? '200 to 399'} within ${timeoutMs} ms; aside after ${unhealthyAfter}, back after ${healthyAfter}`

function toDetail({ code, detail }: Refusal): string {
  const { title } = errorFacts(code)
  return title === detail ? title : `${title}: ${detail}`
}

function toRequestEdits(plan: Plan, raw: RawRequest): Explanation['requestHeaders'] {
  if (plan.kind !== 'proxy') return { added: [], removed: [] }
  const received = pairs(raw.headers)
  const sent = pairs(plan.headers)
  return {
    added: sent
      .filter((field) => !has(received, field))
      .map(([name, value]): [string, string] => [name, isSecretName(name) ? '[redacted]' : value]),
    removed: received
      .filter((field) => !has(sent, field) && field[0].toLowerCase() !== 'content-length')
      .map(([name]) => name),
  }
}

const has = (fields: [string, string][], [name, value]: [string, string]): boolean =>
  fields.some(([other, otherValue]) => other.toLowerCase() === name.toLowerCase() && otherValue === value)

function toAnswerEdits(plan: Plan): Explanation['responseHeaders'] {
  if (plan.kind === 'answer') return { added: pairs(plan.headers), unlessPresent: [], removed: [] }
  const { response, exchange } = plan
  const cache: [string, string][] =
    response.cacheControl === undefined ? [] : [['Cache-Control', response.cacheControl]]
  return {
    added: [...cache, ...pairs(response.set), ...pairs(exchange.answerHeaders), ['X-Request-Id', exchange.requestId]],
    unlessPresent: response.defaults.map(({ field }) => field),
    removed: plan.kind === 'proxy' ? [...response.drops] : [],
  }
}

function toLimits(plan: Plan, route: CompiledRoute | undefined): Record<string, number> {
  if (plan.kind !== 'proxy' || !route) return {}
  const { idleMs, readTimeoutMs, timeoutMs, bodyBytesMax, upstream } = plan
  return {
    connectTimeoutMs: upstream.connectTimeoutMs,
    readTimeoutMs,
    ...(timeoutMs !== undefined && { timeoutMs }),
    bodyBytesMax,
    ...(plan.retry.attempts !== limits.retryAttempts && { attempts: plan.retry.attempts }),
    ...(plan.websocket && { idleMs }),
  }
}

function pairs(flat: string[]): [string, string][] {
  return Array.from({ length: flat.length / 2 }, (_, index) => [flat[index * 2] ?? '', flat[index * 2 + 1] ?? ''])
}

const describeCoding = (coding: string | undefined): string =>
  coding === undefined || coding === 'identity' ? 'the client takes no compressed text' : `texts by ${coding}`

/** A row's action in a few words: 'proxy core (strip /api)'. */
export function describeAction(action: CompiledAction): string {
  if (action.kind === 'proxy') {
    const edits = [
      action.strip && `strip ${action.strip}`,
      action.path && `as ${action.path}`,
      action.websocket && 'WebSocket',
      action.compress && 'compress',
      typeof action.cache === 'object' && 'shared cache',
    ]
    const shown = edits.filter(Boolean).join(', ')
    const { split, upstream } = action
    const name = split ? `${split.name} to ${describeWeights(split.sides, tableWeights(split))}` : upstream.name
    return `proxy ${name}${shown ? ` (${shown})` : ''}`
  }
  if (action.kind === 'files') return `files ${action.files.root}${action.files.spa ? ' (spa)' : ''}`
  return action.kind === 'redirect' ? `redirect ${action.status} ${action.to}` : `respond ${action.status}`
}
