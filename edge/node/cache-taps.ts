import type { ForwardReason } from '../cache/cache-status.ts'
import { toForwardStatus } from '../cache/cache-status.ts'
import { isError, mayServeOnError } from '../cache/judge.ts'
import { toChangedUrl } from '../cache/selector.ts'
import type { Selector } from '../cache/selector.ts'
import { isUnmodified } from '../cache/serve-stored.ts'
import { toReceivedStep } from '../cache/received-step.ts'
import type { StoredHead } from '../cache/stored-head.ts'
import { fieldValue } from '../exchange.ts'
import { limits } from '../limits.ts'
import type { Entry } from './cache-store.ts'
import type { Hold, Tap } from './forward.ts'
import type { Fill } from './response-cache.ts'
import type { Serving } from './serve-cached.ts'

const forClient = { keeps: false, takes: false }
const forBoth = { keeps: true, takes: false }
const forStore = { keeps: true, takes: true }
const forNobody = { keeps: false, takes: true }

/** RFC 9111 §4.4: what has changed something makes what is kept of it doubtful. */
export function createInvalidateTap(url: string, purge: (selector: Selector) => void): Tap {
  return {
    head(status, received) {
      if (status >= 400) return forClient
      const changed = ['location', 'content-location'].map((name) => toChangedUrl(url, fieldValue(received, name)))
      for (const one of [url, ...changed]) if (one !== undefined) purge({ url: one })
      return forClient
    },
    data: () => false,
    end() {},
    fail: () => false,
  }
}

interface FillParts {
  serving: Serving
  key: string
  /** What is kept and was asked about. */
  known: Entry | undefined
  reason: ForwardReason
  fill: Fill
  /** The request's fields as they were sent, flat. */
  sent: string[]
}

/** Keeps an answer as it passes, all of it or nothing. */
export function createFillTap({ serving, key, known, reason, fill, sent }: FillParts): Tap {
  const { cache, use, plan } = serving
  const askedAt = cache.now()
  let head: StoredHead | undefined
  let chunks: Buffer[] = []
  let bytes = 0

  function onHead(status: number, headers: string[]): Hold {
    const received = { status, headers, sent, askedAt, receivedAt: cache.now() }
    const step = toReceivedStep(use, known?.head, received)
    if (known) {
      if (step.do === 'update' && !fill.cancelled) return update(known, step.head)
      if (step.do === 'update' || step.do === 'release')
        return release(known, 'refused' in step ? step.refused : 'purged')
      if (step.do === 'again') return askAgain(known)
      if (step.do === 'stand-in') return standIn(known, status)
    }
    const stored = step.do === 'keep' ? step.head : undefined
    const refused = stored ? findRefusal(status, headers) : step.do === 'pass' ? step.refused : ''
    serving.say(
      toForwardStatus({
        reason,
        ...(known && { status }),
        ...(refused === undefined ? { stored: true } : { detail: refused }),
      }),
    )
    if (!stored || refused !== undefined) {
      if (known && !isError(status)) cache.store.remove(known)
      pass(!isError(status))
      return forClient
    }
    head = stored
    fill.tags = stored.tags
    // The client's own condition may be met by the answer that is being fetched for all.
    if (!isUnmodified(plan.exchange, stored)) return forBoth
    serving.sendUnmodified(stored)
    return forStore
  }

  function update(entry: Entry, fresh: StoredHead): Hold {
    const updated = cache.store.update(entry, fresh)
    serving.sendRevalidated(updated, { reason, status: 304, stored: true })
    settleKept(fresh)
    return forNobody
  }

  function release(entry: Entry, detail: string): Hold {
    cache.store.remove(entry)
    serving.sendRevalidated(entry, { reason, status: 304, detail })
    pass(true)
    return forNobody
  }

  function askAgain(entry: Entry): Hold {
    cache.store.remove(entry)
    fill.settle({ kind: 'again' })
    serving.serve()
    return forNobody
  }

  function standIn(entry: Entry, status: number): Hold {
    onFailure()
    serving.sendStale(entry, { reason, status, detail: 'the upstream fails' })
    return forNobody
  }

  /** What only shows as it comes. */
  function findRefusal(status: number, headers: string[]): string | undefined {
    if (fill.cancelled) return 'purged'
    // Where the end is that of the connection, nobody can tell it from a cut.
    const hasEnd =
      fieldValue(headers, 'content-length') !== undefined ||
      fieldValue(headers, 'transfer-encoding') !== undefined ||
      status === 204
    return hasEnd ? undefined : 'no end'
  }

  function onData(chunk: Buffer): boolean {
    if (!head) return false
    const fits = !fill.cancelled && bytes + chunk.length <= use.cache.entryBytesMax && cache.reserve(chunk.length)
    if (!fits) {
      pass(true)
      return false
    }
    bytes += chunk.length
    // A copy: the chunk is a part of a longer piece that was read.
    chunks.push(Buffer.from(chunk))
    return true
  }

  function onEnd(): void {
    if (!head) return
    const { url, cache: row } = use
    const kept = head
    if (!fill.cancelled) cache.store.put({ url, row: row.row, head, body: Buffer.concat(chunks, bytes) })
    forget()
    settleKept(kept)
  }

  /** What is asked about each time is nothing to wait for. */
  function settleKept({ noCache, freshMs }: StoredHead): void {
    if (noCache || freshMs === 0) return pass(true)
    fill.settle({ kind: 'kept' })
  }

  /** Whoever waits asks for itself; with `isLasting` nobody waits for the next ones. */
  function pass(isLasting: boolean): void {
    if (isLasting && !fill.cancelled) cache.note(key, 'passed', limits.passMs)
    forget()
    fill.settle({ kind: 'passed' })
  }

  function onFailure(refusal?: Parameters<Tap['fail']>[0]): void {
    cache.note(key, 'failed', limits.staleRetryMs)
    fill.settle({ kind: 'failed', ...(refusal && { refusal }) })
  }

  function forget(): void {
    cache.release(bytes)
    chunks = []
    bytes = 0
    head = undefined
  }

  function fail(refusal: Parameters<Tap['fail']>[0]): boolean {
    if (!refusal) {
      // Before the head it was the client who left: the next one asks. Behind it, the upstream broke off.
      if (head) pass(false)
      fill.settle({ kind: 'again' })
      return false
    }
    onFailure(refusal)
    if (!known || !mayServeOnError(use, known.head, cache.now())) {
      serving.say(toForwardStatus({ reason }))
      return false
    }
    serving.sendStale(known, { reason, detail: 'the upstream fails' })
    return true
  }

  return { head: onHead, data: onData, end: onEnd, fail }
}
