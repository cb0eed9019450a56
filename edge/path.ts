/**
 * The only code that reads or edits a URL path. A request's path is read once into its canonical form (RFC 3986 §6.2.2);
 * what two readers could read differently is refused, so the path that was checked is the path that is sent.
 */

export interface Target {
  /** Canonical: begins with '/', no dot segment, no empty segment, unreserved characters not escaped, escapes upper-case. */
  path: string
  /** With its '?', or empty; as received. */
  query: string
}

export interface TargetFault {
  fault: string
}

/** Reads an origin-form request target (RFC 9112 §3.2.1). */
export function readTarget(target: string): Target | TargetFault {
  const mark = target.indexOf('?')
  const raw = mark === -1 ? target : target.slice(0, mark)
  const query = mark === -1 ? '' : target.slice(mark)
  if (!isQuery(query)) return { fault: 'the query has a character that must be escaped' }
  const path = toCanonicalPath(raw)
  return typeof path === 'string' ? { path, query } : path
}

/** The canonical form of a path, or why it has none. */
export function toCanonicalPath(raw: string): string | TargetFault {
  if (raw.charCodeAt(0) !== SLASH) return { fault: 'the path does not begin with a slash' }
  let escaped = false
  let segment = 1
  for (let i = 1; i <= raw.length; i++) {
    const code = i === raw.length ? SLASH : raw.charCodeAt(i)
    if (code === SLASH) {
      if (i === segment && i !== raw.length) return { fault: 'the path has an empty segment' }
      if (isDotSegment(raw, segment, i)) return { fault: 'the path has a dot segment' }
      segment = i + 1
    } else if (code === PERCENT) escaped = true
    else if (code > 126 || !PATH_CHARACTERS[code]) return { fault: 'the path has a character that must be escaped' }
  }
  return escaped ? unescapePath(raw) : raw
}

/** The path without its leading segments `prefix`; '/' when nothing is left. */
export function stripPrefix(path: string, prefix: string): string {
  if (prefix === '/') return path
  if (path === prefix) return '/'
  return path.startsWith(prefix) && path.charCodeAt(prefix.length) === SLASH ? path.slice(prefix.length) : path
}

/** A row's path pattern: exact, or a prefix of whole segments. */
export type PathPattern = { kind: 'exact'; path: string } | { kind: 'prefix'; path: string }

/** Reads '/ws' or '/api/*'; a prefix is kept without its '/*' ('/*' is the prefix ''). */
export function readPattern(text: string): PathPattern | TargetFault {
  const prefix = text.endsWith('/*')
  const path = prefix ? text.slice(0, -2) : text
  if (path.includes('*')) return { fault: "'*' may only be the last segment" }
  // What the router reads as parameters and expressions, also in the middle of a segment.
  const special = /[?#{}|:()[\]^]/.exec(path)
  if (special) return { fault: `'${special[0]}' cannot stand in a row's path; there are no parameters` }
  const canonical = path === '' && prefix ? '' : toCanonicalPath(path)
  if (typeof canonical !== 'string') return canonical
  if (canonical !== path)
    return { fault: `write it as '${canonical}${prefix ? '/*' : ''}', the form that requests are compared in` }
  if (prefix && path.endsWith('/')) return { fault: 'the path has an empty segment' }
  return { kind: prefix ? 'prefix' : 'exact', path }
}

/** The specification of matching: what the router must agree with. */
export function matchesPattern(pattern: PathPattern, path: string): boolean {
  if (pattern.kind === 'exact') return path === pattern.path
  return path === pattern.path || path.startsWith(`${pattern.path}/`)
}

const SLASH = 0x2f
const PERCENT = 0x25
const DOT = 0x2e

/** What may stand unescaped in a path: pchar of RFC 3986 §3.3, and what browsers leave as it is. */
const PATH_CHARACTERS = toTable("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/[]|^")
const UNRESERVED = toTable('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~')

function toTable(characters: string): Uint8Array {
  const table = new Uint8Array(128)
  for (const character of characters) table[character.charCodeAt(0)] = 1
  return table
}

/** '.' and '..', also with parameters behind them ('..;x', '..%3Bx'), which some servers read as '..'. */
function isDotSegment(path: string, start: number, end: number): boolean {
  if (path.charCodeAt(start) !== DOT) return false
  const semicolon = path.indexOf(';', start)
  const length = (semicolon === -1 || semicolon > end ? end : semicolon) - start
  return length === 1 || (length === 2 && path.charCodeAt(start + 1) === DOT)
}

function unescapePath(raw: string): string | TargetFault {
  let path = ''
  let from = 0
  for (let i = raw.indexOf('%'); i !== -1; i = raw.indexOf('%', i + 3)) {
    const code = readEscape(raw, i)
    if (code === -1) return { fault: "the path has a '%' that escapes nothing" }
    if (code === 0 || code === SLASH || code === 0x5c)
      return { fault: 'the path has an escaped slash, backslash or NUL' }
    if (code < 0x20 || code === 0x7f) return { fault: 'the path has an escaped control character' }
    const escape = code < 128 && UNRESERVED[code] ? String.fromCharCode(code) : raw.slice(i, i + 3).toUpperCase()
    path += raw.slice(from, i) + escape
    from = i + 3
  }
  path += raw.slice(from)
  if (!isUtf8(path)) return { fault: 'the path escapes bytes that are not UTF-8' }
  // What was escaped may be dots: look again, without escapes of unreserved characters.
  return hasDotSegment(path) ? { fault: 'the path has a dot segment' } : path
}

function readEscape(text: string, at: number): number {
  const high = hexDigit(text.charCodeAt(at + 1))
  const low = hexDigit(text.charCodeAt(at + 2))
  return high === -1 || low === -1 ? -1 : high * 16 + low
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const letter = code | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}

/** Overlong and broken UTF-8 is what path tricks are made of; decodeURIComponent refuses both. */
function isUtf8(path: string): boolean {
  try {
    decodeURIComponent(path)
    return true
  } catch {
    return false
  }
}

const hasDotSegment = (path: string): boolean => /\/\.{1,2}(?:[/;]|%3B|$)/.test(path)

/** Visible ASCII but '#', and what browsers leave as it is; never a space, a control character or a raw byte above 126. */
const isQuery = (query: string): boolean => /^[!"$-~]*$/.test(query)
