import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'
import type { CryptoKey, JWTHeaderParameters, JWTPayload } from 'jose'
import type { Environment } from '#edge/variables.ts'

type KeyName = 'HS256' | 'RS256' | 'ES256' | 'EdDSA'

/** Keys of this run, and what signs with them. */
export interface Tokens {
  /** What the tables need. */
  environment: Environment
  keySet: unknown
  secret: string
  rsaPem: string
  edgeSecret: string
  sign(key: KeyName, claims?: JWTPayload, header?: Partial<JWTHeaderParameters>): Promise<string>
  /** Three parts, the last empty or `signature`. */
  forge(header: object, claims: object, signature?: string): string
}

export async function createTokens(): Promise<Tokens> {
  const secret = `${crypto.randomUUID()}${crypto.randomUUID()}`
  const edgeSecret = `${crypto.randomUUID()}${crypto.randomUUID()}`
  const algorithms = ['RS256', 'ES256', 'EdDSA'] as const
  const pairs = await Promise.all(algorithms.map((name) => generateKeyPair(name, { extractable: true })))
  const [rsaPem = '', ecPem = '', edPem = ''] = await Promise.all(pairs.map(({ publicKey }) => exportSPKI(publicKey)))
  const jwks = await Promise.all(
    pairs.map(async ({ publicKey }, index) => ({
      ...(await exportJWK(publicKey)),
      kid: algorithms[index],
      use: 'sig',
    })),
  )
  const privateKeys: Record<KeyName, CryptoKey | Uint8Array> = {
    HS256: new TextEncoder().encode(secret),
    ...(Object.fromEntries(algorithms.map((name, index) => [name, pairs[index]?.privateKey])) as Record<
      (typeof algorithms)[number],
      CryptoKey
    >),
  }

  const sign: Tokens['sign'] = (key, claims = {}, header = {}) =>
    new SignJWT(toClaims(claims)).setProtectedHeader({ alg: key, ...header }).sign(privateKeys[key])

  const forge: Tokens['forge'] = (header, claims, signature = '') =>
    `${toPart(header)}.${toPart(toClaims(claims))}.${signature}`

  return {
    environment: { SECRET: secret, RSA_PEM: rsaPem, EC_PEM: ecPem, ED_PEM: edPem, EDGE_SECRET: edgeSecret },
    keySet: { keys: jwks },
    secret,
    rsaPem,
    edgeSecret,
    sign,
    forge,
  }
}

const soon = (): number => Math.floor(Date.now() / 1_000) + 600

/** Of somebody, for a while; undefined takes a claim away. */
const toClaims = (claims: object): JWTPayload =>
  JSON.parse(JSON.stringify({ sub: 'mira', iss: 'https://id.example', aud: 'shop', exp: soon(), ...claims }))

export const toPart = (data: object): string => Buffer.from(JSON.stringify(data)).toString('base64url')
