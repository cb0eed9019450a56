import { createLocalJWKSet, decodeProtectedHeader, errors, importSPKI, jwtVerify } from 'jose'
import type { CryptoKey, JWTVerifyGetKey } from 'jose'
import { toIdentity } from './identity.ts'
import type { Identity } from './identity.ts'
import { createKeySet, isStrongKey } from './key-set.ts'
import type { Keys } from './key-set.ts'
import { limits } from './limits.ts'
import type { Facts } from './runtime.ts'
import type { Algorithm, Key } from './table.ts'

/** What became of a token. 'unavailable': the keys could not be had, so nobody knows. */
export type TokenVerdict =
  | { outcome: 'verified'; identity: Identity }
  | { outcome: 'refused'; reason: string }
  | { outcome: 'unavailable' }

export interface Verifier {
  /** 'cowrite/access'. */
  id: string
  /** Verifies a token's text; at once when it was verified before. */
  verify(token: string, facts: Facts): TokenVerdict | Promise<TokenVerdict>
}

/**
 * Verifies tokens of one key (RFC 7519, RFC 8725). A verified token is remembered until it expires, so that a signature
 * is paid once. Only text in canonical base64url reaches the memory, so one token has one spelling.
 */
export function createVerifier(id: string, key: Key): Verifier {
  const remembered = new Map<string, Remembered>()
  const tolerance = key.clockToleranceSeconds ?? 30
  let made: Keys | undefined

  function verify(token: string, facts: Facts): TokenVerdict | Promise<TokenVerdict> {
    made ??= createKeys(key, facts)
    const keys = made
    const known = remembered.get(token)
    if (known) {
      const now = facts.now() / 1_000
      if (known.identity.expiresAt + tolerance > now && known.notBefore - tolerance <= now)
        return recall(token, known, keys, facts)
      remembered.delete(token)
    }
    if (!isCanonicalToken(token)) return refused('the token is malformed')
    return verifySignature(token, keys, facts)
  }

  /** A remembered token is good as long as the keys are those that it was verified with. */
  function recall(token: string, known: Remembered, keys: Keys, facts: Facts): TokenVerdict | Promise<TokenVerdict> {
    const generation = keys.generation()
    if (generation instanceof Promise)
      return generation.then((settled) => (settled === known.generation ? known.verdict : forget(token, keys, facts)))
    return generation === known.generation ? known.verdict : forget(token, keys, facts)
  }

  function forget(token: string, keys: Keys, facts: Facts): Promise<TokenVerdict> {
    remembered.delete(token)
    return verifySignature(token, keys, facts)
  }

  async function verifySignature(token: string, keys: Keys, facts: Facts): Promise<TokenVerdict> {
    try {
      const { payload } = await jwtVerify(token, keys.get, {
        algorithms: key.algorithms,
        issuer: key.issuer,
        audience: key.audience,
        requiredClaims: ['exp', ...(key.requiredClaims ?? [])],
        clockTolerance: tolerance,
        currentDate: new Date(facts.now()),
      })
      const { exp = Number.NaN, nbf = 0, sub = '' } = payload
      if (!Number.isFinite(exp) || !Number.isFinite(nbf)) return refused('the token has a time that is no number')
      if (typeof sub !== 'string' || !sub.isWellFormed()) return refused('the token has a subject that is no text')
      const unwanted = Object.entries(key.refusedClaims ?? {}).find(([name, values]) => hasValue(payload[name], values))
      if (unwanted) return refused(`the claim '${unwanted[0]}' says that it is for something else`)
      const identity = toIdentity(payload, exp)
      const verdict: TokenVerdict = { outcome: 'verified', identity }
      const generation = await keys.generation()
      if (generation !== undefined) remember(token, { identity, verdict, notBefore: nbf, generation })
      return verdict
    } catch (error) {
      return toVerdict(error)
    }
  }

  function remember(token: string, entry: Remembered): void {
    const oldest = remembered.size >= limits.rememberedTokensMax ? remembered.keys().next().value : undefined
    if (oldest !== undefined) remembered.delete(oldest)
    remembered.set(token, entry)
  }

  return { id, verify }
}

const hasValue = (claim: unknown, values: string | string[]): boolean =>
  [claim].flat().some((value) => value !== undefined && [values].flat().includes(String(value)))

interface Remembered {
  identity: Identity
  verdict: TokenVerdict
  notBefore: number
  /** Of the keys that it was verified with. */
  generation: number
}

/** Why a key cannot be used; all reasons. */
export async function findKeyFaults(key: Key): Promise<{ at: string; problem: string; fix: string }[]> {
  const faults: { at: string; problem: string; fix: string }[] = []
  const given = (['secret', 'publicKey', 'jwks'] as const).filter((name) => key[name] !== undefined)
  if (given.length !== 1)
    faults.push({
      at: '',
      problem: given.length === 0 ? 'has nothing to verify with' : `has ${given.join(' and ')}`,
      fix: "give it exactly one of 'secret', 'publicKey' and 'jwks'",
    })
  const symmetric = key.algorithms.filter(isSymmetric)
  if (symmetric.length > 0 && symmetric.length < key.algorithms.length)
    faults.push({
      at: 'algorithms',
      problem: `mixes secrets (${symmetric.join(', ')}) and public keys (${key.algorithms.filter((name) => !isSymmetric(name)).join(', ')})`,
      fix: 'a public key is no secret: make two keys',
    })
  else if (given.length === 1 && (given[0] === 'secret') !== symmetric.length > 0)
    faults.push({
      at: 'algorithms',
      problem: `${key.algorithms.join(', ')} cannot be verified with a '${given[0]}'`,
      fix: given[0] === 'secret' ? 'write HS256' : 'write RS256, ES256 or EdDSA',
    })
  const secret = key.secret === undefined ? undefined : findSecretFault(key.secret)
  if (secret) faults.push({ at: 'secret', ...secret })
  if (key.publicKey !== undefined && faults.length === 0)
    faults.push(...(await findPublicKeyFaults(key.publicKey, key.algorithms)))
  return faults
}

/** Why a secret is none: too short (RFC 7518 §3.2 for HS256), too uniform, or printed somewhere for everyone to read. */
export function findSecretFault(secret: string): { problem: string; fix: string } | undefined {
  const fix = "make one with 'openssl rand -base64 48'"
  const bytes = new TextEncoder().encode(secret).length
  if (isPublished(secret)) return { problem: 'is a published example', fix }
  if (bytes < 32) return { problem: `has ${bytes} bytes; 32 are needed`, fix }
  if (isPattern(secret)) return { problem: 'follows a simple pattern', fix }
  return undefined
}

/** Few characters, one text again and again, or mostly neighbours such as 'abc' and '321'. */
function isPattern(secret: string): boolean {
  const codes = [...secret].map((character) => character.codePointAt(0) ?? 0)
  const neighbours = codes.filter((code, index) => Math.abs(code - (codes[index - 1] ?? 0)) === 1).length
  return new Set(codes).size < 8 || /^(.+?)\1+$/s.test(secret) || neighbours > codes.length / 2
}

/** Secrets that stand in documents, templates and tutorials, and what follows their pattern. */
const isPublished = (secret: string): boolean =>
  /(change|replace)[-_ ]?(me|this|it)(?![a-z])|^your[-_ ]|[-_ ]your[-_ ](super|very|jwt|secret|secure|own|key)|django-insecure|super[-_ ]?secret|a-string-secret-at-least|09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7/i.test(
    secret,
  ) || /^(secret|password|example|test|postgres|admin)([-_ ]?key)?\d*$/i.test(secret)

const isSymmetric = (algorithm: Algorithm): boolean => algorithm.startsWith('HS')

async function findPublicKeyFaults(
  pem: string,
  algorithms: Algorithm[],
): Promise<{ at: string; problem: string; fix: string }[]> {
  const fix = 'give the public key of the signer as PEM (SPKI); RSA with at least 2048 bits and the exponent 65537'
  const faults = await Promise.all(
    algorithms.map(async (algorithm) => {
      const key = await importSPKI(pem, algorithm).catch(() => undefined)
      if (!key) return [{ at: 'publicKey', problem: `is no key for ${algorithm}`, fix }]
      return isStrongKey(key) ? [] : [{ at: 'publicKey', problem: 'is too weak', fix }]
    }),
  )
  return faults.flat()
}

function createKeys(key: Key, facts: Facts): Keys {
  if (key.jwks !== undefined) return createKeySet(key.jwks, facts, (jwks) => createLocalJWKSet(jwks))
  return { get: createGivenKey(key), generation: () => 0 }
}

function createGivenKey(key: Key): JWTVerifyGetKey {
  if (key.secret !== undefined) {
    const bytes = new TextEncoder().encode(key.secret)
    return () => bytes
  }
  const imported = new Map<string, Promise<CryptoKey>>()
  return ({ alg = '' }) => {
    const made = imported.get(alg) ?? importSPKI(key.publicKey ?? '', alg)
    imported.set(alg, made)
    return made
  }
}

const refused = (reason: string): TokenVerdict => ({ outcome: 'refused', reason })

/** What jose says in words that name no part of the token. */
function toVerdict(error: unknown): TokenVerdict {
  if (error instanceof errors.JWTExpired) return refused('the token has expired')
  if (error instanceof errors.JWTClaimValidationFailed)
    return refused(`the claim '${error.claim}' is not what it must be`)
  if (error instanceof errors.JWSSignatureVerificationFailed) return refused('the signature is not ours')
  if (error instanceof errors.JOSEAlgNotAllowed) return refused('the algorithm is not accepted')
  if (error instanceof errors.JWKSNoMatchingKey) return refused('no key has signed this')
  if (error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout))
    return refused('the token is malformed')
  return { outcome: 'unavailable' }
}

/** Three parts of base64url without padding (RFC 7515 §7.1), none of which could be written another way. */
function isCanonicalToken(token: string): boolean {
  if (token.length > limits.tokenBytesMax || !/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/.test(token))
    return false
  return token.split('.').every(isCanonicalBase64Url) && hasPlainHeader(token)
}

function isCanonicalBase64Url(part: string): boolean {
  const left = part.length % 4
  if (left === 0) return true
  const last = BASE64URL.indexOf(part.at(-1) ?? '')
  return left !== 1 && (left === 2 ? (last & 15) === 0 : (last & 3) === 0)
}

const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

function hasPlainHeader(token: string): boolean {
  try {
    const header = decodeProtectedHeader(token)
    return header.b64 !== false && header.zip === undefined
  } catch {
    return false
  }
}
