import { randomBytes } from 'node:crypto'
import { exportSPKI, generateKeyPair, SignJWT } from 'jose'

/** The work that every peer does alike: one request, one answer, the same fields added on both ways. */
export const host = 'bench.example'
export const path = '/api/items/42'

/** 126 bytes. */
export const body = JSON.stringify({
  id: 42,
  name: 'a small answer',
  tags: ['one', 'two', 'three'],
  price: 12.5,
  stock: 7,
  note: 'what APIs say many times a day!',
})

/** What every peer adds to the answer, besides a request id. */
export const answerFields = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'SAMEORIGIN',
  'Referrer-Policy': 'strict-origin-when-cross-origin',
} as const

/** A limit that is counted and never reached. */
export const limit = { requests: 1_000_000_000, per: '1 h' } as const

export type Chain = 'bare' | 'ES256' | 'HS256'

/** Who may ask, and what they show: one token for each connection, sent with each of its requests. */
export interface Credentials {
  algorithm: 'ES256' | 'HS256'
  /** PEM (SPKI) or the text of the secret. */
  verifyWith: string
  tokens: string[]
}

export async function createCredentials(algorithm: 'ES256' | 'HS256', count: number): Promise<Credentials> {
  const secret = randomBytes(36).toString('base64url')
  const pair = algorithm === 'ES256' ? await generateKeyPair('ES256', { extractable: true }) : undefined
  const signWith = pair?.privateKey ?? new TextEncoder().encode(secret)
  const sign = (_: unknown, index: number): Promise<string> =>
    new SignJWT({ email: `person-${index}@bench.example`, role: 'user' })
      .setProtectedHeader({ alg: algorithm, typ: 'JWT' })
      .setSubject(`user-${index}`)
      .setIssuedAt()
      .setExpirationTime('1 day')
      .sign(signWith)
  const tokens = await Promise.all(Array.from({ length: count }, sign))
  return { algorithm, verifyWith: pair ? await exportSPKI(pair.publicKey) : secret, tokens }
}

/** The request as bytes, as a client sends it again and again on one connection. */
export const toRequest = (token?: string): string =>
  `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n${token === undefined ? '' : `Authorization: Bearer ${token}\r\n`}\r\n`
