import { generateKeyPairSync } from 'node:crypto'
import { base64url, CompactSign, exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { readIdentityClaims } from '#edge/identity.ts'
import { limits } from '#edge/limits.ts'
import type { Facts } from '#edge/runtime.ts'
import type { Key } from '#edge/table.ts'
import { createVerifier, findSecretFault } from '#edge/token.ts'
import type { TokenVerdict, Verifier } from '#edge/token.ts'

const start = Date.UTC(2026, 0, 1)
const seconds = start / 1_000
const secret = 'g0VN7Xl2kq9Lw4TzYb8EhRs1MfUcJp6D'
const bytes = new TextEncoder().encode(secret)
const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 })
const pem = rsa.publicKey.export({ type: 'spki', format: 'pem' }).toString()

/** A clock that a test moves, and nothing else of the world. */
function createWorld() {
  const world = { now: start }
  const facts: Facts = {
    clientAddress: () => {
      throw new Error('nobody asks')
    },
    isEdge: false,
    limiter: { take: () => ({ outcome: 'allowed', remaining: 1, resetAt: 0 }) },
    fetchText: () => Promise.reject(new Error('there is no network here')),
    now: () => world.now,
    monotonic: () => world.now,
    randomId: () => 'id',
  }
  return { world, facts }
}

const { facts } = createWorld()
const claims = { sub: 'ada', exp: seconds + 3_600 }

const sign = (content: object, header: object = {}): Promise<string> =>
  new CompactSign(toJson(content)).setProtectedHeader({ alg: 'HS256', ...header }).sign(bytes)
const toJson = (data: unknown): Uint8Array =>
  new TextEncoder().encode(typeof data === 'string' ? data : JSON.stringify(data))
const part = (data: unknown): string => base64url.encode(toJson(data))

/** Signs exactly this text: what no library would write. */
async function signText(head: string, content: string, key: Uint8Array | string = bytes): Promise<string> {
  const input = `${base64url.encode(head)}.${base64url.encode(content)}`
  const hmac = await crypto.subtle.importKey(
    'raw',
    new Uint8Array(typeof key === 'string' ? toJson(key) : key),
    { name: 'HMAC', hash: 'SHA-256' },
    false,
    ['sign'],
  )
  return `${input}.${base64url.encode(new Uint8Array(await crypto.subtle.sign('HMAC', hmac, new Uint8Array(toJson(input)))))}`
}

const verifierOf = (key: Partial<Key> = {}): Verifier =>
  createVerifier('shop/access', { secret, algorithms: ['HS256'], ...key } as Key)
const publicOnly = { secret: undefined, publicKey: pem, algorithms: ['RS256'] } satisfies Partial<Key>

async function reasonOf(token: string, verifier = verifierOf()): Promise<string> {
  const verdict = await verifier.verify(token, facts)
  return verdict.outcome === 'refused' ? verdict.reason : verdict.outcome
}

/** The signatures that were really checked. */
function countSignatures(): () => number {
  const spy = vi.spyOn(crypto.subtle, 'verify')
  return () => spy.mock.calls.length
}

afterEach(() => vi.restoreAllMocks())

describe('a good token', () => {
  it('is verified, and its claims become the identity', async () => {
    const verdict = await verifierOf().verify(await sign({ ...claims, name: 'Ada Ł' }), facts)
    if (verdict.outcome !== 'verified') throw new Error(verdict.outcome)
    expect(verdict.identity.subject).toBe('ada')
    expect(verdict.identity.expiresAt).toBe(claims.exp)
    expect(verdict.identity.fields.slice(0, 3)).toEqual(['x-user-id', 'ada', 'x-user-claims'])
    expect(readIdentityClaims(verdict.identity.fields[3])).toEqual({ ...claims, name: 'Ada Ł' })
  })

  it.each(['RS256', 'ES256', 'EdDSA'] as const)('is verified with the public key of %s', async (algorithm) => {
    const pair = await generateKeyPair(algorithm, { extractable: true })
    const spki = Buffer.from(await crypto.subtle.exportKey('spki', pair.publicKey)).toString('base64')
    const publicKey = `-----BEGIN PUBLIC KEY-----\n${spki}\n-----END PUBLIC KEY-----\n`
    const token = await new SignJWT(claims).setProtectedHeader({ alg: algorithm }).sign(pair.privateKey)
    expect(await reasonOf(token, verifierOf({ secret: undefined, publicKey, algorithms: [algorithm] }))).toBe(
      'verified',
    )
  })

  it('says its subject in visible ASCII whatever it is', async () => {
    const verdict = await verifierOf().verify(await sign({ ...claims, sub: 'ä\r\nx-user-id: root' }), facts)
    expect(verdict.outcome === 'verified' && verdict.identity.fields[1]).toBe('%C3%A4%0D%0Ax-user-id%3A%20root')
  })

  it('has one of several issuers and audiences', async () => {
    const verifier = verifierOf({ issuer: ['https://a.example', 'https://b.example'], audience: ['shop', 'api'] })
    const good = { ...claims, iss: 'https://b.example', aud: ['other', 'api'] }
    expect(await reasonOf(await sign(good), verifier)).toBe('verified')
    expect(await reasonOf(await sign({ ...good, iss: 'https://c.example' }), verifier)).toBe(
      "the claim 'iss' is not what it must be",
    )
    expect(await reasonOf(await sign({ ...good, iss: ['https://a.example'] }), verifier)).toBe(
      "the claim 'iss' is not what it must be",
    )
    expect(await reasonOf(await sign({ ...good, aud: 'other' }), verifier)).toBe(
      "the claim 'aud' is not what it must be",
    )
    expect(await reasonOf(await sign({ ...claims, iss: good.iss }), verifier)).toBe(
      "the claim 'aud' is not what it must be",
    )
    expect(await reasonOf(await sign({ ...claims, aud: good.aud }), verifier)).toBe(
      "the claim 'iss' is not what it must be",
    )
  })

  it('carries the claims that the key requires, whatever their value', async () => {
    const verifier = verifierOf({ requiredClaims: ['tenant'] })
    expect(await reasonOf(await sign({ ...claims, tenant: null }), verifier)).toBe('verified')
    expect(await reasonOf(await sign(claims), verifier)).toBe("the claim 'tenant' is not what it must be")
  })
})

const good = await sign({ ...claims, n: 12 })
const [header = '', payload = '', signature = ''] = good.split('.')
const attacker = await generateKeyPair('RS256', { extractable: true })
const attackerJwk = await exportJWK(attacker.publicKey)
const now = seconds
const byAttacker = (extra: object): Promise<string> =>
  new SignJWT(claims).setProtectedHeader({ alg: 'RS256', ...extra }).sign(attacker.privateKey)

describe('a token is refused', () => {
  const malformed = 'the token is malformed'
  const algorithm = 'the algorithm is not accepted'
  const forged = 'the signature is not ours'
  const cases: [name: string, token: string | Promise<string>, reason: string, key?: Partial<Key>][] = [
    ['without a signature (alg none)', `${new UnsecuredJWT(claims).encode()}`, malformed],
    ...['none', 'None', 'nOnE', 'NONE'].flatMap((alg): typeof cases => [
      [`with alg ${alg} and the signature of another`, `${part({ alg })}.${payload}.${signature}`, algorithm],
      [
        `with alg ${alg} and any signature, for a public key`,
        `${part({ alg })}.${payload}.AAAA`,
        algorithm,
        publicOnly,
      ],
    ]),
    [
      'with alg HS256 and the public key as its secret',
      signText('{"alg":"HS256"}', JSON.stringify(claims), pem),
      algorithm,
      publicOnly,
    ],
    ['with alg RS256 for a secret', byAttacker({}), algorithm],
    ['with an algorithm that is none of its list', sign(claims, { alg: 'HS384' }), algorithm],
    ['that brings its own key (jwk)', byAttacker({ jwk: attackerJwk }), forged, publicOnly],
    ['that names its own key set (jku)', byAttacker({ jku: 'https://evil.example/jwks' }), forged, publicOnly],
    ['that names its own certificate (x5u)', byAttacker({ x5u: 'https://evil.example/crt' }), forged, publicOnly],
    ['that brings its own certificate (x5c)', byAttacker({ x5c: ['AAAA'] }), forged, publicOnly],
    [
      'whose kid is a path',
      signText('{"alg":"HS256","kid":"../../../../dev/null"}', JSON.stringify(claims), new Uint8Array(1)),
      forged,
    ],
    ['whose kid is SQL', signText('{"alg":"HS256","kid":"x\' UNION SELECT \'k"}', JSON.stringify(claims), 'k'), forged],
    ['signed with nothing', signText('{"alg":"HS256"}', JSON.stringify(claims), new Uint8Array(1)), forged],
    ['signed with another secret', signText('{"alg":"HS256"}', JSON.stringify(claims), secret.toLowerCase()), forged],
    ['with an empty signature', `${header}.${payload}.`, malformed],
    ['with a signature of zeros', `${header}.${payload}.${'A'.repeat(43)}`, forged],
    ['with half its signature', `${header}.${payload}.${signature.slice(0, 20)}`, forged],
    ['whose payload was changed', `${header}.${part({ ...claims, sub: 'root' })}.${signature}`, forged],
    ['whose exp is text', sign({ ...claims, exp: String(claims.exp) }), "the claim 'exp' is not what it must be"],
    [
      'whose exp is 1e400',
      signText('{"alg":"HS256"}', '{"sub":"ada","exp":1e400}'),
      'the token has a time that is no number',
    ],
    ['whose exp is null', sign({ ...claims, exp: null }), "the claim 'exp' is not what it must be"],
    ['whose exp is a list', sign({ ...claims, exp: [claims.exp] }), "the claim 'exp' is not what it must be"],
    ['without an exp', sign({ sub: 'ada' }), "the claim 'exp' is not what it must be"],
    ['that has expired', sign({ ...claims, exp: now - 31 }), 'the token has expired'],
    ['that is not good yet', sign({ ...claims, nbf: now + 31 }), "the claim 'nbf' is not what it must be"],
    ['whose nbf is text', sign({ ...claims, nbf: '0' }), "the claim 'nbf' is not what it must be"],
    [
      'whose nbf is -1e400',
      signText('{"alg":"HS256"}', `{"sub":"ada","exp":${claims.exp},"nbf":-1e400}`),
      'the token has a time that is no number',
    ],
    ['whose subject is a number', sign({ ...claims, sub: 5 }), 'the token has a subject that is no text'],
    [
      'whose subject is half a character',
      signText('{"alg":"HS256"}', `{"sub":"\\ud800","exp":${claims.exp}}`),
      'the token has a subject that is no text',
    ],
    [
      'with an unknown critical parameter',
      signText('{"alg":"HS256","crit":["x"],"x":1}', JSON.stringify(claims)),
      malformed,
    ],
    [
      'with an empty list of critical parameters',
      signText('{"alg":"HS256","crit":[]}', JSON.stringify(claims)),
      malformed,
    ],
    ['with b64: false', signText('{"alg":"HS256","b64":false,"crit":["b64"]}', JSON.stringify(claims)), malformed],
    ['with a compressed payload', signText('{"alg":"HS256","zip":"DEF"}', JSON.stringify(claims)), malformed],
    ['longer than 8 KiB', sign({ ...claims, pad: 'x'.repeat(8_192) }), malformed],
    ['with a space behind it', `${good} `, malformed],
    ['with a space within', `${header} .${payload}.${signature}`, malformed],
    ['with padding', `${good}=`, malformed],
    ['in the alphabet of base64', `${header}.${payload}.${'+'.repeat(43)}`, malformed],
    ['whose last bits are not zero', `${header}.${payload}.${respell(signature)}`, malformed],
    ['whose payload is respelt', `${header}.${respell(payload)}.${signature}`, malformed],
    ['with a fourth part', `${good}.AAAA`, malformed],
    ['with four dots, as an encrypted one', `${good}.AAAA.AAAA`, malformed],
    ['with two parts', `${header}.${payload}`, malformed],
    ['that is empty', '', malformed],
    ['that is dots', '..', malformed],
    ['whose header is no JSON', `${base64url.encode('{alg')}.${payload}.${signature}`, malformed],
    ['whose header is a list', signText('[]', JSON.stringify(claims)), malformed],
    ['whose header has no alg', signText('{}', JSON.stringify(claims)), malformed],
    ['whose alg is a list', signText('{"alg":["HS256"]}', JSON.stringify(claims)), malformed],
    ['whose payload is no JSON', signText('{"alg":"HS256"}', 'ada'), malformed],
    ['whose payload is a list', signText('{"alg":"HS256"}', '[]'), malformed],
    ['whose payload is null', signText('{"alg":"HS256"}', 'null'), malformed],
    ['with a character of another script', `${header}.${payload}.${signature.slice(0, 42)}Ａ`, malformed],
    ['with a line break', `${header}.${payload}\n.${signature}`, malformed],
  ]

  it.each(cases)('%s', async (_name, token, reason, key) => {
    const text = await token
    expect(await reasonOf(text, verifierOf(key))).toBe(reason)
    // Nothing of a token stands in what is said of it.
    for (const piece of text.split('.').filter((one) => one.length > 8)) expect(reason).not.toContain(piece)
  })

  /** The same bytes, another spelling: the last character's unused bits set. */
  function respell(text: string): string {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const respelt = text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1) ?? '') + 1]
    expect(base64url.decode(respelt)).toEqual(base64url.decode(text))
    return respelt
  }
})

describe('clocks', () => {
  it.each([
    [undefined, 30],
    [0, 0],
    [60, 60],
  ])('may disagree by clockToleranceSeconds: %s', async (clockToleranceSeconds, tolerance) => {
    const verify = async (content: object): Promise<string> =>
      reasonOf(await sign(content), verifierOf({ clockToleranceSeconds }))
    expect(await verify({ ...claims, exp: seconds - tolerance + 1 })).toBe('verified')
    expect(await verify({ ...claims, exp: seconds - tolerance })).toBe('the token has expired')
    expect(await verify({ ...claims, nbf: seconds + tolerance })).toBe('verified')
    expect(await verify({ ...claims, nbf: seconds + tolerance + 1 })).toBe("the claim 'nbf' is not what it must be")
  })
})

describe('a verified token', () => {
  it('is answered at once, and its signature is paid once', async () => {
    const signatures = countSignatures()
    const verifier = verifierOf()
    const token = await sign(claims)
    const first = verifier.verify(token, facts)
    expect(first).toBeInstanceOf(Promise)
    const verdict = await first
    for (let times = 0; times < 100; times++) expect(verifier.verify(token, facts)).toBe(verdict)
    expect(signatures()).toBe(1)
  })

  it('is remembered until it expires, and no longer', async () => {
    const { world, facts: moving } = createWorld()
    const verifier = verifierOf()
    const token = await sign(claims)
    await verifier.verify(token, moving)
    world.now = (claims.exp + 29) * 1_000
    expect(verifier.verify(token, moving)).toMatchObject({ outcome: 'verified' })
    world.now = (claims.exp + 30) * 1_000
    expect(await verifier.verify(token, moving)).toEqual({ outcome: 'refused', reason: 'the token has expired' })
    // What was forgotten stays forgotten, also when the clock is set back.
    const signatures = countSignatures()
    world.now = start
    expect(await verifier.verify(token, moving)).toMatchObject({ outcome: 'verified' })
    expect(signatures()).toBe(1)
  })

  it('is not good before its nbf when the clock is set back', async () => {
    const { world, facts: moving } = createWorld()
    const verifier = verifierOf()
    const token = await sign({ ...claims, nbf: seconds })
    expect(await verifier.verify(token, moving)).toMatchObject({ outcome: 'verified' })
    world.now = start - 31_000
    expect(await verifier.verify(token, moving)).toMatchObject({ outcome: 'refused' })
  })

  it('lends nothing to the same claims with another signature or another spelling', async () => {
    const verifier = verifierOf()
    const token = await sign(claims)
    expect(await verifier.verify(token, facts)).toMatchObject({ outcome: 'verified' })
    const other = token.slice(0, -2) + (token.endsWith('AA') ? 'BA' : 'AA')
    for (const text of [other, `${token}=`, `${token} `, ` ${token}`, token.replaceAll('.', '..'), `${token}A`])
      expect(await verifier.verify(text, facts)).toMatchObject({ outcome: 'refused' })
  })

  it('lends nothing to the same token under another key', async () => {
    const token = await sign(claims)
    expect(await reasonOf(token, verifierOf())).toBe('verified')
    expect(await reasonOf(token, verifierOf({ secret: secret.toLowerCase() }))).toBe('the signature is not ours')
    expect(await reasonOf(token, verifierOf({ audience: 'shop' }))).toBe("the claim 'aud' is not what it must be")
  })

  it('is one of a bounded number: the first is forgotten first', async () => {
    const verifier = verifierOf()
    const first = await sign({ ...claims, n: 0 })
    await verifier.verify(first, facts)
    const others = await Promise.all(
      Array.from({ length: limits.rememberedTokensMax - 1 }, (_, n) => sign({ ...claims, n: n + 1 })),
    )
    for (const token of others) await verifier.verify(token, facts)
    expect(isAtOnce(verifier.verify(first, facts))).toBe(true)
    await verifier.verify(await sign({ ...claims, n: -1 }), facts)
    expect(isAtOnce(verifier.verify(others.at(-1) ?? '', facts))).toBe(true)
    expect(isAtOnce(verifier.verify(first, facts))).toBe(false)
  })

  it('is remembered only when it was good', async () => {
    const signatures = countSignatures()
    const verifier = verifierOf()
    const token = await signText('{"alg":"HS256"}', JSON.stringify(claims), 'another secret')
    for (let times = 0; times < 3; times++)
      expect(await verifier.verify(token, facts)).toMatchObject({ outcome: 'refused' })
    expect(signatures()).toBe(3)
  })

  const isAtOnce = (verdict: TokenVerdict | Promise<TokenVerdict>): boolean => !(verdict instanceof Promise)
})

describe('a secret', () => {
  it('is at least 32 bytes, however many characters that is', () => {
    expect(findSecretFault('ключ-из-букв-0123')).toEqual({
      problem: 'has 27 bytes; 32 are needed',
      fix: "make one with 'openssl rand -base64 48'",
    })
    expect(findSecretFault(secret)).toBeUndefined()
  })
})
