import type { Exchange } from './exchange.ts'
import { redactPath, redactQuery } from './log.ts'
import type { Plan, ProxyPlan } from './plan.ts'
import type { Outcome } from './runtime.ts'
import type { Spans } from './trace-context.ts'

/**
 * A span as OTLP's JSON has it (opentelemetry-proto 1.x: ids in hexadecimal, 64-bit numbers as text). Names and
 * attributes are those of OpenTelemetry's semantic conventions for HTTP (1.23 and later).
 */
export interface OtlpSpan {
  traceId: string
  spanId: string
  parentSpanId?: string
  traceState?: string
  name: string
  /** 2: server, 3: client. */
  kind: 2 | 3
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: OtlpAttribute[]
  /** 2: error; without a code unset. */
  status: { code?: 2 }
}

interface OtlpAttribute {
  key: string
  value: { stringValue: string } | { intValue: string }
}

/** What a request was to the gateway and, if an upstream was asked, what the upstream was to it. */
export function toSpans(plan: Plan, outcome: Outcome, durationMs: number): OtlpSpan[] {
  const { trace } = plan.exchange
  if (!trace?.spans) return []
  const server = toServerSpan(plan, outcome, durationMs, trace.traceId, trace.spans)
  if (plan.kind !== 'proxy' || outcome.sentAfterMs === undefined) return [server]
  return [server, toClientSpan(plan, outcome, durationMs, trace.traceId, trace.spans)]
}

function toServerSpan(plan: Plan, outcome: Outcome, durationMs: number, traceId: string, spans: Spans): OtlpSpan {
  const { exchange } = plan
  const { method, scheme, path, query, host, authority, client, route, requestId, startedAt } = exchange
  const refusal = outcome.refusal ?? (plan.kind === 'answer' ? plan.refusal : undefined)
  const template = route?.route.path
  const error = outcome.status >= 500 ? (refusal?.code ?? String(outcome.status)) : toCut(outcome)
  return {
    traceId,
    spanId: spans.server,
    ...(spans.parent !== undefined && { parentSpanId: spans.parent }),
    ...(spans.tracestate !== undefined && { traceState: spans.tracestate }),
    name: template === undefined ? toMethod(method) : `${toMethod(method)} ${template}`,
    kind: 2,
    ...toTimes(exchange, startedAt, durationMs),
    attributes: toAttributes({
      ...toMethodAttributes(method),
      'url.scheme': scheme,
      'url.path': redactPath(path),
      'url.query': query === '' ? undefined : redactQuery(query).slice(1),
      'server.address': host,
      'server.port': toPort(authority),
      'client.address': client.text,
      'http.route': template,
      'http.response.status_code': outcome.status || undefined,
      'error.type': error,
      'daemun.request_id': requestId,
      'daemun.table': route?.table,
      'daemun.error': refusal?.code,
    }),
    status: error === undefined ? {} : { code: 2 },
  }
}

/** The last time the upstream was asked, when it was more than once. */
function toClientSpan(plan: ProxyPlan, outcome: Outcome, durationMs: number, traceId: string, spans: Spans): OtlpSpan {
  const { exchange, upstream, target } = plan
  const server = outcome.server === undefined ? undefined : new URL(outcome.server)
  const answered = outcome.upstreamMs !== undefined
  const error = answered
    ? outcome.status >= 400
      ? String(outcome.status)
      : toCut(outcome)
    : (outcome.cause ?? 'error')
  const sentAfterMs = outcome.sentAfterMs ?? 0
  return {
    traceId,
    spanId: spans.client,
    parentSpanId: spans.server,
    ...(spans.tracestate !== undefined && { traceState: spans.tracestate }),
    name: toMethod(exchange.method),
    kind: 3,
    ...toTimes(exchange, exchange.startedAt + sentAfterMs, durationMs - sentAfterMs),
    attributes: toAttributes({
      ...toMethodAttributes(exchange.method),
      'url.full': server && `${server.origin}${toRedacted(target)}`,
      'server.address': server?.hostname,
      'server.port': server && Number(server.port || (server.protocol === 'https:' ? 443 : 80)),
      'http.response.status_code': answered ? outcome.status || undefined : undefined,
      'http.request.resend_count': outcome.attempts === undefined ? undefined : outcome.attempts - 1,
      'error.type': error,
      'daemun.upstream': upstream.id,
    }),
    status: error === undefined ? {} : { code: 2 },
  }
}

const toCut = ({ end }: Outcome): string | undefined => (end === 'done' ? undefined : end)

function toRedacted(target: string): string {
  const query = target.indexOf('?')
  return query === -1 ? redactPath(target) : redactPath(target.slice(0, query)) + redactQuery(target.slice(query))
}

/** From the moment the request came in, by its own clock. */
function toTimes({ receivedAt, startedAt }: Exchange, from: number, durationMs: number) {
  const start = receivedAt + (from - startedAt)
  return { startTimeUnixNano: toNanoseconds(start), endTimeUnixNano: toNanoseconds(start + Math.max(0, durationMs)) }
}

/** Milliseconds with fractions, of which a double keeps microseconds. */
const toNanoseconds = (milliseconds: number): string => `${Math.round(milliseconds * 1_000)}000`

const knownMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT', 'TRACE']
const toMethod = (method: string): string => (knownMethods.includes(method) ? method : 'HTTP')

/** A client may make up methods, of which collectors would keep every one. */
const toMethodAttributes = (method: string) =>
  knownMethods.includes(method)
    ? { 'http.request.method': method }
    : { 'http.request.method': '_OTHER', 'http.request.method_original': method.slice(0, 32) }

const toPort = (authority: string): number | undefined => {
  const port = /:(\d+)$/.exec(authority)?.[1]
  return port === undefined ? undefined : Number(port)
}

const toAttributes = (values: Record<string, string | number | undefined>): OtlpAttribute[] =>
  Object.entries(values).flatMap(([key, value]) =>
    value === undefined
      ? []
      : [{ key, value: typeof value === 'number' ? { intValue: String(value) } : { stringValue: value } }],
  )
