import { readAddress } from './address.ts'
import type { Address } from './address.ts'
import type { Exchange } from './exchange.ts'
import { limits } from './limits.ts'

/**
 * What the edge says of a request to the VM behind it: `x-daemun-edge: time=…; client=…; scheme=…; signature=…`, an
 * HMAC-SHA-256 (RFC 2104) over method, host, path with query, time, client and scheme, one a line.
 */
export const edgeField = 'X-Daemun-Edge'

/** What of a request is signed. */
export type SignedExchange = Pick<Exchange, 'method' | 'authority' | 'path' | 'query' | 'client' | 'scheme'>

/** The field's value for a request that the edge passes on. */
export async function signEdge(secret: string, exchange: SignedExchange, now: number): Promise<string> {
  const signature = await crypto.subtle.sign(
    'HMAC',
    await importSecret(secret),
    toMessage(exchange, String(now), exchange.client.text, exchange.scheme),
  )
  return `time=${now}; client=${exchange.client.text}; scheme=${exchange.scheme}; signature=${toHex(signature)}`
}

/** Who the client is, when the request carries a good signature that is at most a minute old or early. */
export async function verifyEdge(
  secret: string,
  exchange: Exchange,
  now: number,
): Promise<{ address: Address; scheme: 'http' | 'https' } | undefined> {
  const parts = /^time=(\d{1,15}); client=([0-9a-f.:]{2,45}); scheme=(https?); signature=([0-9a-f]{64})$/.exec(
    exchange.edgeSignature ?? '',
  )
  if (!parts) return undefined
  const [, time = '', client = '', scheme = '', signature = ''] = parts
  const address = readAddress(client)
  if (!address || Math.abs(now - Number(time)) > limits.edgeSignatureSkewMs) return undefined
  // subtle.verify compares in constant time.
  const good = await crypto.subtle.verify(
    'HMAC',
    await importSecret(secret),
    fromHex(signature),
    toMessage(exchange, time, client, scheme),
  )
  return good ? { address, scheme: scheme as 'http' | 'https' } : undefined
}

const toMessage = (
  { method, authority, path, query }: SignedExchange,
  time: string,
  client: string,
  scheme: string,
): Uint8Array<ArrayBuffer> =>
  new TextEncoder().encode([method, authority, `${path}${query}`, time, client, scheme].join('\n'))

const imported = new Map<string, Promise<CryptoKey>>()

function importSecret(secret: string): Promise<CryptoKey> {
  const known = imported.get(secret)
  if (known) return known
  const key = crypto.subtle.importKey(
    'raw',
    new TextEncoder().encode(secret),
    { name: 'HMAC', hash: 'SHA-256' },
    false,
    ['sign', 'verify'],
  )
  imported.set(secret, key)
  return key
}

const toHex = (bytes: ArrayBuffer): string =>
  [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, '0')).join('')

const fromHex = (hex: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
