import { generateKeyPairSync } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SignJWT } from 'jose'
import type { JWK } from 'jose'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { limits } from '#edge/limits.ts'
import { createNodeFacts } from '#edge/node/runtime.ts'
import type { Facts } from '#edge/runtime.ts'
import { createVerifier } from '#edge/token.ts'

const start = Date.UTC(2026, 0, 1)
const url = 'https://id.example/jwks.json'

interface Signer {
  kid: string
  alg: string
  jwk: JWK
  privateKey: KeyObject
}

function createSigner(kid: string, { bits = 2_048, exponent = 65_537 } = {}): Signer {
  const pair = generateKeyPairSync('rsa', { modulusLength: bits, publicExponent: exponent })
  return {
    kid,
    alg: 'RS256',
    jwk: { ...pair.publicKey.export({ format: 'jwk' }), kid, alg: 'RS256', use: 'sig' },
    privateKey: pair.privateKey,
  }
}

const alice = createSigner('alice')
const bob = createSigner('bob')

const sign = ({ alg, privateKey }: Signer, header: object = {}, kid: string | undefined = undefined): Promise<string> =>
  new SignJWT({ sub: 'ada' })
    .setProtectedHeader({ alg, ...(kid !== undefined && { kid }), ...header })
    .setExpirationTime(start / 1_000 + 86_400)
    .sign(privateKey)
const signAs = (signer: Signer): Promise<string> => sign(signer, {}, signer.kid)

const toText = (...signers: Signer[]): string => JSON.stringify({ keys: signers.map(({ jwk }) => jwk) })

/** A server of key sets whose answers a test chooses, behind a clock that it moves. */
function createWorld(answer: () => string | Promise<string>) {
  const world = { now: start, answer, fetches: 0 }
  const facts: Facts = {
    clientAddress: () => {
      throw new Error('nobody asks')
    },
    isEdge: false,
    limiter: { take: () => ({ outcome: 'allowed', remaining: 1, resetAt: 0 }) },
    fetchText: async (asked, { timeoutMs, bytesMax }) => {
      expect(asked).toBe(url)
      expect([timeoutMs, bytesMax]).toEqual([limits.jwksTimeoutMs, limits.jwksBytesMax])
      world.fetches++
      return world.answer()
    },
    now: () => world.now,
    monotonic: () => world.now - start,
    randomId: () => 'id',
  }
  const verifier = createVerifier('shop/access', { jwks: url, algorithms: ['RS256', 'ES256', 'EdDSA'] })
  const outcomeOf = async (token: string): Promise<string> => {
    const verdict = await verifier.verify(token, facts)
    return verdict.outcome === 'refused' ? verdict.reason : verdict.outcome
  }
  return { world, facts, verifier, outcomeOf }
}

const down = (): string => {
  throw new Error('down')
}
const noKey = 'no key has signed this'

afterEach(() => vi.restoreAllMocks())

describe('a key set', () => {
  it('is fetched once, when the first token comes', async () => {
    const { world, outcomeOf } = createWorld(() => toText(alice, bob))
    expect(world.fetches).toBe(0)
    const tokens = await Promise.all([signAs(alice), signAs(bob), sign(alice, { typ: 'JWT' }, 'alice')])
    expect(await Promise.all(tokens.map(outcomeOf))).toEqual(['verified', 'verified', 'verified'])
    expect(world.fetches).toBe(1)
  })

  it.each(['ES256', 'Ed25519'] as const)('may hold keys of %s', async (kind) => {
    const pair = kind === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519')
    const signer = {
      kid: 'k',
      alg: kind === 'ES256' ? 'ES256' : 'EdDSA',
      jwk: { ...pair.publicKey.export({ format: 'jwk' }), kid: 'k' },
      privateKey: pair.privateKey,
    }
    const { outcomeOf } = createWorld(() => toText(alice, signer))
    expect(await outcomeOf(await signAs(signer))).toBe('verified')
  })

  it('is asked for again after a while, and remembered tokens cost no signature when it is the same', async () => {
    const { world, verifier, facts } = createWorld(() => toText(alice))
    const token = await signAs(alice)
    await verifier.verify(token, facts)
    const spy = vi.spyOn(crypto.subtle, 'verify')
    world.now += limits.jwksFreshMs
    expect(verifier.verify(token, facts)).toMatchObject({ outcome: 'verified' })
    expect(world.fetches).toBe(1)
    world.now += 1
    expect(await verifier.verify(token, facts)).toMatchObject({ outcome: 'verified' })
    expect(world.fetches).toBe(2)
    expect(verifier.verify(token, facts)).toMatchObject({ outcome: 'verified' })
    expect(spy).toHaveBeenCalledTimes(0)
  })
})

describe('a key set that cannot be had', () => {
  const html = '<!doctype html><title>Sign in</title>'
  const answers: [string, () => string | Promise<string>][] = [
    ['is down', down],
    ['is HTML', () => html],
    ['is empty', () => ''],
    ['is JSON of another kind', () => '{"error":"not found"}'],
    ['is a list', () => '[]'],
    ['has keys that are no list', () => '{"keys":{}}'],
    ['is null', () => 'null'],
  ]
  it.each(answers)('because it %s leaves tokens neither accepted nor refused', async (_name, answer) => {
    const { world, outcomeOf } = createWorld(answer)
    expect(await outcomeOf(await signAs(alice))).toBe('unavailable')
    // And is found again as soon as it is there.
    world.answer = () => toText(alice)
    world.now += limits.jwksRetryMs
    expect(await outcomeOf(await signAs(alice))).toBe('verified')
  })

  it('still refuses what needs no key to be refused', async () => {
    const { world, outcomeOf } = createWorld(down)
    expect(await outcomeOf('a.b.c')).toBe('the token is malformed')
    expect(world.fetches).toBe(0)
  })

  it('is asked for once a second, however many tokens come', async () => {
    const { world, outcomeOf } = createWorld(down)
    const tokens = await Promise.all(Array.from({ length: 50 }, (_, n) => sign(alice, { n }, 'alice')))
    for (let second = 0; second < 3; second++) {
      expect(new Set(await Promise.all(tokens.map(outcomeOf)))).toEqual(new Set(['unavailable']))
      expect(world.fetches).toBe(second + 1)
      world.now += limits.jwksRetryMs
    }
  })

  it('later on is kept until it is stale; then tokens are neither accepted nor refused', async () => {
    const { world, outcomeOf } = createWorld(() => toText(alice))
    const remembered = await signAs(alice)
    expect(await outcomeOf(remembered)).toBe('verified')
    world.answer = down
    for (let at = 0; at <= limits.jwksStaleMs; at += limits.jwksStaleMs / 12) {
      world.now = start + at
      expect(await outcomeOf(remembered)).toBe('verified')
      expect(await outcomeOf(await sign(alice, { at }, 'alice'))).toBe('verified')
    }
    world.now = start + limits.jwksStaleMs + 1
    expect(await outcomeOf(remembered)).toBe('unavailable')
    expect(await outcomeOf(await sign(alice, { at: 'last' }, 'alice'))).toBe('unavailable')
    world.answer = () => toText(alice)
    world.now += limits.jwksRetryMs
    expect(await outcomeOf(remembered)).toBe('verified')
  })

  it('later on is asked for once per cool-down', async () => {
    const { world, outcomeOf } = createWorld(() => toText(alice))
    await outcomeOf(await signAs(alice))
    world.answer = down
    world.now = start + limits.jwksFreshMs + 1
    for (let times = 0; times < 10; times++) await outcomeOf(await sign(alice, { times }, 'alice'))
    expect(world.fetches).toBe(2)
    world.now += limits.jwksCoolDownMs
    await outcomeOf(await sign(alice, {}, 'alice'))
    expect(world.fetches).toBe(3)
  })

  it('and does not answer keeps one request waiting, not all of them', async () => {
    const { world, verifier, facts, outcomeOf } = createWorld(() => toText(alice))
    const token = await signAs(alice)
    await outcomeOf(token)
    let fail = (): void => {}
    world.answer = () => new Promise((_resolve, reject) => (fail = () => reject(new Error('timed out'))))
    world.now = start + limits.jwksFreshMs + 1
    const waiting = verifier.verify(token, facts)
    expect(waiting).toBeInstanceOf(Promise)
    expect(verifier.verify(token, facts)).toMatchObject({ outcome: 'verified' })
    fail()
    expect(await waiting).toMatchObject({ outcome: 'verified' })
    expect(world.fetches).toBe(2)
  })

  it('because its fetch was lost is asked for again', async () => {
    const { world, outcomeOf } = createWorld(() => new Promise(() => {}))
    void outcomeOf(await signAs(alice))
    await Promise.resolve()
    world.answer = () => toText(alice)
    world.now += limits.jwksTimeoutMs + 1
    expect(await outcomeOf(await signAs(alice))).toBe('verified')
  })

  it('does not depend on the time of day', async () => {
    const { world, outcomeOf, facts } = createWorld(() => toText(alice))
    await outcomeOf(await signAs(alice))
    facts.now = () => start - 30_000
    world.now += limits.jwksFreshMs + 1
    await outcomeOf(await sign(alice, {}, 'alice'))
    expect(world.fetches).toBe(2)
  })
})

describe('keys that change', () => {
  it('are found: an unknown key id causes one more fetch', async () => {
    const { world, outcomeOf } = createWorld(() => toText(alice))
    await outcomeOf(await signAs(alice))
    world.answer = () => toText(alice, bob)
    world.now += limits.jwksCoolDownMs
    const [first, second] = await Promise.all([signAs(bob), sign(bob, { n: 1 }, 'bob')])
    expect(await Promise.all([outcomeOf(first), outcomeOf(second)])).toEqual(['verified', 'verified'])
    expect(world.fetches).toBe(2)
  })

  it('cause one fetch per cool-down, however many tokens name unknown ones', async () => {
    const { world, outcomeOf } = createWorld(() => toText(alice))
    await outcomeOf(await signAs(alice))
    for (let coolDown = 1; coolDown <= 3; coolDown++) {
      world.now += limits.jwksCoolDownMs
      const tokens = await Promise.all(Array.from({ length: 50 }, (_, n) => sign(bob, {}, `unknown-${coolDown}-${n}`)))
      for (const token of tokens) expect(await outcomeOf(token)).toBe(noKey)
      expect(await Promise.all(tokens.map(outcomeOf))).toEqual(tokens.map(() => noKey))
      expect(world.fetches).toBe(1 + coolDown)
    }
    // Whoever holds a good token notices nothing.
    expect(await outcomeOf(await signAs(alice))).toBe('verified')
  })

  it('take what they signed with them, also what was remembered', async () => {
    const { world, outcomeOf } = createWorld(() => toText(alice, bob))
    const token = await signAs(alice)
    expect(await outcomeOf(token)).toBe('verified')
    world.answer = () => toText(bob)
    world.now += limits.jwksFreshMs + 1
    expect(await outcomeOf(token)).toBe(noKey)
    expect(await outcomeOf(await signAs(bob))).toBe('verified')
  })
})

describe('a key of a key set', () => {
  it('signs nothing when it is RSA below 2048 bits or with another exponent than 65537', async () => {
    const weak = [createSigner('small', { bits: 1_024 }), createSigner('cubic', { exponent: 3 })]
    const { outcomeOf } = createWorld(() => toText(...weak, alice))
    for (const signer of weak) {
      // A library would not sign with the small one.
      const [head, payload] = (await sign(alice, {}, signer.kid)).split('.')
      const { createSign } = await import('node:crypto')
      const signature = createSign('sha256').update(`${head}.${payload}`).sign(signer.privateKey, 'base64url')
      expect(await outcomeOf(`${head}.${payload}.${signature}`)).toBe(noKey)
    }
    expect(await outcomeOf(await signAs(alice))).toBe('verified')
  })

  it('is no secret: oct keys are ignored', async () => {
    const k = Buffer.from('g0VN7Xl2kq9Lw4TzYb8EhRs1MfUcJp6D')
    const { outcomeOf } = createWorld(() =>
      JSON.stringify({ keys: [{ kty: 'oct', k: k.toString('base64url'), kid: 'o', alg: 'HS256' }] }),
    )
    const token = await new SignJWT({ sub: 'ada' })
      .setProtectedHeader({ alg: 'HS256', kid: 'o' })
      .setExpirationTime(start / 1_000 + 60)
      .sign(k)
    expect(await outcomeOf(token)).toBe('the algorithm is not accepted')
  })

  it('is one of the first of a bounded number', async () => {
    const many = Array.from({ length: limits.jwksKeysMax }, (_, n) => ({ ...bob, jwk: { ...bob.jwk, kid: `b${n}` } }))
    const { outcomeOf } = createWorld(() => toText(...many, alice))
    expect(await outcomeOf(await signAs(alice))).toBe(noKey)
    expect(await outcomeOf(await sign(bob, {}, 'b0'))).toBe('verified')
  })

  it('does no harm when it is nonsense', async () => {
    const nonsense = [null, 5, 'x', [], {}, { kty: 5 }, { kty: 'RSA' }, { kty: 'RSA', n: 'AQAB', e: 'AQAB', kid: 'x' }]
    const { outcomeOf } = createWorld(() => JSON.stringify({ keys: [...nonsense, alice.jwk] }))
    expect(await outcomeOf(await signAs(alice))).toBe('verified')
    expect(await outcomeOf(await sign(alice, {}, 'x'))).not.toBe('verified')
  })

  it('is not the one that a token brings', async () => {
    const { world, outcomeOf } = createWorld(() => toText(alice))
    const brought = [{ jwk: bob.jwk }, { jku: 'https://evil.example/' }, { x5u: 'https://evil.example/' }]
    for (const header of brought)
      expect(await outcomeOf(await sign(bob, header, 'alice'))).toBe('the signature is not ours')
    expect(world.fetches).toBe(1)
  })
})

describe('the text of a key set', () => {
  const { fetchText } = createNodeFacts({
    limiter: { take: () => ({ outcome: 'allowed', remaining: 1, resetAt: 0 }) },
    trustedHops: [],
  })

  /** What fetching says of a server's answer. */
  async function fetchFrom(answer: Parameters<typeof createServer>[1] & object, timeoutMs = 2_000): Promise<string> {
    const server = createServer(answer).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as AddressInfo
    try {
      return await fetchText(`http://127.0.0.1:${port}/`, { timeoutMs, bytesMax: limits.jwksBytesMax })
    } finally {
      server.closeAllConnections()
      server.close()
    }
  }

  it('is had whole', async () => {
    expect(await fetchFrom((_request, response) => response.end(toText(alice)))).toBe(toText(alice))
  })

  it('is at most 256 KiB long, however it is sent', async () => {
    const long = 'x'.repeat(300_000)
    await expect(fetchFrom((_request, response) => response.end(long))).rejects.toThrow('too long')
    await expect(
      fetchFrom((_request, response) => {
        response.write(long.slice(0, 150_000))
        response.end(long.slice(150_000))
      }),
    ).rejects.toThrow('too long')
    expect(await fetchFrom((_request, response) => response.end('x'.repeat(limits.jwksBytesMax)))).toHaveLength(
      limits.jwksBytesMax,
    )
  })

  it('is not had from an error, a redirect, or a server that does not end', async () => {
    await expect(fetchFrom((_request, response) => response.writeHead(500).end('{"keys":[]}'))).rejects.toThrow('500')
    await expect(
      fetchFrom((_request, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()),
    ).rejects.toThrow()
    await expect(fetchFrom((_request, response) => response.write('{"keys":'), 100)).rejects.toThrow()
    await expect(fetchFrom(() => {}, 100)).rejects.toThrow()
  })
})
