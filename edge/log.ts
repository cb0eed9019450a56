import type { Plan } from './plan.ts'
import type { Outcome } from './runtime.ts'

/** One access-log line: JSON, one per request, whatever became of it. Tokens and secrets in the query are not in it. */
export function toLogLine(plan: Plan, outcome: Outcome, now: number, durationMs: number): string {
  const { exchange } = plan
  const { route } = exchange
  const refusal = outcome.refusal ?? (plan.kind === 'answer' ? plan.refusal : undefined)
  let line = `{"time":"${toIsoTime(now)}","id":"${exchange.requestId}","client":"${exchange.client.text}","method":${quote(exchange.method)},"scheme":"${exchange.scheme}","host":"${exchange.host}","path":${quote(redactPath(exchange.path))}`
  if (exchange.trace) line += `,"trace":"${exchange.trace.traceId}"`
  if (exchange.query !== '') line += `,"query":${JSON.stringify(redactQuery(exchange.query))}`
  line += `,"status":${outcome.status},"bytes":${outcome.bytes},"ms":${round(durationMs)}`
  if (route) line += `,"table":"${route.table}","route":${quote(route.id)}`
  if (plan.kind === 'proxy') line += `,"upstream":"${plan.upstream.id}"`
  if (outcome.server !== undefined) line += `,"server":"${outcome.server}"`
  if (outcome.upstreamMs !== undefined) line += `,"upstreamMs":${round(outcome.upstreamMs)}`
  if (outcome.cache !== undefined) line += `,"cache":"${outcome.cache}"`
  if (outcome.attempts !== undefined) line += `,"attempts":${outcome.attempts}`
  if (exchange.identity) line += `,"subject":${JSON.stringify(exchange.identity.subject)}`
  if (refusal) line += `,"error":"${refusal.code}"`
  if (refusal?.limit) line += `,"limit":${JSON.stringify(refusal.limit.name)}`
  if (outcome.cause !== undefined) line += `,"cause":${JSON.stringify(outcome.cause)}`
  if (outcome.end !== 'done') line += `,"end":"${outcome.end}"`
  return `${line}}\n`
}

/** A path without tokens, which some links carry as a segment. A token's first part begins with '{"' in base64url. */
export const redactPath = (path: string): string =>
  path.includes('eyJ') ? path.replace(/(?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]*/g, '[redacted]') : path

/**
 * A query without secrets: values of parameters that are named like one, and whatever has the look of a token. Names
 * are read as a server would, with their escapes undone.
 */
export function redactQuery(query: string): string {
  return query.replace(
    /([?&;])([^=&;]*)(=?)([^&;]*)/g,
    (whole, mark: string, name: string, is: string, value: string) => {
      if (is === '' || isTokenLike(name)) return isTokenLike(name) ? `${mark}[redacted]` : whole
      return isSecretName(name) || isTokenLike(value) ? `${mark}${name}=[redacted]` : whole
    },
  )
}

export const isSecretName = (name: string): boolean =>
  /token|secret|key|pass|pwd|code|auth|sig|session|jwt|credential|otp|ticket|nonce|state|email/i.test(
    name.includes('%') ? unescapeName(name) : name,
  )

/** Three dotted parts of base64url (the last may be empty: nobody signed it), or a long run without a break. */
const isTokenLike = (value: string): boolean =>
  /[\w-]{8,}\.[\w-]{8,}\.[\w-]+|eyJ[\w-]+\.[\w-]+\.|[\w+/=-]{40,}/.test(value)

function unescapeName(name: string): string {
  try {
    return decodeURIComponent(name)
  } catch {
    // What cannot be read is not shown.
    return 'secret'
  }
}

let isoSecond = 0
let isoText = ''

/** toISOString, whose seconds are made once a second. */
function toIsoTime(now: number): string {
  const second = Math.floor(now / 1_000)
  if (second !== isoSecond) {
    isoSecond = second
    isoText = new Date(second * 1_000).toISOString().slice(0, 20)
  }
  return `${isoText}${String(Math.floor(now) % 1_000).padStart(3, '0')}Z`
}

/** A request's method and path have been read strictly: they need no escaping unless they were refused. */
const quote = (text: string): string => (/^[\x20!#-[\]-~]*$/.test(text) ? `"${text}"` : JSON.stringify(text))

/** In hundredths. Put together from two whole numbers, whose text V8 remembers; that of a fraction is made each time. */
function round(milliseconds: number): string {
  const all = Math.round(milliseconds * 100)
  const whole = Math.floor(all / 100)
  return `${whole}${hundredths[all - whole * 100]}`
}

/** '', '.01', … '.1', … '.99'. */
const hundredths = Array.from({ length: 100 }, (_, index) => String(index / 100).slice(1))
