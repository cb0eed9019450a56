import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { limits } from '../limits.ts'
import { chooseCoding, isCompressible } from './encoding.ts'
import type { Coding } from './encoding.ts'

/** Ties go to what costs least for what it saves, while somebody waits. */
const codings: Coding[] = ['zstd', 'br', 'gzip', 'identity']

/** What told of the bytes that the upstream sent, and would be wrong of those that are sent instead. */
const ofTheBytes = new Set([
  'content-length',
  'accept-ranges',
  'content-md5',
  'digest',
  'content-digest',
  'repr-digest',
])

/**
 * An upstream's answer as it is compressed for this client: which coding, and the fields then. Left alone: what is
 * encoded, partial, short, empty, no text, events, or not to be transformed (RFC 9110 §7.7).
 */
export function toCompressed(
  exchange: Exchange,
  status: number,
  headers: string[],
): { coding: Exclude<Coding, 'identity'> | undefined; headers: string[] } {
  if (!mayBeCompressed(exchange, status, headers)) return { coding: undefined, headers }
  const coding = toCoding(exchange)
  const compresses = coding !== undefined && coding !== 'identity' && exchange.method !== 'HEAD'
  const sent: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] ?? '').toLowerCase()
    const value = headers[i + 1] ?? ''
    if (name === 'vary' || (compresses && (ofTheBytes.has(name) || name === 'content-encoding'))) continue
    // Other bytes than the upstream's, though they mean the same (RFC 9110 §8.8.1).
    const isStrongTag = compresses && name === 'etag' && !value.startsWith('W/')
    sent.push(headers[i] ?? '', isStrongTag ? `W/${value}` : value)
  }
  sent.push('Vary', withEncoding(fieldValue(headers, 'vary')))
  if (compresses) sent.push('Content-Encoding', coding)
  return { coding: compresses ? coding : undefined, headers: sent }
}

/** What this client's texts are compressed with; undefined: it takes none of the codings there are. */
export const toCoding = (exchange: Exchange): Coding | undefined =>
  chooseCoding(fieldValue(exchange.headers, 'accept-encoding'), codings)

function mayBeCompressed(exchange: Exchange, status: number, headers: string[]): boolean {
  if (status === 204 || status === 205 || status === 206 || status === 304) return false
  if (!isCompressible(fieldValue(headers, 'content-type') ?? '')) return false
  if (Number(fieldValue(headers, 'content-length') ?? Infinity) < limits.compressBytesMin) return false
  if ((fieldValue(headers, 'content-encoding') ?? 'identity').trim().toLowerCase() !== 'identity') return false
  return !isUntouchable(headers) && !isUntouchable(exchange.headers)
}

const isUntouchable = (headers: string[]): boolean =>
  /(^|[\s,])no-transform($|[\s,])/i.test(fieldValue(headers, 'cache-control') ?? '')

const withEncoding = (vary: string | undefined): string => {
  if (vary === undefined || vary.trim() === '') return 'Accept-Encoding'
  return /(^|[\s,])(accept-encoding|\*)($|[\s,])/i.test(vary) ? vary : `${vary}, Accept-Encoding`
}
