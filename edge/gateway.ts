import { isChallenge, readChallengeToken } from './acme-challenge.ts'
import { toAnswerHeaders, toResponseEdits, toUpstreamHeaders } from './actions/headers.ts'
import { toLocation } from './actions/redirect.ts'
import { toCachePlan } from './cache/cache-plan.ts'
import type { CompiledGateway, CompiledRoute, CompiledSite } from './compile.ts'
import { errorFacts, toErrorBody } from './error.ts'
import type { Refusal } from './error.ts'
import { fieldValue, identify } from './exchange.ts'
import type { Exchange, RawRequest } from './exchange.ts'
import { matchesPattern, stripPrefix } from './path.ts'
import { readPreflight, toCorsFields } from './policies/cors.ts'
import type { AnswerPlan, Plan } from './plan.ts'
import type { BoundPolicy, Verdict } from './policies/index.ts'
import type { Facts, Runtime } from './runtime.ts'
import { chooseSide, tableWeights } from './upstreams/split.ts'

/** What a decision looked at on its way; only `explain` asks for it. */
export interface Trace {
  /** Rows whose path matches, in order of precedence, and why each but the last was passed over. */
  candidates: { route: CompiledRoute; reason: string }[]
  verdicts: { policy: BoundPolicy; verdict: Verdict }[]
}

/** The life of a request: identify → site → route → policies → action. Runtimes finish it (`Runtime`). */
export interface Gateway<Io, Reply> {
  handle(raw: RawRequest, io: Io): Reply | Promise<Reply>
}

export function createGateway<Io, Reply>(compiled: CompiledGateway, runtime: Runtime<Io, Reply>): Gateway<Io, Reply> {
  function handle(raw: RawRequest, io: Io): Reply | Promise<Reply> {
    const plan = decide(compiled, raw, runtime)
    return plan instanceof Promise ? plan.then((settled) => execute(settled, io)) : execute(plan, io)
  }

  function execute(plan: Plan, io: Io): Reply {
    if (plan.kind === 'answer') return runtime.answer(plan, io)
    return plan.kind === 'proxy' ? runtime.forward(plan, io) : runtime.readAsset(plan, io)
  }

  return { handle }
}

/** Decides what will be done with a request. At once, unless a policy has to ask somebody; never rejects. */
export function decide(compiled: CompiledGateway, raw: RawRequest, facts: Facts, trace?: Trace): Plan | Promise<Plan> {
  const { exchange, refusal } = identify(raw, facts)
  exchange.site = findSite(compiled, exchange.host)
  if (refusal) return refuseUnmatched(exchange, refusal)
  if (!exchange.site)
    return refuse(exchange, { code: 'unknown_host', detail: `no site answers for '${exchange.host}'` })
  if (exchange.site.acme && facts.challenge && isChallenge(exchange)) return answerChallenge(exchange, facts.challenge)
  exchange.route = findRoute(exchange.site, exchange, trace)
  if (!exchange.route) return refuseUnmatched(exchange, toUnmatched(exchange.site, exchange))
  return runPolicies(exchange, exchange.route, facts, trace)
}

/** Before any row: whatever those say, nothing below this path reaches an upstream, and nothing else is left out. */
function answerChallenge(exchange: Exchange, find: NonNullable<Facts['challenge']>): Plan | Promise<Plan> {
  if (exchange.method !== 'GET' && exchange.method !== 'HEAD')
    return refuse(exchange, {
      code: 'method_not_allowed',
      detail: 'challenges can only be read',
      headers: ['Allow', 'GET, HEAD'],
    })
  const token = readChallengeToken(exchange)
  const found = token === undefined ? undefined : find(token)
  return found instanceof Promise ? found.then((text) => tell(exchange, text)) : tell(exchange, found)
}

const tell = (exchange: Exchange, text: string | undefined): Plan =>
  text === undefined
    ? refuse(exchange, { code: 'not_found', detail: 'no such challenge is open' })
    : answer(exchange, 200, ['Content-Type', 'application/octet-stream', 'Cache-Control', 'no-store'], text)

/** Exact hosts before wildcards, longer wildcards before shorter ones. */
export function findSite({ hosts, wildcards, fallback }: CompiledGateway, host: string): CompiledSite | undefined {
  const exact = hosts.get(host)
  if (exact || wildcards.size === 0) return exact ?? fallback
  for (let dot = host.indexOf('.'); dot !== -1; dot = host.indexOf('.', dot + 1)) {
    const site = wildcards.get(host.slice(dot))
    if (site) return site
  }
  return fallback
}

/** The first row that the site's router finds and whose fields the request carries. */
function findRoute(site: CompiledSite, exchange: Exchange, trace?: Trace): CompiledRoute | undefined {
  const asked =
    exchange.method === 'OPTIONS' && site.hasPreflights ? findPreflightRoute(site, exchange, trace) : undefined
  if (asked) return asked
  for (const [route] of site.router.match(exchange.method, exchange.path)[0]) {
    const missing = route.matchHeaders.find(([name, wanted]) => !carries(exchange, name, wanted))
    trace?.candidates.push({
      route,
      reason: missing ? `asks for the field ${missing[0]}${missing[1] === true ? '' : `: ${missing[1]}`}` : 'matches',
    })
    if (!missing) return route
  }
  return undefined
}

/** Whoever asks first whether it may is answered by the row that it asks for; it cannot carry that row's fields yet. */
function findPreflightRoute(site: CompiledSite, exchange: Exchange, trace?: Trace): CompiledRoute | undefined {
  const asked = readPreflight(exchange)
  if (!asked) return undefined
  const rows = site.router.match(asked.method, exchange.path)[0].map(([row]) => row)
  const route = rows.find(({ matchHeaders }) => matchHeaders.every(([name]) => asked.headers.includes(name)))
  if (!route?.cors) return undefined
  trace?.candidates.push({ route, reason: `is asked for with ${asked.method}` })
  return route
}

function carries({ headers }: Exchange, name: string, wanted: string | true): boolean {
  const value = fieldValue(headers, name)
  return wanted === true ? value !== undefined : value === wanted
}

/** 405 when only the method kept every row from matching (RFC 9110 §15.5.6), else 404. */
function toUnmatched(site: CompiledSite, { path, method }: Exchange): Refusal {
  const methods = site.routes.flatMap((route) =>
    route.methods && !route.methods.includes(method) && matchesPattern(route.pattern, path) ? route.methods : [],
  )
  if (methods.length === 0) return { code: 'not_found', detail: 'nothing answers here' }
  const allowed = [...new Set(methods)].join(', ')
  return {
    code: 'method_not_allowed',
    detail: `${method} is not allowed here, but ${allowed}`,
    headers: ['Allow', allowed],
  }
}

/** Runs the row's policies in their order, from `index` on; waits only for those that have to ask somebody. */
function runPolicies(
  exchange: Exchange,
  route: CompiledRoute,
  facts: Facts,
  trace?: Trace,
  index = 0,
): Plan | Promise<Plan> {
  for (let at = index; at < route.policies.length; at++) {
    const policy = route.policies[at] as BoundPolicy
    const verdict = policy.check(exchange, facts)
    if (verdict instanceof Promise)
      return verdict.then((settled) => {
        trace?.verdicts.push({ policy, verdict: settled })
        return settled.outcome === 'pass'
          ? runPolicies(exchange, route, facts, trace, at + 1)
          : toVerdictPlan(exchange, settled)
      })
    trace?.verdicts.push({ policy, verdict })
    if (verdict.outcome !== 'pass') return toVerdictPlan(exchange, verdict)
  }
  return act(exchange, route, facts)
}

/** Goes on as if the policy that has just refused had let the request pass. */
export function decideFurther({ exchange }: Plan, facts: Facts, trace: Trace): Plan | Promise<Plan> {
  return runPolicies(exchange, exchange.route as CompiledRoute, facts, trace, trace.verdicts.length)
}

function toVerdictPlan(exchange: Exchange, verdict: Exclude<Verdict, { outcome: 'pass' }>): Plan {
  if (verdict.outcome === 'refuse') return refuse(exchange, verdict.refusal)
  if (verdict.outcome === 'redirect') return redirect(exchange, verdict.status, verdict.location)
  return answer(exchange, verdict.status, verdict.headers, '')
}

/** The row's action as a plan. */
function act(exchange: Exchange, route: CompiledRoute, facts: Facts): Plan {
  const { action, response } = route
  if (action.kind === 'proxy') {
    const path = action.path ?? (action.strip === undefined ? exchange.path : stripPrefix(exchange.path, action.strip))
    const side =
      action.split && chooseSide(action.split, exchange, facts.weightsOf?.(action.split) ?? tableWeights(action.split))
    return {
      kind: 'proxy',
      exchange,
      upstream: side?.split.sides[side.index]?.upstream ?? action.upstream,
      side,
      target: path + exchange.query,
      headers: toUpstreamHeaders(exchange, action.edits),
      readTimeoutMs: action.readTimeoutMs,
      bodyBytesMax: route.bodyBytesMax,
      websocket: exchange.websocket && action.websocket === true,
      idleMs: action.idleMs,
      timeoutMs: earlier(action.timeoutMs, exchange.timeoutMs),
      retry: action.retry,
      compress: action.compress,
      cache: action.cache && toCachePlan(exchange, action.cache, side?.split.sides[side.index]?.name),
      response,
    }
  }
  if (action.kind === 'files') {
    if (exchange.method !== 'GET' && exchange.method !== 'HEAD')
      return refuse(exchange, {
        code: 'method_not_allowed',
        detail: 'files can only be read',
        headers: ['Allow', 'GET, HEAD'],
      })
    const path = route.pattern.kind === 'prefix' ? stripPrefix(exchange.path, route.pattern.path || '/') : exchange.path
    return { kind: 'files', exchange, files: action.files, path, response }
  }
  if (action.kind === 'redirect') return redirect(exchange, action.status, toLocation(action.to, exchange))
  return answer(exchange, action.status, action.body === '' ? [] : ['Content-Type', action.type], action.body)
}

const earlier = (own: number | undefined, asked: number | undefined): number | undefined =>
  own === undefined || asked === undefined ? (own ?? asked) : Math.min(own, asked)

/** Of no row; pages that may read the site's answers may read this one too. */
function refuseUnmatched(exchange: Exchange, refusal: Refusal): AnswerPlan {
  const cors = exchange.site?.cors
  if (cors) exchange.answerHeaders.push(...toCorsFields(cors, exchange))
  return refuse(exchange, refusal)
}

/** The answer to a request that the gateway will not serve, in the shape that the site's clients parse. */
export function refuse(exchange: Exchange, refusal: Refusal): AnswerPlan {
  const { route, site, requestId } = exchange
  const { type, body } = toErrorBody(route?.errors ?? site?.errors ?? 'problem', refusal, {
    requestId,
    route: route?.id,
  })
  const own = ['Content-Type', type, 'Cache-Control', 'no-store', ...(refusal.headers ?? [])]
  return { ...answer(exchange, errorFacts(refusal.code).status, own, body), refusal }
}

function redirect(exchange: Exchange, status: number, location: string): AnswerPlan {
  return answer(exchange, status, ['Location', location], '')
}

function answer(exchange: Exchange, status: number, own: string[], body: string): AnswerPlan {
  const edits = exchange.route?.response ?? exchange.site?.response ?? plainEdits
  const cached = edits.cacheControl !== undefined && status < 300 ? [...own, 'Cache-Control', edits.cacheControl] : own
  return {
    kind: 'answer',
    exchange,
    status,
    headers: toAnswerHeaders(exchange, edits, cached),
    body,
    refusal: undefined,
  }
}

const plainEdits = toResponseEdits({ hosts: [], routes: [] }, undefined)
