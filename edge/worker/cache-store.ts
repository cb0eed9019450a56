import type { StoredHead } from '../cache/stored-head.ts'
import { matchesVariant, toVariant } from '../cache/vary.ts'
import { platformCache } from './platform.ts'

/** A kept answer. */
export interface Entry {
  head: StoredHead
  body: ArrayBuffer
}

/** The answer that the platform keeps for a URL and a row, in the place where this runs. */
export interface Found {
  entry: Entry | undefined
  /** There are answers, for other values of what they vary by. */
  hasOthers: boolean
}

/**
 * Answers are kept under their own URLs with a mark, so that what the platform can purge (a host, a prefix, a tag) it
 * can purge here. The first place has the newest answer; those that vary have places of their own behind it, which
 * are found through it only: with it all are gone.
 */
export async function findKept(url: string, row: string, sent: readonly string[]): Promise<Found> {
  const first = await read(toPlace(url), url, row)
  if (!first) return { entry: undefined, hasOthers: false }
  const { head, epoch } = first
  if (matchesVariant(head.variant, sent)) return { entry: first, hasOthers: true }
  const names = head.variant.map(([name]) => name)
  const other = await read(toPlace(url, epoch, toVariant(names, sent)), url, row)
  return { entry: other && matchesVariant(other.head.variant, sent) ? other : undefined, hasOthers: true }
}

export async function keep(url: string, row: string, { head, body }: Entry, now: number): Promise<void> {
  const cache = platformCache()
  const known = await read(toPlace(url), url, row)
  const epoch = known?.epoch ?? crypto.randomUUID()
  const toAnswer = (): Response => write({ head, body }, { url, row, epoch }, now)
  const places = [toPlace(url), ...(head.variant.length > 0 ? [toPlace(url, epoch, head.variant)] : [])]
  // What cannot be kept costs nobody anything.
  for (const place of places) await cache.put(place, toAnswer()).catch(() => {})
}

export const forget = async (url: string): Promise<void> =>
  void (await platformCache()
    .delete(toPlace(url))
    .catch(() => false))

function toPlace(url: string, epoch?: string, variant?: unknown): string {
  const place = `${url}${url.includes('?') ? '&' : '?'}daemun-cache`
  return epoch === undefined ? place : `${place}=${epoch}-${encodeURIComponent(JSON.stringify(variant))}`
}

const headField = 'X-Daemun-Stored'
/** What a field may be long, with room for others. */
const headLengthMax = 16_384

interface Marks {
  url: string
  row: string
  epoch: string
}

function write({ head, body }: Entry, marks: Marks, now: number): Response {
  const text = encodeURIComponent(JSON.stringify({ head, ...marks }))
  const useMs = head.freshMs + Math.max(head.staleWhileRevalidateMs, head.staleIfErrorMs) - (now - head.receivedAt)
  const canBeAsked = head.etag !== undefined || head.lastModified !== undefined
  const seconds = Math.ceil(Math.max(useMs / 1_000, canBeAsked ? validatedSeconds : 1))
  return new Response(body, {
    headers: {
      'Cache-Control': text.length > headLengthMax ? 'no-store' : `public, max-age=${seconds}`,
      'Content-Type': 'application/octet-stream',
      [headField]: text.length > headLengthMax ? '' : text,
      ...(head.tags.length > 0 && { 'Cache-Tag': head.tags.join(',') }),
    },
  })
}

/** How long what can be asked about is kept behind its time. */
const validatedSeconds = 86_400

/** Two URLs that the platform takes for one are two here. */
async function read(place: string, url: string, row: string): Promise<(Entry & { epoch: string }) | undefined> {
  const answer = await platformCache()
    .match(place)
    .catch(() => undefined)
  const text = answer?.headers.get(headField)
  if (!answer || !text) return undefined
  const marked = JSON.parse(decodeURIComponent(text)) as Marks & { head: StoredHead }
  if (marked.url !== url || marked.row !== row) {
    await answer.body?.cancel()
    return undefined
  }
  return { head: marked.head, epoch: marked.epoch, body: await answer.arrayBuffer() }
}
