import { selects } from '../cache/selector.ts'
import type { Selector } from '../cache/selector.ts'
import type { Refusal } from '../error.ts'
import { limits } from '../limits.ts'
import type { Gauge } from '../metrics.ts'
import { createCacheStore } from './cache-store.ts'
import type { CacheStore } from './cache-store.ts'

/** What is kept of upstreams' answers, and what is on its way. One for all tables: it outlives each of them. */
export interface ResponseCache {
  readonly store: CacheStore
  now(): number
  /** The fetch under way that others may wait for. */
  findFill(key: string): Fill | undefined
  /** Begins a fetch; one that others `mayJoin` is the one for its key from here on. */
  beginFill(key: string, url: string, mayJoin: boolean): Fill
  /** Room for so many bytes more on their way; false: there is none. */
  reserve(bytes: number): boolean
  release(bytes: number): void
  /** Remembers for a while that the answer for this key cannot be shared, or that its upstream fails. */
  note(key: string, what: Note, ms: number): void
  noted(key: string): Note | undefined
  /** Forgets what is kept, and what is on its way; says how many answers that were. */
  purge(selector: Selector): number
  gauges(): Gauge[]
}

type Note = 'passed' | 'failed'

/** One fetch of an answer that may be kept. */
export interface Fill {
  /** Purged while it was on its way. */
  readonly cancelled: boolean
  /** The tags of the answer, once its head is there. */
  tags: string[] | undefined
  /** Waits for the end, at most `collapseWaitMs`; returns how to give up. undefined: too many wait already. */
  wait(onEnd: (end: FillEnd) => void): (() => void) | undefined
  /** Tells all who wait. Once. */
  settle(end: FillEnd): void
}

/**
 * kept: the answer is in the store. passed: it may not be kept. again: nobody knows, somebody has to ask again.
 * late: it takes too long. failed: the upstream has failed, with `refusal` if it gave no answer.
 */
export interface FillEnd {
  kind: 'kept' | 'passed' | 'again' | 'late' | 'failed'
  refusal?: Refusal
}

export function createResponseCache({
  bytesMax = limits.cacheBytesMax as number,
  now = Date.now,
}: { bytesMax?: number | undefined; now?: () => number } = {}): ResponseCache {
  const store = createCacheStore(bytesMax)
  const joinable = new Map<string, Fill>()
  const fills = new Map<Fill, { url: string; cancel(): void }>()
  const notes = new Map<string, { what: Note; until: number }>()
  let reserved = 0
  let purged = 0

  function beginFill(key: string, url: string, mayJoin: boolean): Fill {
    const waiting = new Set<(end: FillEnd) => void>()
    let cancelled = false
    let settled = false

    function settle(end: FillEnd): void {
      if (settled) return
      settled = true
      fills.delete(fill)
      leave()
      for (const onEnd of waiting) onEnd(end)
    }

    const leave = (): void => void (joinable.get(key) === fill && joinable.delete(key))

    function cancel(): void {
      cancelled = true
      settle({ kind: 'again' })
    }

    function wait(onEnd: (end: FillEnd) => void): (() => void) | undefined {
      if (waiting.size >= limits.collapsedMax) return undefined
      const done = (end: FillEnd): void => {
        stop()
        onEnd(end)
      }
      const timer = setTimeout(() => done({ kind: 'late' }), limits.collapseWaitMs)
      const stop = (): void => {
        clearTimeout(timer)
        waiting.delete(done)
      }
      waiting.add(done)
      return stop
    }

    const fill: Fill = {
      get cancelled() {
        return cancelled
      },
      tags: undefined,
      wait,
      settle,
    }
    fills.set(fill, { url, cancel })
    if (mayJoin) joinable.set(key, fill)
    return fill
  }

  function note(key: string, what: Note, ms: number): void {
    notes.delete(key)
    const [first] = notes.keys()
    if (notes.size >= limits.passesMax && first !== undefined) notes.delete(first)
    notes.set(key, { what, until: now() + ms })
  }

  function noted(key: string): Note | undefined {
    const found = notes.get(key)
    if (found && found.until > now()) return found.what
    if (found) notes.delete(key)
    return undefined
  }

  /** Tags of what has no head yet are not known: it is taken for one that is meant. */
  function purge(selector: Selector): number {
    const count = store.purge(selector)
    purged += count
    // Those who waited for one of them ask again, which begins others.
    const underway = [...fills]
    for (const [fill, { url, cancel }] of underway)
      if (('tag' in selector && !fill.tags) || selects(selector, url, fill.tags ?? [])) cancel()
    return count
  }

  return {
    store,
    now,
    findFill: (key) => joinable.get(key),
    beginFill,
    reserve(bytes) {
      if (reserved + bytes > limits.cacheFillBytesMax) return false
      reserved += bytes
      return true
    },
    release(bytes) {
      reserved -= bytes
    },
    note,
    noted,
    purge,
    gauges: () => [
      { name: 'daemun_cache_bytes', help: 'Answers that are kept, with their fields.', value: store.bytes() },
      { name: 'daemun_cache_entries', help: 'Answers that are kept.', value: store.entries() },
      {
        name: 'daemun_cache_evictions_total',
        type: 'counter',
        help: 'Answers that had to make room.',
        value: store.evictions(),
      },
      {
        name: 'daemun_cache_purged_total',
        type: 'counter',
        help: 'Answers that were purged, or that a change has made doubtful.',
        value: purged,
      },
    ],
  }
}
