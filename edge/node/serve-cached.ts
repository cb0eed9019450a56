import type { CachePlan, UseCache } from '../cache/cache-plan.ts'
import { toForwardStatus, toHitStatus } from '../cache/cache-status.ts'
import type { CacheVerdict, Forwarded, ForwardReason } from '../cache/cache-status.ts'
import type { StoredHead } from '../cache/stored-head.ts'
import { mayServeOnError } from '../cache/judge.ts'
import { notCached, toLookupStep } from '../cache/lookup.ts'
import { toFillHeaders } from '../cache/fill-headers.ts'
import { toVariant } from '../cache/vary.ts'
import type { Refusal } from '../error.ts'
import { refuse } from '../gateway.ts'
import type { ProxyPlan } from '../plan.ts'
import { sendAnswer } from './answer.ts'
import { createBackgroundIo } from './background-io.ts'
import { createFillTap, createInvalidateTap } from './cache-taps.ts'
import type { Entry } from './cache-store.ts'
import type { Finish, NodeIo } from './exchange-io.ts'
import { forward } from './forward.ts'
import type { Pool } from './pool.ts'
import type { FillEnd, ResponseCache } from './response-cache.ts'
import { sendStored } from './send-stored.ts'

interface Means {
  cache: ResponseCache
  pool: Pool
  finish: Finish
}

/** Answers with what is kept where that may be, else asks the upstream and keeps what may be kept. */
export function serveCached(plan: ProxyPlan, use: CachePlan, io: NodeIo, { cache, pool, finish }: Means): void {
  if (use.use === 'store') return new Serving({ plan, use, io, cache, pool, account: finish }).serve()
  if (use.use === 'invalidate')
    return forward(plan, io, pool, finish, { tap: createInvalidateTap(use.url, cache.purge) })
  plan.exchange.answerHeaders.push('Cache-Status', toForwardStatus({ reason: use.forward, detail: use.reason }))
  forward(plan, io, pool, (account, outcome) => finish(account, { ...outcome, cache: 'bypass' }))
}

interface ServingParts {
  plan: ProxyPlan
  use: UseCache
  io: NodeIo
  cache: ResponseCache
  pool: Pool
  account: Finish
}

/** One request that the store may answer, also after another one's fetch was waited for. */
export class Serving {
  readonly plan: ProxyPlan
  readonly use: UseCache
  readonly io: NodeIo
  readonly cache: ResponseCache
  readonly #pool: Pool
  readonly #account: Finish
  readonly #ownHeaders: string[]
  #verdict: CacheVerdict = 'miss'
  /** How often another one's fetch was waited for to its end; and not again. */
  #waits = 0
  #alone = false

  constructor({ plan, use, io, cache, pool, account }: ServingParts) {
    this.plan = plan
    this.use = use
    this.io = io
    this.cache = cache
    this.#pool = pool
    this.#account = account
    this.#ownHeaders = plan.exchange.answerHeaders
  }

  serve(): void {
    const { plan, use, cache } = this
    const entry = cache.store.find(use.url, use.cache.row, plan.headers)
    const hasOthers = cache.store.findAny(use.url, use.cache.row) !== undefined
    const now = cache.now()
    const step = toLookupStep(plan.exchange, use, { kept: entry?.head, hasOthers, now })
    if (step.do === 'send' && entry) {
      this.sendHit(entry, step.ttl)
      if (step.refreshes) this.#refresh(entry)
      return
    }
    if (step.do === 'refuse') return this.#refuse(notCached, step.reason)
    if (step.do !== 'fetch') return this.#passOn(step.do === 'pass' ? step.reason : 'uri-miss')
    const known = step.validates ? entry : undefined
    const { reason } = step
    const key = this.#toKey(known)
    if (known && cache.noted(key) === 'failed' && mayServeOnError(use, known.head, now))
      return this.sendStale(known, { reason, detail: 'the upstream has just failed' })
    if (!this.#join(key, known, reason)) this.#fetch(key, known, reason)
  }

  sendHit(entry: Entry, ttl: number): void {
    const isCollapsed = this.#waits > 0
    this.#verdict = isCollapsed ? 'collapsed' : ttl < 0 ? 'stale' : 'hit'
    this.say(isCollapsed ? toForwardStatus({ reason: 'uri-miss', collapsed: true }) : toHitStatus(ttl))
    this.#send(entry)
  }

  sendStale(entry: Entry, forwarded: Forwarded): void {
    this.#verdict = 'stale'
    this.say(toForwardStatus(forwarded))
    this.#send(entry)
  }

  sendRevalidated(entry: Entry, forwarded: Forwarded): void {
    this.#verdict = 'revalidated'
    this.say(toForwardStatus(forwarded))
    this.#send(entry)
  }

  /** The client has what is being fetched already. */
  sendUnmodified(head: StoredHead): void {
    const { plan, io, cache } = this
    const entry = { url: '', row: '', head, body: nothing, text: '', forms: new Map<string, Buffer>() }
    sendStored(plan, io, entry, { store: cache.store, now: cache.now(), finish: this.finish })
  }

  /** What the client's Cache-Status says of this cache. */
  say(status: string): void {
    this.plan.exchange.answerHeaders = [...this.#ownHeaders, 'Cache-Status', status]
  }

  readonly finish: Finish = (account, outcome) => this.#account(account, { ...outcome, cache: this.#verdict })

  #send(entry: Entry): void {
    const { plan, io, cache } = this
    sendStored(plan, io, entry, { store: cache.store, now: cache.now(), finish: this.finish })
  }

  /** Requests for which one answer may do: the same URL and row, and what the URL's answers are known to vary by. */
  #toKey(known: Entry | undefined): string {
    const { use, plan, cache } = this
    const any = known ?? cache.store.findAny(use.url, use.cache.row)
    const names = any?.head.variant.map(([name]) => name) ?? use.cache.vary
    return JSON.stringify([use.url, use.cache.row, use.isPersonal, toVariant(names, plan.headers)])
  }

  /** Waits for the fetch that is under way, if there is one that could do. */
  #join(key: string, known: Entry | undefined, reason: ForwardReason): boolean {
    if (this.#alone || reason === 'request' || this.cache.noted(key) === 'passed') return false
    const { response } = this.io
    const leave = this.cache.findFill(key)?.wait((end) => {
      response.off('close', onClose)
      this.#afterWait(end, known)
    })
    if (!leave) return false
    const onClose = (): void => {
      leave()
      this.#verdict = 'collapsed'
      this.finish(this.plan, { status: 0, bytes: 0, end: 'client_gone' })
    }
    response.once('close', onClose)
    return true
  }

  #afterWait({ kind, refusal }: FillEnd, known: Entry | undefined): void {
    // A second wait is for those whose answer has turned out to be another one.
    this.#alone = kind === 'passed' || kind === 'late' || (kind === 'kept' && ++this.#waits > 1)
    const isDown = kind === 'failed' || kind === 'late'
    if (isDown && known && mayServeOnError(this.use, known.head, this.cache.now()))
      return this.sendStale(known, { reason: 'stale', collapsed: true, detail: 'the upstream fails' })
    if (kind === 'failed') {
      this.#alone = true
      if (refusal) return this.#refuse(refusal, known ? 'stale' : 'uri-miss', true)
    }
    this.serve()
  }

  #fetch(key: string, known: Entry | undefined, reason: ForwardReason): void {
    const { plan, use, io, cache } = this
    const mayJoin = !this.#alone && reason !== 'request' && cache.noted(key) !== 'passed'
    const fill = cache.beginFill(key, use.url, mayJoin && !cache.findFill(key))
    const headers = toFillHeaders(plan.headers, known?.head)
    const tap = createFillTap({ serving: this, key, known, reason, fill, sent: headers })
    forward({ ...plan, headers }, io, this.#pool, this.finish, { tap })
  }

  /** Fetches a new answer behind the client that got the stale one. */
  #refresh(known: Entry): void {
    const { plan, use, cache } = this
    const key = this.#toKey(known)
    if (cache.findFill(key) || cache.noted(key) === 'failed') return
    const exchange = { ...plan.exchange, startedAt: performance.now(), answerHeaders: [] }
    const io = createBackgroundIo()
    const behind = new Serving({ plan: { ...plan, exchange }, use, io, cache, pool: this.#pool, account: () => {} })
    behind.#fetch(key, known, 'stale')
  }

  /** Neither HEAD nor a part of an answer fills the store. */
  #passOn(reason: ForwardReason): void {
    this.say(toForwardStatus({ reason }))
    forward(this.plan, this.io, this.#pool, this.finish)
  }

  #refuse(refusal: Refusal, reason: ForwardReason, collapsed = false): void {
    this.say(toForwardStatus({ reason, collapsed }))
    const answer = refuse(this.plan.exchange, refusal)
    sendAnswer(answer, this.io, this.finish, { refusal }, this.plan)
  }
}

const nothing = Buffer.alloc(0)
