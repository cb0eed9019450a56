import { selects } from '../cache/selector.ts'
import type { Selector } from '../cache/selector.ts'
import type { StoredHead } from '../cache/stored-head.ts'
import { matchesVariant } from '../cache/vary.ts'
import { limits } from '../limits.ts'

/** A kept answer. */
export interface Entry {
  readonly url: string
  /** The row that it was kept for. */
  readonly row: string
  readonly head: StoredHead
  readonly body: Buffer
  /** A short body as latin1: Node sends it in one piece with the head. */
  readonly text: string | undefined
  /** The body in codings that were asked for, by their names; undefined while one is made. */
  readonly forms: Map<string, Buffer | undefined>
}

/**
 * Answers in memory, all together at most `bytesMax` long. What goes first is chosen by SIEVE (NSDI '24): a hand goes
 * from old to new and takes what nobody has asked for since it last came by. As good as LRU or better, also when many
 * URLs are asked for once, and a hit is one flag.
 */
export interface CacheStore {
  /** The newest answer that fits the request; `sent` is flat, as the upstream would get it. */
  find(url: string, row: string, sent: readonly string[]): Entry | undefined
  /** Any answer of the row's to this URL, whoever it is for. */
  findAny(url: string, row: string): Entry | undefined
  /** Keeps it instead of those that the same requests would get. */
  put(entry: Omit<Entry, 'forms' | 'text'>): Entry
  /** The same body with another head: it was brought up to date. */
  update(entry: Entry, head: StoredHead): Entry
  /** Keeps a form of an entry, if there is room. */
  putForm(entry: Entry, coding: string, body: Buffer): void
  remove(entry: Entry): void
  /** How many were removed. */
  purge(selector: Selector): number
  bytes(): number
  entries(): number
  evictions(): number
}

interface Slot extends Entry {
  head: StoredHead
  bytes: number
  /** Asked for since the hand came by. */
  wanted: boolean
  gone: boolean
  newer: Slot | undefined
  older: Slot | undefined
}

export function createCacheStore(bytesMax: number): CacheStore {
  const urls = new Map<string, Slot[]>()
  let newest: Slot | undefined
  let oldest: Slot | undefined
  let hand: Slot | undefined
  let bytes = 0
  let entries = 0
  let evictions = 0

  function find(url: string, row: string, sent: readonly string[]): Entry | undefined {
    let found: Slot | undefined
    for (const slot of urls.get(url) ?? [])
      if (slot.row === row && matchesVariant(slot.head.variant, sent) && !isOlder(slot, found)) found = slot
    if (found) found.wanted = true
    return found
  }

  function put({ url, row, head, body }: Omit<Entry, 'forms' | 'text'>): Entry {
    const slots = urls.get(url) ?? []
    const same = slots.find((slot) => slot.row === row && isSameVariant(slot.head, head))
    if (same) remove(same)
    const variants = slots.filter((slot) => slot.row === row)
    if (variants.length >= limits.variantsMax) remove(variants.reduce((a, b) => (isOlder(b, a) ? b : a)))
    const slot: Slot = {
      url,
      row,
      head,
      body,
      text: body.length <= textBytesMax ? body.toString('latin1') : undefined,
      forms: new Map(),
      bytes: toBytes(url, head, body),
      wanted: false,
      gone: false,
      newer: undefined,
      older: newest,
    }
    // It would push out all others, and then itself.
    if (slot.bytes > bytesMax) return Object.assign(slot, { gone: true })
    urls.set(url, [...(urls.get(url) ?? []), slot])
    if (newest) newest.newer = slot
    newest = slot
    oldest ??= slot
    entries++
    bytes += slot.bytes
    evict()
    return slot
  }

  function update(entry: Entry, head: StoredHead): Entry {
    const slot = entry as Slot
    if (slot.gone) return put({ ...entry, head })
    const more = toBytes(slot.url, head, slot.body) - toBytes(slot.url, slot.head, slot.body)
    slot.head = head
    slot.bytes += more
    bytes += more
    evict()
    return slot
  }

  function evict(): void {
    while (bytes > bytesMax && oldest) {
      let slot: Slot = hand ?? oldest
      while (slot.wanted) {
        slot.wanted = false
        slot = slot.newer ?? oldest
      }
      hand = slot.newer
      evictions++
      remove(slot)
    }
  }

  function putForm(entry: Entry, coding: string, body: Buffer): void {
    const slot = entry as Slot
    slot.forms.set(coding, body)
    if (slot.gone) return
    slot.bytes += body.length
    bytes += body.length
    evict()
  }

  function remove(entry: Entry): void {
    const slot = entry as Slot
    if (slot.gone) return
    slot.gone = true
    if (slot === hand) hand = slot.newer
    if (slot.newer) slot.newer.older = slot.older
    else newest = slot.older
    if (slot.older) slot.older.newer = slot.newer
    else oldest = slot.newer
    entries--
    bytes -= slot.bytes
    const left = (urls.get(slot.url) ?? []).filter((other) => other !== slot)
    if (left.length > 0) urls.set(slot.url, left)
    else urls.delete(slot.url)
  }

  function purge(selector: Selector): number {
    const among = 'url' in selector ? [urls.get(selector.url) ?? []] : [...urls.values()]
    const found = among.flat().filter((slot) => selects(selector, slot.url, slot.head.tags))
    for (const slot of found) remove(slot)
    return found.length
  }

  return {
    find,
    findAny: (url, row) => urls.get(url)?.find((slot) => slot.row === row),
    put,
    update,
    putForm,
    remove,
    purge,
    bytes: () => bytes,
    entries: () => entries,
    evictions: () => evictions,
  }
}

const isOlder = (one: Slot, other: Slot | undefined): boolean =>
  other !== undefined && one.head.receivedAt < other.head.receivedAt

const isSameVariant = (one: StoredHead, other: StoredHead): boolean =>
  JSON.stringify(one.variant) === JSON.stringify(other.variant)

/** About what it costs: texts are one or two bytes a character, and every object has its own cost. */
function toBytes(url: string, head: StoredHead, body: Buffer): number {
  let length = url.length
  for (const text of head.headers) length += text.length + perTextBytes
  for (const [name, value] of head.variant) length += name.length + (value ?? '').length + perTextBytes
  for (const tag of head.tags) length += tag.length + perTextBytes
  return length + body.length + perEntryBytes
}

/** Above this Node no longer joins a text with the head. */
const textBytesMax = 8_192

const perTextBytes = 32
const perEntryBytes = 1_024
