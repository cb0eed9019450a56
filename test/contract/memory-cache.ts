import type { CachePlan, UseCache } from '#edge/cache/cache-plan.ts'
import { toForwardStatus, toHitStatus } from '#edge/cache/cache-status.ts'
import { toFillHeaders } from '#edge/cache/fill-headers.ts'
import { notCached, toLookupStep } from '#edge/cache/lookup.ts'
import { toReceivedStep } from '#edge/cache/received-step.ts'
import { isUnmodified, serveStored } from '#edge/cache/serve-stored.ts'
import type { StoredHead } from '#edge/cache/stored-head.ts'
import { matchesVariant } from '#edge/cache/vary.ts'
import type { Refusal } from '#edge/error.ts'
import type { ProxyPlan } from '#edge/plan.ts'
import type { OriginAnswer } from '../support/origin.ts'
import type { ContractResponse } from './suite.ts'

interface Entry {
  head: StoredHead
  body: string | Uint8Array
}

interface Means {
  /** What the origin says. */
  ask(headers: string[]): OriginAnswer
  /** An answer of it as clients get it. */
  pass(answer: OriginAnswer): ContractResponse
  respond(status: number, headers: string[], body: string | Uint8Array): ContractResponse
  refuse(refusal: Refusal): ContractResponse
}

/** The core's steps carried out in the plainest way: a map, and no time passes between asking and keeping. */
export function createMemoryCache() {
  const entries = new Map<string, Entry[]>()

  function serve(plan: ProxyPlan, use: CachePlan, means: Means): ContractResponse {
    const { exchange } = plan
    const own = exchange.answerHeaders
    const say = (status: string): void => void (exchange.answerHeaders = [...own, 'Cache-Status', status])
    if (use.use !== 'store') {
      if (use.use === 'bypass') say(toForwardStatus({ reason: use.forward, detail: use.reason }))
      const answer = means.ask(plan.headers)
      if (use.use === 'invalidate' && answer.status < 400) entries.delete(use.url)
      return means.pass(answer)
    }
    const kept = entries.get(use.url) ?? []
    const entry = kept.findLast(({ head }) => matchesVariant(head.variant, plan.headers))
    const step = toLookupStep(exchange, use, { kept: entry?.head, hasOthers: kept.length > 0, now: Date.now() })
    if (step.do === 'send' && entry) {
      say(toHitStatus(step.ttl))
      const response = send(plan, entry, means)
      if (step.refreshes) fetch(plan, use, entry, means)
      return response
    }
    const reason = step.do === 'send' ? 'uri-miss' : step.reason
    say(toForwardStatus({ reason }))
    if (step.do === 'refuse') return means.refuse(notCached)
    if (step.do !== 'fetch') return means.pass(means.ask(plan.headers))
    const known = step.validates ? entry : undefined
    const { answer, received } = fetch(plan, use, known, means)
    const { status } = answer
    if (known && received.do === 'update') {
      say(toForwardStatus({ reason, status, stored: true }))
      return send(plan, { ...known, head: received.head }, means)
    }
    if (known && received.do === 'stand-in') {
      say(toForwardStatus({ reason, status, detail: 'the upstream fails' }))
      return send(plan, known, means)
    }
    const how = received.do === 'pass' ? { detail: received.refused } : { stored: true }
    say(toForwardStatus({ reason, ...(known && { status }), ...how }))
    if (received.do === 'keep' && isUnmodified(exchange, received.head))
      return send(plan, { head: received.head, body: '' }, means)
    return means.pass(answer)
  }

  function fetch(plan: ProxyPlan, use: UseCache, known: Entry | undefined, { ask }: Means) {
    const sent = toFillHeaders(plan.headers, known?.head)
    const now = Date.now()
    const answer = ask(sent)
    const { status, headers, body } = answer
    const length = ['Content-Length', String(Buffer.byteLength(body))]
    const received = toReceivedStep(use, known?.head, {
      status,
      headers: [...headers, ...length],
      sent,
      askedAt: now,
      receivedAt: now,
    })
    const kept = entries.get(use.url) ?? []
    if (received.do === 'keep') entries.set(use.url, [...kept, { head: received.head, body }])
    if (received.do === 'update' && known) entries.set(use.url, [...kept, { ...known, head: received.head }])
    return { answer, received }
  }

  return { serve }
}

function send({ exchange, response }: ProxyPlan, { head, body }: Entry, means: Means): ContractResponse {
  const bytes = Buffer.from(body)
  const served = serveStored(exchange, response, head, { size: bytes.length, now: Date.now() })
  if ('code' in served) return means.refuse(served)
  const { status, headers, range } = served
  const part = range ? bytes.subarray(range.start, range.end + 1) : bytes
  const isBodiless = status === 304 || exchange.method === 'HEAD'
  return means.respond(status, [...headers, 'Content-Length', String(part.length)], isBodiless ? '' : part)
}
