import { addDuration, createDurations } from './durations.ts'
import { errorFacts } from './error.ts'
import type { ErrorCode } from './error.ts'
import type { Plan } from './plan.ts'
import type { Outcome } from './runtime.ts'

/**
 * Counts what the gateway does, in Prometheus' text format (version 0.0.4). Labels come from tables and from fixed
 * lists only, so that no client can make them grow. A counter costs one look-up in a map.
 */
export interface Metrics {
  /** A request came in. */
  begin(): void
  /** A request ended. */
  finish(plan: Plan, outcome: Outcome, durationMs: number): void
  /** Bytes were refused that were no request. */
  refuse(code: string): void
  /** What was counted of each row, and of requests that no row matched, as it is now. */
  counts(): RouteCounts[]
  /** Requests being served. */
  open(): number
  /** The text, with `gauges` (name, help, value) that are read at this moment. */
  toText(gauges: Gauge[]): string
}

/** All since the start. */
export interface RouteCounts {
  table: string
  /** The site's first host; empty when no site has the host that was asked for. */
  site: string
  /** The row's id; empty when none matched. */
  route: string
  requests: number
  /** Answered with 5xx, or broken off on our side or the upstream's. */
  errors: number
  /** Answered with 4xx. */
  clientErrors: number
  /** `durations.ts`. Counting goes on in it. */
  durations: Uint32Array
  limits: Record<string, number>
  auth: Record<string, number>
  /** What its cache did; empty: it has none. */
  cache: Record<string, number>
}

export interface Gauge {
  name: string
  help: string
  value: number | Sample[]
  /** Default 'gauge'. */
  type?: 'counter'
}

/** One of several values of a name. */
export interface Sample {
  labels: Record<string, string>
  value: number
}

/** Seconds. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60]

interface Series {
  own: { table: string; site: string; route: string }
  statuses: Map<number, number>
  counts: Float64Array
  durations: Uint32Array
  /** Answers with a good status that did not end whole, and not because the client left. */
  broken: number
  sumMs: number
  total: number
  /** How the row's limits, its auth and its cache judged. */
  limits: Map<string, number>
  auth: Map<string, number>
  cache: Map<string, number>
}

export function createMetrics(): Metrics {
  const series = new Map<string, Series>()
  /** Rows of one name share their series; the row itself finds it without a look at names. */
  const found = new WeakMap<object, Series>()
  const upstreamErrors = new Map<string, number>()
  const refusals = new Map<string, number>()
  const cuts = new Map<string, number>()
  let open = 0

  function finish(plan: Plan, outcome: Outcome, durationMs: number): void {
    const { route, site } = plan.exchange
    open--
    const one = found.get(route ?? site ?? nowhere) ?? seriesOf(plan)
    observe(one, outcome.status, durationMs)
    if (outcome.end !== 'done' && outcome.end !== 'client_gone' && outcome.status < 500) one.broken++
    const refusal = outcome.refusal ?? (plan.kind === 'answer' ? plan.refusal : undefined)
    if (route?.route.limit) count(one.limits, toLimitVerdict(plan, refusal?.code))
    if (route?.route.auth) count(one.auth, toAuthVerdict(plan, refusal?.code))
    count(one.cache, outcome.cache)
    if (refusal && errorFacts(refusal.code).source === 'upstream')
      count(upstreamErrors, labels({ upstream: plan.kind === 'proxy' ? plan.upstream.id : '', code: refusal.code }))
    else if (refusal) count(refusals, labels({ table: site?.table ?? '', code: refusal.code }))
    if (outcome.end !== 'done') count(cuts, labels({ table: site?.table ?? '', end: outcome.end }))
  }

  function seriesOf({ exchange: { route, site } }: Plan): Series {
    const own = { table: site?.table ?? '', site: site?.hosts[0] ?? '', route: route?.id ?? '' }
    const key = labels(own)
    const one = series.get(key) ?? createSeries(own)
    series.set(key, one)
    found.set(route ?? site ?? nowhere, one)
    return one
  }

  function toText(gauges: Gauge[]): string {
    const all = [...series.values()]
    return [
      family(
        'daemun_requests_total',
        'counter',
        'Requests by table, site, route and status; status 0: the client left first.',
        all.flatMap(toStatusLines),
      ),
      family(
        'daemun_request_duration_seconds',
        'histogram',
        'From the request head to the end of the answer.',
        all.flatMap(toHistogramLines),
      ),
      family(
        'daemun_refusals_total',
        'counter',
        'Requests that the gateway refused, by error code.',
        toLines('daemun_refusals_total', refusals),
      ),
      family(
        'daemun_limit_verdicts_total',
        'counter',
        'What limits said: allowed, refused, down.',
        all.flatMap((one) => toVerdictLines('daemun_limit_verdicts_total', one, one.limits)),
      ),
      family(
        'daemun_auth_verdicts_total',
        'counter',
        'What was said of tokens: verified, anonymous, refused, forbidden, unavailable.',
        all.flatMap((one) => toVerdictLines('daemun_auth_verdicts_total', one, one.auth)),
      ),
      family(
        'daemun_cache_verdicts_total',
        'counter',
        'What caches did: hit, stale, revalidated, collapsed, miss, bypass.',
        all.flatMap((one) => toVerdictLines('daemun_cache_verdicts_total', one, one.cache)),
      ),
      family(
        'daemun_upstream_errors_total',
        'counter',
        'Requests that an upstream failed, by error code.',
        toLines('daemun_upstream_errors_total', upstreamErrors),
      ),
      family(
        'daemun_cut_answers_total',
        'counter',
        'Answers that did not end whole.',
        toLines('daemun_cut_answers_total', cuts),
      ),
      toGaugesText([openGauge(open), ...gauges]),
    ].join('')
  }

  return {
    begin: () => {
      open++
    },
    finish,
    counts: () => [...series.values()].map(toCounts),
    open: () => open,
    refuse: (code) => count(refusals, labels({ table: '', code })),
    toText,
  }
}

export const toGaugesText = (gauges: Gauge[]): string =>
  gauges
    .map(({ name, help, value, type = 'gauge' }) =>
      family(
        name,
        type,
        help,
        typeof value === 'number'
          ? [`${name} ${value}`]
          : value.map((sample) => `${name}${labels(sample.labels)} ${sample.value}`),
      ),
    )
    .join('')

/** Stands for the row of a request that no site answers. */
const nowhere = {}

const openGauge = (value: number): Gauge => ({ name: 'daemun_open_requests', help: 'Requests being served.', value })

const createSeries = (own: Series['own']): Series => ({
  own,
  statuses: new Map(),
  counts: new Float64Array(buckets.length),
  durations: createDurations(),
  broken: 0,
  sumMs: 0,
  total: 0,
  limits: new Map(),
  auth: new Map(),
  cache: new Map(),
})

function toCounts({ own, total, statuses, broken, durations, limits, auth, cache }: Series): RouteCounts {
  let [errors, clientErrors] = [broken, 0]
  for (const [status, number] of statuses)
    if (status >= 500) errors += number
    else if (status >= 400) clientErrors += number
  return {
    ...own,
    requests: total,
    errors,
    clientErrors,
    durations,
    limits: Object.fromEntries(limits),
    auth: Object.fromEntries(auth),
    cache: Object.fromEntries(cache),
  }
}

function observe(one: Series, status: number, durationMs: number): void {
  one.statuses.set(status, (one.statuses.get(status) ?? 0) + 1)
  one.sumMs += durationMs
  one.total++
  addDuration(one.durations, durationMs)
  const seconds = durationMs / 1_000
  for (let index = 0; index < buckets.length; index++)
    if (seconds <= (buckets[index] ?? 0)) {
      one.counts[index] = (one.counts[index] ?? 0) + 1
      return
    }
}

function count(counters: Map<string, number>, key: string | undefined): void {
  if (key !== undefined) counters.set(key, (counters.get(key) ?? 0) + 1)
}

/** undefined: another policy answered before. */
function toLimitVerdict({ exchange }: Plan, code: ErrorCode | undefined): string | undefined {
  if (code === 'rate_limited') return 'refused'
  if (code === 'limiter_unavailable') return 'down'
  return exchange.answerHeaders.includes('RateLimit') ? 'allowed' : undefined
}

function toAuthVerdict({ exchange, kind }: Plan, code: ErrorCode | undefined): string | undefined {
  if (exchange.identity) return 'verified'
  if (code === 'unauthorized') return 'refused'
  if (code === 'forbidden') return 'forbidden'
  if (code === 'keys_unavailable') return 'unavailable'
  return kind === 'answer' ? undefined : 'anonymous'
}

const family = (name: string, type: string, help: string, lines: string[]): string =>
  `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.map((line) => `${line}\n`).join('')}`

const toLines = (name: string, counters: Map<string, number>): string[] =>
  [...counters].map(([key, value]) => `${name}${key} ${value}`)

const toStatusLines = ({ own, statuses }: Series): string[] =>
  [...statuses].map(([status, value]) => `daemun_requests_total${labels({ ...own, status: String(status) })} ${value}`)

const toVerdictLines = (name: string, { own }: Series, verdicts: Map<string, number>): string[] =>
  [...verdicts].map(([verdict, value]) => `${name}${labels({ ...own, verdict })} ${value}`)

function toHistogramLines({ own, counts, sumMs, total }: Series): string[] {
  const name = 'daemun_request_duration_seconds'
  let below = 0
  const bucketLines = buckets.map((bucket, index) => {
    below += counts[index] ?? 0
    return `${name}_bucket${labels({ ...own, le: String(bucket) })} ${below}`
  })
  return [
    ...bucketLines,
    `${name}_bucket${labels({ ...own, le: '+Inf' })} ${total}`,
    `${name}_sum${labels(own)} ${sumMs / 1_000}`,
    `${name}_count${labels(own)} ${total}`,
  ]
}

const labels = (pairs: Record<string, string>): string =>
  `{${Object.entries(pairs)
    .map(
      ([name, value]) =>
        `${name}="${value.replace(/[\\"\n]/g, (character) => (character === '\n' ? '\\n' : `\\${character}`))}"`,
    )
    .join(',')}}`
