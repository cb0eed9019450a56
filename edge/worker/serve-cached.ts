import type { CachePlan, UseCache } from '../cache/cache-plan.ts'
import { toForwardStatus, toHitStatus } from '../cache/cache-status.ts'
import type { CacheVerdict, Forwarded, ForwardReason } from '../cache/cache-status.ts'
import { toFillHeaders } from '../cache/fill-headers.ts'
import { isError, mayServeOnError } from '../cache/judge.ts'
import { notCached, toLookupStep } from '../cache/lookup.ts'
import { toReceivedStep } from '../cache/received-step.ts'
import { toChangedUrl } from '../cache/selector.ts'
import { isUnmodified, serveStored } from '../cache/serve-stored.ts'
import type { StoredHead } from '../cache/stored-head.ts'
import { fieldValue } from '../exchange.ts'
import type { ProxyPlan } from '../plan.ts'
import { toRefusal, toResponseInit } from './answer.ts'
import type { Finish } from './answer.ts'
import { findKept, forget, keep } from './cache-store.ts'
import type { Entry } from './cache-store.ts'
import type { Tap } from './forward.ts'
import type { WorkerIo } from './platform.ts'

/** Asks the upstream; the answer, or what stands in for it. */
export type Ask = (plan: ProxyPlan, finish: Finish, tap?: Tap) => Promise<Response>

interface Means {
  ask: Ask
  finish: Finish
  now: () => number
}

/**
 * Answers with what the platform keeps where that may be, else asks the upstream and keeps what may be kept: the same
 * verdicts as on Node. Nobody waits for another's fetch: requests here know nothing of one another.
 */
export async function serveCached(plan: ProxyPlan, use: CachePlan, io: WorkerIo, means: Means): Promise<Response> {
  const { ask, finish } = means
  if (use.use === 'store') return new Serving(plan, use, io, means).serve()
  if (use.use === 'invalidate') return ask(plan, finish, createInvalidateTap(use.url, io))
  plan.exchange.answerHeaders.push('Cache-Status', toForwardStatus({ reason: use.forward, detail: use.reason }))
  return ask(plan, (account, outcome) => finish(account, { ...outcome, cache: 'bypass' }))
}

/** RFC 9111 §4.4. */
const createInvalidateTap = (url: string, { context }: WorkerIo): Tap => ({
  head({ status }, received) {
    if (status >= 400) return undefined
    const changed = ['location', 'content-location'].map((name) => toChangedUrl(url, fieldValue(received, name)))
    const urls = [url, ...changed].filter((one) => one !== undefined)
    context.waitUntil(Promise.all(urls.map(forget)))
    return undefined
  },
  data() {},
  end() {},
  fail: () => undefined,
})

class Serving {
  readonly #plan: ProxyPlan
  readonly #use: UseCache
  readonly #io: WorkerIo
  readonly #means: Means
  readonly #ownHeaders: string[]
  #verdict: CacheVerdict = 'miss'

  constructor(plan: ProxyPlan, use: UseCache, io: WorkerIo, means: Means) {
    this.#plan = plan
    this.#use = use
    this.#io = io
    this.#means = means
    this.#ownHeaders = plan.exchange.answerHeaders
  }

  async serve(): Promise<Response> {
    const { url, cache } = this.#use
    const { entry, hasOthers } = await findKept(url, cache.row, this.#plan.headers)
    const step = toLookupStep(this.#plan.exchange, this.#use, { kept: entry?.head, hasOthers, now: this.#means.now() })
    if (step.do === 'send' && entry) {
      if (step.refreshes) this.#io.context.waitUntil(this.#refresh(entry))
      return this.#send(entry, step.ttl < 0 ? 'stale' : 'hit', toHitStatus(step.ttl))
    }
    if (step.do === 'refuse') {
      this.#say(toForwardStatus({ reason: step.reason }))
      return toRefusal(this.#plan, notCached, this.#finish)
    }
    if (step.do === 'fetch') return this.#fetch(step.validates ? entry : undefined, step.reason)
    this.#say(toForwardStatus({ reason: step.do === 'pass' ? step.reason : 'uri-miss' }))
    return this.#means.ask(this.#plan, this.#finish)
  }

  readonly #finish: Finish = (account, outcome) => this.#means.finish(account, { ...outcome, cache: this.#verdict })

  #say(status: string): void {
    this.#plan.exchange.answerHeaders = [...this.#ownHeaders, 'Cache-Status', status]
  }

  #send({ head, body }: Entry, verdict: CacheVerdict, status: string): Response {
    this.#verdict = verdict
    this.#say(status)
    const plan = this.#plan
    const { exchange } = plan
    const served = serveStored(exchange, plan.response, head, { size: body.byteLength, now: this.#means.now() })
    if ('code' in served) return toRefusal(plan, served, this.#finish)
    const { range } = served
    const part = range ? body.slice(range.start, range.end + 1) : body
    const isBodiless = exchange.method === 'HEAD' || served.status === 304 || served.status === 204
    const length = served.status === 304 || served.status === 204 ? [] : ['Content-Length', String(part.byteLength)]
    this.#finish(plan, { status: served.status, bytes: isBodiless ? 0 : part.byteLength, end: 'done' })
    return new Response(isBodiless ? null : part, toResponseInit(served.status, [...served.headers, ...length]))
  }

  /** The client has what is being fetched; the rest of it is read for the store, where its length is known. */
  #sendUnmodified(answer: Response, head: StoredHead): Response {
    const { url, cache } = this.#use
    const { now } = this.#means
    if (answer.headers.has('content-length'))
      this.#io.context.waitUntil(
        answer.arrayBuffer().then(
          (body) => keep(url, cache.row, { head, body }, now()),
          () => {},
        ),
      )
    const served = serveStored(this.#plan.exchange, this.#plan.response, head, { size: 0, now: now() })
    if ('code' in served) return toRefusal(this.#plan, served, this.#finish)
    this.#finish(this.#plan, { status: served.status, bytes: 0, end: 'done' })
    return new Response(null, toResponseInit(served.status, served.headers))
  }

  #fetch(known: Entry | undefined, reason: ForwardReason): Promise<Response> {
    const headers = toFillHeaders(this.#plan.headers, known?.head)
    return this.#means.ask({ ...this.#plan, headers }, this.#finish, this.#createTap(known, reason, headers))
  }

  /** Fetches a new answer behind the client that got the stale one. */
  async #refresh(known: Entry): Promise<void> {
    const exchange = { ...this.#plan.exchange, startedAt: performance.now(), answerHeaders: [] }
    const means = { ...this.#means, finish: () => {} }
    const answer = await new Serving({ ...this.#plan, exchange }, this.#use, this.#io, means).#fetch(known, 'stale')
    await answer.arrayBuffer().catch(() => {})
  }

  #createTap(known: Entry | undefined, reason: ForwardReason, sent: string[]): Tap {
    const use = this.#use
    const { now } = this.#means
    const { context } = this.#io
    const askedAt = now()
    let head: StoredHead | undefined
    let chunks: Uint8Array[] = []
    let bytes = 0

    const standIn = (entry: Entry, forwarded: Partial<Forwarded>): Response =>
      this.#send(entry, 'stale', toForwardStatus({ reason, ...forwarded, detail: 'the upstream fails' }))

    const onHead = (answer: Response, headers: string[]): Response | Promise<Response> | undefined => {
      const { status } = answer
      const step = toReceivedStep(use, known?.head, { status, headers, sent, askedAt, receivedAt: now() })
      if (known) {
        const forwarded = { reason, status }
        if (step.do === 'stand-in') return standIn(known, { status })
        if (step.do === 'again') return forget(use.url).then(() => this.serve())
        if (step.do === 'update') {
          const entry = { head: step.head, body: known.body }
          context.waitUntil(keep(use.url, use.cache.row, entry, now()))
          return this.#send(entry, 'revalidated', toForwardStatus({ ...forwarded, stored: true }))
        }
        if (step.do === 'release') {
          context.waitUntil(forget(use.url))
          return this.#send(known, 'revalidated', toForwardStatus({ ...forwarded, detail: step.refused }))
        }
        if (step.do === 'pass' && !isError(status)) context.waitUntil(forget(use.url))
      }
      const how = step.do === 'keep' ? { stored: true } : { detail: step.do === 'pass' ? step.refused : '' }
      this.#say(toForwardStatus({ reason, ...(known && { status }), ...how }))
      if (step.do !== 'keep') return undefined
      if (!isUnmodified(this.#plan.exchange, step.head)) head = step.head
      else return this.#sendUnmodified(answer, step.head)
      return undefined
    }

    const onData = (chunk: Uint8Array): void => {
      bytes += chunk.byteLength
      if (bytes > use.cache.entryBytesMax) {
        head = undefined
        chunks = []
      }
      if (head) chunks.push(chunk.slice())
    }

    const onEnd = (): void => {
      if (!head) return
      const body = new Uint8Array(bytes)
      let at = 0
      for (const chunk of chunks) {
        body.set(chunk, at)
        at += chunk.byteLength
      }
      context.waitUntil(keep(use.url, use.cache.row, { head, body: body.buffer }, now()))
    }

    const onFail = (): Response | undefined => {
      if (known && mayServeOnError(use, known.head, now())) return standIn(known, {})
      this.#say(toForwardStatus({ reason }))
      return undefined
    }

    return { head: onHead, data: onData, end: onEnd, fail: onFail }
  }
}
