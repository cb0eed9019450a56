import { readFieldName } from '../identity.ts'
import type { StoredHead } from './stored-head.ts'

/**
 * The request's fields as the upstream is asked for all of an answer: without the client's own conditions, which are
 * judged here, and with those of what is kept (RFC 9111 §4.3.1). Flat.
 */
export function toFillHeaders(headers: readonly string[], known: StoredHead | undefined): string[] {
  const asked: string[] = []
  for (let i = 0; i < headers.length; i += 2)
    if (!conditions.has(readFieldName(headers[i] ?? '').name)) asked.push(headers[i] ?? '', headers[i + 1] ?? '')
  if (known?.etag !== undefined) asked.push('If-None-Match', known.etag)
  if (known?.lastModified !== undefined) asked.push('If-Modified-Since', known.lastModified)
  return asked
}

const conditions = new Set(['if-none-match', 'if-modified-since', 'range', 'if-range'])
