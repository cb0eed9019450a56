import { errors } from 'jose'
import type { CryptoKey, FlattenedJWSInput, JSONWebKeySet, JWK, JWTVerifyGetKey } from 'jose'
import { limits } from './limits.ts'
import type { Facts } from './runtime.ts'
import { isRecord } from './shape.ts'

/**
 * Keys from a URL (RFC 7517), fetched when needed and kept: fresh for `jwksFreshMs`, used up to `jwksStaleMs` while the
 * server does not answer, then no key is had and tokens are neither accepted nor refused. A key id that is not in
 * the set causes one more fetch per `jwksCoolDownMs`, however many tokens name it.
 */
export function createKeySet(
  url: string,
  facts: Facts,
  toLookUp: (jwks: JSONWebKeySet) => JWTVerifyGetKey,
): JWTVerifyGetKey {
  let current: { look: JWTVerifyGetKey; fetchedAt: number } | undefined
  let triedAt = Number.NEGATIVE_INFINITY
  let fetching: Promise<void> | undefined

  async function refresh(): Promise<void> {
    triedAt = facts.now()
    const text = await facts.fetchText(url, { timeoutMs: limits.jwksTimeoutMs, bytesMax: limits.jwksBytesMax })
    current = { look: toLookUp(readKeySet(text)), fetchedAt: facts.now() }
  }

  function refreshOnce(): Promise<void> {
    fetching ??= refresh().finally(() => {
      fetching = undefined
    })
    return fetching
  }

  const age = (): number => (current ? facts.now() - current.fetchedAt : Number.POSITIVE_INFINITY)
  const mayFetch = (): boolean => facts.now() - triedAt >= (current ? limits.jwksCoolDownMs : limits.jwksRetryMs)

  return async (header: Parameters<JWTVerifyGetKey>[0], token: FlattenedJWSInput) => {
    if (age() > limits.jwksFreshMs && (fetching || mayFetch())) await refreshOnce().catch(ignore)
    if (!current || age() > limits.jwksStaleMs) throw new Error('no key set')
    const found = await lookUp(current.look, header, token)
    if (found) return found
    if (!mayFetch()) throw new errors.JWKSNoMatchingKey()
    await refreshOnce().catch(ignore)
    const again = await lookUp(current.look, header, token)
    if (!again) throw new errors.JWKSNoMatchingKey()
    return again
  }
}

/** RSA keys below 2048 bits or with an exponent other than 65537 sign nothing we accept. */
export function isStrongKey(key: CryptoKey): boolean {
  const { modulusLength, publicExponent } = key.algorithm as { modulusLength?: number; publicExponent?: Uint8Array }
  if (modulusLength === undefined) return true
  return modulusLength >= 2_048 && publicExponent !== undefined && [...publicExponent].join() === '1,0,1'
}

async function lookUp(
  look: JWTVerifyGetKey,
  header: Parameters<JWTVerifyGetKey>[0],
  token: FlattenedJWSInput,
): Promise<CryptoKey | undefined> {
  try {
    const key = (await look(header, token)) as CryptoKey
    return isStrongKey(key) ? key : undefined
  } catch (error) {
    if (error instanceof errors.JWKSNoMatchingKey) return undefined
    throw error
  }
}

function readKeySet(text: string): JSONWebKeySet {
  const data: unknown = JSON.parse(text)
  if (!isRecord(data) || !Array.isArray(data['keys'])) throw new TypeError('not a key set')
  const keys = data['keys'].filter(
    (key: unknown): key is JWK => isRecord(key) && typeof key['kty'] === 'string' && key['kty'] !== 'oct',
  )
  return { keys: keys.slice(0, limits.jwksKeysMax) }
}

const ignore = (): void => {}
