import { fitsRange, isFresh, readConditions } from '../actions/files.ts'
import { toClientHeaders } from '../actions/headers.ts'
import { readRange } from '../actions/range.ts'
import type { ByteRange } from '../actions/range.ts'
import type { ResponseEdits } from '../compile.ts'
import type { Refusal } from '../error.ts'
import type { Exchange } from '../exchange.ts'
import { readHttpDate } from './http-date.ts'
import { toAgeMs } from './judge.ts'
import type { StoredHead } from './stored-head.ts'

/** A kept answer as one client gets it; Content-Length is the runtime's. */
export interface Served {
  status: number
  /** All fields, flat. */
  headers: string[]
  /** What of the body is sent; undefined: all of it. */
  range: ByteRange | undefined
}

/** `size`: of the body, in bytes. Conditions are judged here: the client may have the answer already. */
export function serveStored(
  exchange: Exchange,
  edits: ResponseEdits,
  head: StoredHead,
  { size, now }: { size: number; now: number },
): Served | Refusal {
  const conditions = readConditions(exchange.headers)
  const age = String(Math.floor(toAgeMs(head, now) / 1_000))
  const toHeaders = (status: number, own: string[]): string[] =>
    toClientHeaders(exchange, edits, status, [...own, 'Age', age])
  if (isUnmodified(exchange, head))
    return { status: 304, headers: toHeaders(304, ofUnmodified(head.headers)), range: undefined }
  const asked = head.status === 200 && exchange.method === 'GET' ? conditions.range : undefined
  const range = asked !== undefined && fitsRange(conditions, head.etag ?? '') ? readRange(asked, size) : 'whole'
  if (range === 'whole') return { status: head.status, headers: toHeaders(head.status, head.headers), range: undefined }
  if (range === 'unsatisfiable') return toUnsatisfiable(size)
  const part = [...head.headers, 'Content-Range', `bytes ${range.start}-${range.end}/${size}`]
  return { status: 206, headers: toHeaders(206, part), range }
}

type Validators = Pick<StoredHead, 'status' | 'etag' | 'lastModified' | 'receivedAt'>

/** Whether the client has this answer already (RFC 9110 §13.2.2). */
export function isUnmodified({ headers }: Exchange, { status, etag, lastModified, receivedAt }: Validators): boolean {
  // Without a tag only '*' matches.
  return status === 200 && isFresh(readConditions(headers), etag ?? noTag, readHttpDate(lastModified, receivedAt))
}

const noTag = 'no tag is like this'

/** RFC 9110 §15.4.5: what tells of the content stays away. */
function ofUnmodified(headers: string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2)
    if (!/^content-(type|length|encoding|language|range)$/i.test(headers[i] ?? ''))
      kept.push(headers[i] ?? '', headers[i + 1] ?? '')
  return kept
}

const toUnsatisfiable = (size: number): Refusal => ({
  code: 'range_not_satisfiable',
  detail: `the answer has ${size} bytes`,
  headers: ['Content-Range', `bytes */${size}`],
})
