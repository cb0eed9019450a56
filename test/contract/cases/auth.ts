import { expect } from 'vitest'
import { readIdentityClaims } from '#edge/identity.ts'
import { ask, askEcho } from '../suite.ts'
import type { Answer, Case, World } from '../suite.ts'
import { toPart } from '../tokens.ts'

const host = 'shop.example'
const bearer = (token: string): [string, string][] => [['Authorization', `Bearer ${token}`]]

const knock = (world: World, target: string, token: string): Promise<Answer> =>
  ask(world, { host, target, headers: bearer(token) })

async function checkRefused(world: World, target: string, token: string): Promise<void> {
  const answer = await knock(world, target, token)
  expect(answer.status).toBe(401)
  expect(answer.field('www-authenticate')).toMatch(/^Bearer error="invalid_token", error_description="/)
  expect(answer.text + answer.field('www-authenticate')).not.toContain(token.slice(0, 20))
}

/** What makes a token that one key would accept unacceptable. */
const flaws: { name: string; token: (world: World) => Promise<string> | string; row?: string }[] = [
  { name: 'of another issuer', token: ({ tokens }) => tokens.sign('HS256', { iss: 'https://evil.example' }) },
  { name: 'for another audience', token: ({ tokens }) => tokens.sign('HS256', { aud: ['else', 'where'] }) },
  { name: 'without a required claim', token: ({ tokens }) => tokens.sign('HS256', { sub: undefined }) },
  { name: 'without an end', token: ({ tokens }) => tokens.sign('HS256', { exp: undefined }) },
  { name: 'that has expired', token: ({ tokens }) => tokens.sign('HS256', { exp: seconds() - 40 }) },
  { name: 'that is not valid yet', token: ({ tokens }) => tokens.sign('HS256', { nbf: seconds() + 40 }) },
  { name: 'with alg none', token: ({ tokens }) => tokens.forge({ alg: 'none' }, {}) },
  { name: 'with alg none and a signature', token: ({ tokens }) => tokens.forge({ alg: 'None' }, {}, 'c2ln') },
  { name: 'without a signature', token: async ({ tokens }) => (await tokens.sign('HS256')).replace(/[^.]*$/, '') },
  { name: 'of another signer', token: ({ tokens }) => tokens.forge({ alg: 'HS256' }, {}, 'A'.repeat(43)) },
  {
    name: 'whose claims were changed',
    token: async ({ tokens }) => {
      const [header, , signature] = (await tokens.sign('HS256')).split('.')
      return `${header}.${tokens.forge({}, { sub: 'root' }).split('.')[1]}.${signature}`
    },
  },
  {
    name: 'signed with the right key by another algorithm',
    token: ({ tokens }) => tokens.sign('ES256'),
    row: '/auth/RS256',
  },
  {
    name: 'signed with HS256 by the public key (RFC 8725 §3.1)',
    token: ({ tokens }) => signWithText(tokens.rsaPem, { alg: 'HS256' }),
    row: '/auth/RS256',
  },
  {
    name: 'of the secret where a key set is asked for',
    token: ({ tokens }) => tokens.sign('HS256', {}, { kid: 'RS256' }),
    row: '/auth/set',
  },
  { name: 'with an unknown kid', token: ({ tokens }) => tokens.sign('ES256', {}, { kid: 'nobody' }), row: '/auth/set' },
  { name: 'that brings its own key (jwk)', token: () => signWithOwnKey('jwk'), row: '/auth/set' },
  { name: 'that says where its key is (jku)', token: () => signWithOwnKey('jku'), row: '/auth/set' },
  {
    name: 'with critical extensions',
    token: ({ tokens }) => tokens.forge({ alg: 'HS256', crit: ['x'], x: 1 }, {}, 'A'.repeat(43)),
  },
  { name: 'in base64url that is not canonical', token: async ({ tokens }) => respell(await tokens.sign('HS256')) },
  { name: 'with padding', token: async ({ tokens }) => `${await tokens.sign('HS256')}=` },
  // In letters that no request id has, in which it is looked for.
  { name: 'of one part', token: () => 'only-one-part' },
  { name: 'of 9,000 bytes', token: ({ tokens }) => tokens.sign('HS256', { pad: 'x'.repeat(9_000) }) },
]

export const auth: Case[] = [
  ...(['RS256', 'ES256', 'EdDSA'] as const).flatMap((key) => [
    {
      name: `accepts ${key} by a public key in PEM`,
      async check(world: World) {
        const token = await world.tokens.sign(key)
        expect(
          (await askEcho(world, { host, target: `/auth/${key}`, headers: bearer(token) })).field('x-user-id'),
        ).toBe('mira')
      },
    },
    {
      name: `accepts ${key} by a key set`,
      async check(world: World) {
        const token = await world.tokens.sign(key, {}, { kid: key })
        expect((await askEcho(world, { host, target: '/auth/set', headers: bearer(token) })).field('x-user-id')).toBe(
          'mira',
        )
      },
    },
  ]),
  {
    name: 'accepts HS256 by a secret, again and again',
    async check(world) {
      const token = await world.tokens.sign('HS256', {
        sub: '한글 ü',
        iss: 'https://id2.example',
        aud: ['shop', 'else'],
      })
      for (let times = 0; times < 3; times++) {
        const echo = await askEcho(world, { host, target: '/auth/secret', headers: bearer(token) })
        expect(echo.field('x-user-id')).toBe(encodeURIComponent('한글 ü'))
        expect(readIdentityClaims(echo.field('x-user-claims'))).toMatchObject({ sub: '한글 ü', aud: ['shop', 'else'] })
      }
    },
  },
  {
    name: 'lets clocks disagree by half a minute',
    async check(world) {
      const late = await world.tokens.sign('HS256', { exp: seconds() - 10, nbf: seconds() + 10 })
      expect((await knock(world, '/auth/secret', late)).status).toBe(200)
    },
  },
  {
    name: 'asks a key set for an unknown kid once, however many tokens name it',
    async check(world) {
      await checkRefused(world, '/auth/set', await world.tokens.sign('ES256', {}, { kid: 'warm' }))
      const before = world.origin.keySetAsked
      const knocks = Array.from({ length: 10 }, async (_, i) =>
        checkRefused(world, '/auth/set', await world.tokens.sign('ES256', {}, { kid: `stranger ${i}` })),
      )
      await Promise.all(knocks)
      expect(world.origin.keySetAsked - before).toBeLessThanOrEqual(1)
    },
  },
  {
    name: 'reads the token from a cookie among others',
    async check(world) {
      const token = await world.tokens.sign('HS256')
      const headers: [string, string][] = [['Cookie', `a=1; session=${token}; session2=x`]]
      expect((await askEcho(world, { host, target: '/auth/cookie', headers })).field('x-user-id')).toBe('mira')
      expect((await ask(world, { host, target: '/auth/cookie', headers: bearer(token) })).status).toBe(401)
    },
  },
  {
    name: 'reads the token from the query',
    async check(world) {
      const token = await world.tokens.sign('HS256')
      const echo = await askEcho(world, { host, target: `/auth/query?a=1&token=${token}` })
      expect([echo.field('x-user-id'), echo.target]).toEqual(['mira', `/auth/query?a=1&token=${token}`])
      expect((await ask(world, { host, target: '/auth/query', headers: bearer(token) })).status).toBe(401)
    },
  },
  {
    name: 'tries several places in order',
    async check(world) {
      const token = await world.tokens.sign('HS256')
      expect((await ask(world, { host, target: '/auth/any', headers: [['Cookie', `session=${token}`]] })).status).toBe(
        200,
      )
      const both: [string, string][] = [
        ['Cookie', `session=${token}`],
        ['Authorization', 'Bearer bad'],
      ]
      expect((await ask(world, { host, target: '/auth/any', headers: both })).status).toBe(401)
    },
  },
  {
    name: 'answers 401 without an error code when there is no token (RFC 6750 §3)',
    async check(world) {
      const answer = await ask(world, { host, target: '/auth/secret' })
      expect([answer.status, answer.field('www-authenticate')]).toEqual([401, 'Bearer'])
      const basic = await ask(world, { host, target: '/auth/secret', headers: [['Authorization', 'Basic bWlyYTp4']] })
      expect([basic.status, basic.field('www-authenticate')]).toEqual([401, 'Bearer'])
    },
  },
  {
    name: 'refuses two Authorization fields, whichever is good',
    async check(world) {
      const good = await world.tokens.sign('HS256')
      for (const tokens of [
        [good, 'bad'],
        ['bad', good],
      ]) {
        const headers = tokens.map((token): [string, string] => ['Authorization', `Bearer ${token}`])
        expect([400, 401]).toContain((await ask(world, { host, target: '/auth/secret', headers })).status)
      }
    },
  },
  {
    name: 'lets requests without a token pass where it is optional, but none with a bad one',
    async check(world) {
      const anonymous = await askEcho(world, { host, target: '/auth/optional', headers: [['X-User-Id', 'forged']] })
      expect(anonymous.field('x-user-id')).toBeUndefined()
      const known = await askEcho(world, {
        host,
        target: '/auth/optional',
        headers: bearer(await world.tokens.sign('HS256')),
      })
      expect(known.field('x-user-id')).toBe('mira')
      await checkRefused(world, '/auth/optional', await world.tokens.sign('HS256', { exp: 1 }))
    },
  },
  {
    name: 'answers 403 when a claim is not one that may',
    async check(world) {
      const statusFor = async (role: unknown): Promise<number> =>
        (await knock(world, '/auth/claims', await world.tokens.sign('HS256', { role }))).status
      expect(await statusFor('admin')).toBe(200)
      expect(await statusFor(['guest', 'owner'])).toBe(200)
      expect(await statusFor('guest')).toBe(403)
      expect(await statusFor(undefined)).toBe(403)
    },
  },
  ...flaws.map(({ name, token, row = '/auth/secret' }) => ({
    name: `refuses a token ${name}`,
    check: async (world: World) => checkRefused(world, row, await token(world)),
  })),
]

const seconds = (): number => Math.floor(Date.now() / 1_000)

async function signWithText(secret: string, header: object): Promise<string> {
  const key = await crypto.subtle.importKey('raw', Buffer.from(secret), { name: 'HMAC', hash: 'SHA-256' }, false, [
    'sign',
  ])
  const text = `${toPart(header)}.${toPart({ sub: 'root', exp: seconds() + 600 })}`
  return `${text}.${Buffer.from(await crypto.subtle.sign('HMAC', key, Buffer.from(text))).toString('base64url')}`
}

async function signWithOwnKey(name: 'jwk' | 'jku'): Promise<string> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const { publicKey, privateKey } = (await crypto.subtle.generateKey(algorithm, true, [
    'sign',
    'verify',
  ])) as CryptoKeyPair
  const jwk = await crypto.subtle.exportKey('jwk', publicKey)
  const header = { alg: 'ES256', kid: 'ES256', [name]: name === 'jwk' ? jwk : 'http://127.0.0.1:1/jwks.json' }
  const text = `${toPart(header)}.${toPart({ sub: 'root', exp: seconds() + 600 })}`
  return `${text}.${Buffer.from(await crypto.subtle.sign(algorithm, privateKey, Buffer.from(text))).toString('base64url')}`
}

/** The same bytes in other letters: the last letter of 43 holds two bits that mean nothing. */
function respell(token: string): string {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return token.slice(0, -1) + letters[letters.indexOf(token.at(-1) ?? '') ^ 1]
}
