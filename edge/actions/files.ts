import { lookup } from 'mrmime'
import type { CompiledFiles } from '../compile.ts'
import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'

/** A browser that goes to a page, not one that loads a part of it: only then does an SPA's index stand in. */
export function isNavigation({ headers, path, method }: Exchange): boolean {
  if (method !== 'GET' && method !== 'HEAD') return false
  const mode = fieldValue(headers, 'sec-fetch-mode')
  if (mode !== undefined) return mode === 'navigate'
  return !/\.[A-Za-z0-9]+$/.test(path) && (fieldValue(headers, 'accept') ?? '*/*').match(/text\/html|\*\/\*/) !== null
}

/** Dotfiles are nobody's business, but for what RFC 8615 puts below /.well-known/. */
export const isServable = (name: string): boolean => !name.replace(/^\/\.well-known\//, '/').includes('/.')

/** The media type of a file's ending, such as '.js'. */
export const toAssetType = (ending: string): string => lookup(ending) ?? 'application/octet-stream'

/** Content-Type and Cache-Control of a file. `name` is its path below the folder. */
export function toAssetHeaders(files: CompiledFiles, name: string, type: string): string[] {
  const text = /^text\/|^application\/(javascript|json|manifest\+json|xml)|\+xml$/.test(type)
  return ['Content-Type', text ? `${type}; charset=utf-8` : type, 'Cache-Control', toCacheControl(files, name)]
}

/** Whether the client has this file already (RFC 9110 §13.1.2: compared weakly). */
export const isFresh = (ifNoneMatch: string | undefined, etag: string): boolean =>
  ifNoneMatch !== undefined &&
  (ifNoneMatch.trim() === '*' || ifNoneMatch.split(',').some((tag) => toStrong(tag.trim()) === toStrong(etag)))

const toStrong = (tag: string): string => tag.replace(/^W\//, '')

/** index.html and what the table names are never kept, what never changes is kept a year, all else is asked for again. */
function toCacheControl({ noStore, immutable }: CompiledFiles, name: string): string {
  if (noStore.has(name.slice(1)) || name.endsWith('/index.html')) return 'no-cache, no-store, must-revalidate'
  return immutable.has(name.slice(name.lastIndexOf('.') + 1)) ? 'public, max-age=31536000, immutable' : 'no-cache'
}
