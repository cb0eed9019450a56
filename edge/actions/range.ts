/** Bytes of a file, both ends included. */
export interface ByteRange {
  start: number
  end: number
}

/**
 * What a Range field asks of a file of `size` bytes (RFC 9110 §14.2): one range is answered. Several, other units and
 * what cannot be read get the whole file, so that many small ranges are no way to make work.
 */
export function readRange(field: string, size: number): ByteRange | 'whole' | 'unsatisfiable' {
  const asked = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(field)
  if (!asked) return 'whole'
  const [, first = '', last = ''] = asked
  if (first === '') return last === '' ? 'whole' : readSuffix(Number(last), size)
  const start = Number(first)
  const end = last === '' ? Infinity : Number(last)
  if (end < start) return 'whole'
  return start >= size ? 'unsatisfiable' : { start, end: Math.min(end, size - 1) }
}

/** An empty file has no byte that a Content-Range could name. */
function readSuffix(length: number, size: number): ByteRange | 'whole' | 'unsatisfiable' {
  if (length === 0) return 'unsatisfiable'
  return size === 0 ? 'whole' : { start: Math.max(0, size - length), end: size - 1 }
}
