import { errors } from 'jose'
import type { CryptoKey, FlattenedJWSInput, JSONWebKeySet, JWK, JWTVerifyGetKey } from 'jose'
import { limits } from './limits.ts'
import type { Facts } from './runtime.ts'
import { isRecord } from './shape.ts'

/** Where a verifier finds its keys. */
export interface Keys {
  get: JWTVerifyGetKey
  /** Which keys hold now; what was verified with others must be verified again. undefined: none can be had. */
  generation(): number | Promise<number | undefined>
}

/**
 * Keys from a URL (RFC 7517), fetched when needed and kept: fresh for `jwksFreshMs`, used up to `jwksStaleMs` while the
 * server does not answer, then no key is had and tokens are neither accepted nor refused. A key id that is not in
 * the set causes one more fetch per `jwksCoolDownMs`, however many tokens name it.
 */
export function createKeySet(url: string, facts: Facts, toLookUp: (jwks: JSONWebKeySet) => JWTVerifyGetKey): Keys {
  let current: { look: JWTVerifyGetKey; text: string; generation: number; fetchedAt: number } | undefined
  let triedAt = Number.NEGATIVE_INFINITY
  let fetching: Promise<void> | undefined

  async function refresh(): Promise<void> {
    const text = await facts.fetchText(url, { timeoutMs: limits.jwksTimeoutMs, bytesMax: limits.jwksBytesMax })
    const fetchedAt = facts.monotonic()
    if (text === current?.text) current.fetchedAt = fetchedAt
    else current = { look: toLookUp(readKeySet(text)), text, generation: (current?.generation ?? 0) + 1, fetchedAt }
  }

  /** Never rejects: whether it went well shows in `current`. */
  function refreshOnce(): Promise<void> {
    if (fetching && sinceTry() <= limits.jwksTimeoutMs) return fetching
    triedAt = facts.monotonic()
    const started = refresh()
      .catch(ignore)
      .finally(() => {
        if (fetching === started) fetching = undefined
      })
    fetching = started
    return started
  }

  const sinceTry = (): number => facts.monotonic() - triedAt
  const age = (): number => (current ? facts.monotonic() - current.fetchedAt : Number.POSITIVE_INFINITY)
  const isUsable = (): boolean => age() <= limits.jwksStaleMs
  const mayFetch = (): boolean => sinceTry() >= (isUsable() ? limits.jwksCoolDownMs : limits.jwksRetryMs)

  /** What must be waited for: the one that asks for newer keys waits; the others wait only when there are none. */
  function whenReady(): Promise<void> | undefined {
    if (age() <= limits.jwksFreshMs) return undefined
    return mayFetch() || (fetching && !isUsable()) ? refreshOnce() : undefined
  }

  const generationNow = (): number | undefined => (isUsable() ? current?.generation : undefined)

  async function get(header: Parameters<JWTVerifyGetKey>[0], token: FlattenedJWSInput): Promise<CryptoKey> {
    await whenReady()
    if (!current || !isUsable()) throw new Error('no key set')
    const found = await lookUp(current.look, header, token)
    if (found) return found
    if (!fetching && !mayFetch()) throw new errors.JWKSNoMatchingKey()
    await refreshOnce()
    const again = await lookUp(current.look, header, token)
    if (!again) throw new errors.JWKSNoMatchingKey()
    return again
  }

  return {
    get,
    generation: () => {
      const ready = whenReady()
      const generation = generationNow()
      if (!ready && generation !== undefined) return generation
      return Promise.resolve(ready).then(generationNow)
    },
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
