import { lookup } from 'mrmime'
import type { CompiledFiles } from '../compile.ts'
import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { readFieldName } from '../identity.ts'
import type { Coding } from './encoding.ts'

/** A browser that goes to a page, not one that loads a part of it: only then does an SPA's index stand in. */
export function isNavigation({ headers, path, method }: Exchange): boolean {
  if (method !== 'GET' && method !== 'HEAD') return false
  const mode = fieldValue(headers, 'sec-fetch-mode')
  if (mode !== undefined) return mode === 'navigate'
  return !/\.[A-Za-z0-9]+$/.test(path) && (fieldValue(headers, 'accept') ?? '*/*').match(/text\/html|\*\/\*/) !== null
}

/** Dotfiles are nobody's business, but for what RFC 8615 puts below /.well-known/. */
export const isServable = (name: string): boolean => !name.replace(/^\/\.well-known\//, '/').includes('/.')

/** How a file is stored: Unity's builds are encoded and keep their names, so that a page asks for 'game.wasm.br'. */
export interface Stored {
  /** The name of what is inside. */
  base: string
  coding: Coding
  /** The media type of what is inside. */
  type: string
}

/** `name` is the path below the folder. */
export function readStored(name: string): Stored {
  const [, inner, ending] = /^(.*\/Build\/[^/]+\.(?:data|wasm|js|json|mem))\.(br|gz)$/.exec(name) ?? []
  const base = inner ?? name
  const coding = ending === undefined ? 'identity' : ending === 'br' ? 'br' : 'gzip'
  return { base, coding, type: toType(base) }
}

function toType(name: string): string {
  const ending = /\.[^./]+$/.exec(name)?.[0]
  if (ending === '.ico') return 'image/x-icon'
  return (ending && lookup(ending)) ?? 'application/octet-stream'
}

/** Content-Type, Content-Encoding and Cache-Control of a file in one of its codings. */
export function toAssetHeaders(files: CompiledFiles, name: string, coding?: Coding): string[] {
  const stored = readStored(name)
  const { type } = stored
  const sent = coding ?? stored.coding
  const text = /^text\/|^application\/(javascript|json|manifest\+json|xml)|\+xml$/.test(type)
  const headers = ['Content-Type', text ? `${type}; charset=utf-8` : type]
  if (sent !== 'identity') headers.push('Content-Encoding', sent)
  headers.push('Cache-Control', toCacheControl(files, name))
  return headers
}

/** index.html and what the table names are never kept, what never changes is kept a year, all else is asked for again. */
function toCacheControl({ noStore, immutable }: CompiledFiles, name: string): string {
  if (noStore.has(name.slice(1)) || name.endsWith('/index.html')) return 'no-cache, no-store, must-revalidate'
  const { base } = readStored(name)
  return immutable.has(base.slice(base.lastIndexOf('.') + 1)) || isHashed(name)
    ? 'public, max-age=31536000, immutable'
    : 'no-cache'
}

/**
 * Whether a build put a hash of the content into the name: 'app.3f9a1c2b.js', 'index-BxY7k2aQ.js'. Sooner too few than
 * too many: what is wrongly taken for hashed stays old for a year, what is not is only asked for again. So dates,
 * versions and words with a number ('Canvas2D') are none.
 */
export function isHashed(name: string): boolean {
  const parts = name.slice(name.lastIndexOf('/') + 1).split('.')
  if (parts.length < 2 || parts.at(-1) === 'html') return false
  return parts.slice(0, -1).some((part, index) => {
    const hex = /(?:^|[-_])([0-9a-f]{8,64})$/.exec(part)?.[1]
    if (hex !== undefined && hex.length % 2 === 0 && /\d[a-f]/.test(hex)) return true
    const mixed = (index > 0 ? /(?:^|-)([\w-]{8})$/ : /-([\w-]{8})$/).exec(part)?.[1]
    return mixed !== undefined && /\d/.test(mixed) && countTurns(mixed) >= 4
  })
}

/** How often upper case, lower case and digits take turns. */
const countTurns = (text: string): number => (text.match(/[A-Z]+|[a-z]+|\d+|[-_]+/g) ?? []).length - 1

/** What a client says of what it has and wants. */
export interface Conditions {
  encodings?: string
  ifNoneMatch?: string
  ifModifiedSince?: string
  ifRange?: string
  range?: string
}

const conditionNames = new Map<string, keyof Conditions>([
  ['accept-encoding', 'encodings'],
  ['if-none-match', 'ifNoneMatch'],
  ['if-modified-since', 'ifModifiedSince'],
  ['if-range', 'ifRange'],
  ['range', 'range'],
])

export function readConditions(headers: string[]): Conditions {
  const conditions: Conditions = {}
  for (let i = 0; i < headers.length; i += 2) {
    const key = conditionNames.get(readFieldName(headers[i] ?? '').name)
    if (!key) continue
    const value = headers[i + 1] ?? ''
    conditions[key] = conditions[key] === undefined ? value : `${conditions[key]}, ${value}`
  }
  return conditions
}

/** Whether the client has this file already (RFC 9110 §13.2.2: the date counts only where no tag is asked about). */
export function isFresh({ ifNoneMatch, ifModifiedSince }: Conditions, etag: string, modifiedMs?: number): boolean {
  if (ifNoneMatch !== undefined) return matchesWeakly(ifNoneMatch, etag)
  if (ifModifiedSince === undefined || modifiedMs === undefined || !ifModifiedSince.endsWith(' GMT')) return false
  return Math.floor(modifiedMs / 1_000) * 1_000 <= Date.parse(ifModifiedSince)
}

const matchesWeakly = (tags: string, etag: string): boolean =>
  tags.trim() === '*' || tags.split(',').some((tag) => toStrong(tag.trim()) === toStrong(etag))

const toStrong = (tag: string): string => tag.replace(/^W\//, '')

/** Whether a part still fits what the client has (RFC 9110 §13.1.5): a date says too little, a weak tag too. */
export const fitsRange = ({ ifRange }: Conditions, etag: string): boolean =>
  ifRange === undefined || (ifRange.trim() === etag && !etag.startsWith('W/'))
