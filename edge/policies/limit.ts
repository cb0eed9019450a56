import { toMilliseconds } from '../duration.ts'
import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import type { Facts, LimitRule, LimitVerdict } from '../runtime.ts'
import type { Limit } from '../table.ts'
import type { Binding, BoundPolicy, Verdict } from './index.ts'

/** Limits by address and by field: they need no identity. */
export const bindAddressLimit = (binding: Binding): BoundPolicy | undefined =>
  bindLimits(binding, (limit) => limit.by !== 'subject')

/** Limits by subject. */
export function bindSubjectLimit(binding: Binding): BoundPolicy | undefined {
  const policy = bindLimits(binding, (limit) => limit.by === 'subject')
  if (policy && !binding.route.auth)
    binding.report('limit', "counts by subject, but the row has no 'auth'", "add 'auth', or count by address")
  return policy
}

interface Rule extends LimitRule {
  /** 'address 10/1 m', as errors and RateLimit-Policy name it. */
  name: string
  by: Limit['by']
  /** RateLimit-Policy's item (draft-ietf-httpapi-ratelimit-headers). */
  policy: string
}

/** How often somebody may ask. The first limit that does not allow a request refuses it; those behind it are not counted. */
function bindLimits({ id, route }: Binding, applies: (limit: Limit) => boolean): BoundPolicy | undefined {
  const written = [route.limit ?? []].flat()
  const rules = written
    .map((limit, index) => toRule(`${id}#${index}`, limit))
    .filter((_, index) => applies(written[index] as Limit))
  if (rules.length === 0) return undefined

  function check(exchange: Exchange, facts: Facts, from = 0): Verdict | Promise<Verdict> {
    for (let index = from; index < rules.length; index++) {
      const rule = rules[index] as Rule
      const taken = facts.limiter.take(rule, toKey(rule.by, exchange))
      if (taken instanceof Promise)
        return taken.then(
          (verdict) => settle(exchange, rule, verdict, facts.now()) ?? check(exchange, facts, index + 1),
        )
      const refused = settle(exchange, rule, taken, facts.now())
      if (refused) return refused
    }
    return allowed
  }

  return {
    name: 'limit',
    describe: rules.map((rule) => rule.name).join(', '),
    check: (exchange, facts) => check(exchange, facts),
  }
}

function settle(exchange: Exchange, rule: Rule, verdict: LimitVerdict, now: number): Verdict | undefined {
  if (verdict.outcome === 'down') return down
  const seconds = Math.max(1, Math.ceil((verdict.resetAt - now) / 1_000))
  exchange.answerHeaders.push(
    'RateLimit-Policy',
    rule.policy,
    'RateLimit',
    `"${toItemName(rule.by)}";r=${verdict.remaining};t=${seconds}`,
  )
  if (verdict.outcome === 'allowed') return undefined
  return {
    outcome: 'refuse',
    reason: `more than ${rule.name}`,
    refusal: {
      code: 'rate_limited',
      detail: `more requests than ${rule.name} allows; try again in ${seconds} s`,
      limit: { name: rule.name, value: rule.requests },
      headers: ['Retry-After', String(seconds)],
    },
  }
}

/** Whose count it is. Without a subject or a field, the address stands in: nobody is uncounted. */
function toKey(by: Limit['by'], exchange: Exchange): string {
  if (by === 'subject' && exchange.identity?.subject) return `s:${exchange.identity.subject}`
  const value = typeof by === 'object' ? fieldValue(exchange.headers, by.header.toLowerCase()) : undefined
  return value === undefined ? `a:${exchange.client.bucket}` : `h:${value}`
}

function toRule(id: string, limit: Limit): Rule {
  const name = `${typeof limit.by === 'object' ? limit.by.header : limit.by} ${limit.requests}/${limit.per}${limit.burst === undefined ? '' : ` burst ${limit.burst}`}`
  const windowMs = toMilliseconds(limit.per)
  const quota = limit.burst === undefined ? limit.requests : limit.burst + 1
  return {
    id,
    name,
    by: limit.by,
    requests: limit.requests,
    windowMs,
    burst: limit.burst,
    whenDown: limit.whenDown ?? 'local',
    policy: `"${toItemName(limit.by)}";q=${quota};w=${Math.max(1, Math.ceil(windowMs / 1_000))}`,
  }
}

const toItemName = (by: Limit['by']): string => (typeof by === 'object' ? by.header.toLowerCase() : by)

const allowed: Verdict = { outcome: 'pass', reason: 'within the limit' }
const down: Verdict = {
  outcome: 'refuse',
  reason: 'the shared counters do not answer, and this row then allows nothing',
  refusal: { code: 'limiter_unavailable', detail: 'requests cannot be counted now', headers: ['Retry-After', '1'] },
}
