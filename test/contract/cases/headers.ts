import { expect } from 'vitest'
import { ask, askEcho } from '../suite.ts'
import type { Case } from '../suite.ts'

const host = 'shop.example'

/** What only the gateway may say, in spellings that are dropped. */
const identityFields = [
  'X-User-Id',
  'x-user-id',
  'X-USER-CLAIMS',
  'X-User-Anything',
  'X-Daemun-Edge',
  'X-Daemun-Anything',
  'X-Forwarded-Host',
  'X-Forwarded-Prefix',
  'Forwarded',
  'Via',
  'X-Real-IP',
  'X-Request-Id',
  'X-Client-IP',
  'True-Client-IP',
  'X-Original-URL',
  'X-Rewrite-URL',
  'X-Middleware-Subrequest',
  'Proxy-Authorization',
]
/** Spellings that some readers fold into ours. */
const aliases = [
  'X_User_Id',
  'x-user_id',
  'X.User.Id',
  'X_Forwarded_For',
  'x_real_ip',
  'Content_Length',
  'Transfer.Encoding',
  'X_Daemun_Edge',
]

export const headers: Case[] = [
  {
    name: 'tells the origin who asks, how and for what',
    async check(world) {
      const echo = await askEcho(world, { host, target: '/echo', from: '203.0.113.7', secure: true })
      expect(echo.field('x-forwarded-for')).toBe('203.0.113.7')
      expect(echo.field('x-real-ip')).toBe('203.0.113.7')
      expect(echo.field('x-forwarded-proto')).toBe('https')
      expect(echo.field('x-forwarded-host')).toBe(host)
      expect(echo.field('x-request-id')).toMatch(/^[\w-]{16,}$/)
    },
  },
  {
    name: "sends the client's Host on",
    async check(world) {
      expect((await askEcho(world, { host, target: '/echo' })).field('host')).toBe(host)
    },
  },
  {
    name: 'writes IPv6 addresses in one way',
    async check(world) {
      const echo = await askEcho(world, { host, target: '/echo', from: '2001:0DB8:0:0::1' })
      expect(echo.field('x-forwarded-for')).toBe('2001:db8::1')
    },
  },
  {
    name: 'gives origin and client the same request id',
    async check(world) {
      const answer = await ask(world, { host, target: '/echo', headers: [['X-Request-Id', 'forged']] })
      const sent = answer.json<{ headers: string[] }>().headers
      expect(sent[sent.findIndex((name) => name.toLowerCase() === 'x-request-id') + 1]).toBe(
        answer.field('x-request-id'),
      )
    },
  },
  {
    name: 'never passes on what only the gateway may say',
    async check(world) {
      const echo = await askEcho(world, {
        host,
        target: '/echo',
        headers: identityFields.map((name) => [name, 'forged']),
      })
      expect(echo.headers.filter((text) => text.includes('forged'))).toEqual([])
    },
  },
  {
    name: 'replaces what a client claims by what was verified',
    async check(world) {
      const token = await world.tokens.sign('HS256')
      const echo = await askEcho(world, {
        host,
        target: '/auth/secret',
        headers: [
          ['x-user-id', 'root'],
          ['X-User-Claims', 'e30'],
          ['Authorization', `Bearer ${token}`],
        ],
      })
      expect(echo.field('x-user-id')).toBe('mira')
      expect(echo.headers).not.toContain('e30')
    },
  },
  ...aliases.map((name): Case => ({
    name: `refuses the field ${name}, which some readers take for one of ours`,
    async check(world) {
      const answer = await ask(world, { host, target: '/echo', headers: [[name, '5']] })
      expect([answer.status, answer.json()['code']]).toEqual([400, 'malformed_request'])
    },
  })),
  {
    name: 'passes on other fields as they came',
    async check(world) {
      const echo = await askEcho(world, {
        host,
        target: '/echo',
        headers: [
          ['X-Custom', 'a, "b"; c=d'],
          ['Accept', 'text/html, */*;q=0.1'],
          ['Cookie', 'a=1; b=2'],
          ['X-Empty', ''],
        ],
      })
      expect(echo.field('x-custom')).toBe('a, "b"; c=d')
      expect(echo.field('accept')).toBe('text/html, */*;q=0.1')
      expect(echo.field('cookie')).toBe('a=1; b=2')
      expect(echo.field('x-empty')).toBe('')
    },
  },
  {
    name: 'drops hop-by-hop fields of a request (RFC 9110 §7.6.1)',
    async check(world) {
      const echo = await askEcho(world, {
        host,
        target: '/echo',
        method: 'POST',
        body: inChunks(),
        headers: [
          ['TE', 'trailers'],
          ['Keep-Alive', 'timeout=5'],
          ['Proxy-Connection', 'keep-alive'],
          ['Trailer', 'X-Checksum'],
        ],
      })
      for (const name of ['te', 'keep-alive', 'proxy-connection', 'trailer', 'upgrade'])
        expect(echo.field(name), name).toBeUndefined()
    },
  },
  {
    name: 'drops fields that Connection names in a request',
    async check(world) {
      const echo = await askEcho(world, {
        host,
        target: '/echo',
        headers: [
          ['Connection', 'X-Hop, keep-alive'],
          ['X-Hop', '1'],
          ['X-Stays', '1'],
        ],
      })
      expect([echo.field('x-hop'), echo.field('x-stays')]).toEqual([undefined, '1'])
    },
  },
  {
    name: 'drops hop-by-hop fields of an answer',
    async check(world) {
      const answer = await ask(world, { host, target: '/answers/hop-by-hop' })
      for (const name of ['proxy-authenticate', 'te']) expect(answer.field(name), name).toBeUndefined()
      expect([answer.field('x-kept'), answer.text]).toEqual(['for the client', 'hop'])
    },
  },
  {
    name: 'drops fields that Connection names in an answer',
    async check(world) {
      expect((await ask(world, { host, target: '/answers/hop-by-hop' })).field('x-named')).toBeUndefined()
    },
  },
  {
    name: 'says the request id itself, and never what the edge signs',
    async check(world) {
      expect((await ask(world, { host, target: '/answers/hop-by-hop' })).field('x-request-id')).toMatch(/^[\w-]{16,}$/)
      expect((await ask(world, { host, target: '/answers/edge' })).field('x-daemun-edge')).toBeUndefined()
    },
  },
  {
    name: "edits a request's fields",
    async check(world) {
      const echo = await askEcho(world, {
        host,
        target: '/edits/request',
        headers: [
          ['X-Secret', '1'],
          ['accept-language', 'ko'],
          ['X-Tier', 'free'],
          ['User-Agent', 'curl'],
        ],
      })
      expect([echo.field('x-secret'), echo.field('accept-language')]).toEqual([undefined, undefined])
      expect([echo.field('x-tier'), echo.field('user-agent')]).toEqual(['gold', 'gateway'])
    },
  },
  {
    name: "edits an answer's fields",
    async check(world) {
      const answer = await ask(world, { host, target: '/edits/response' })
      expect([answer.field('x-origin'), answer.field('x-added')]).toEqual(['edited', 'yes'])
      expect([answer.field('content-type'), answer.field('referrer-policy')]).toEqual([undefined, undefined])
    },
  },
  {
    name: 'sends security headers: basic by default, strict, none or own ones',
    async check(world) {
      const fieldsOf = async (target: string): Promise<(string | undefined)[]> => {
        const answer = await ask(world, { host, target })
        return ['x-content-type-options', 'x-frame-options', 'referrer-policy', 'content-security-policy', 'x-own'].map(
          answer.field,
        )
      }
      expect(await fieldsOf('/echo')).toEqual([
        'nosniff',
        'SAMEORIGIN',
        'strict-origin-when-cross-origin',
        undefined,
        undefined,
      ])
      expect(await fieldsOf('/row')).toEqual([
        'nosniff',
        'SAMEORIGIN',
        'strict-origin-when-cross-origin',
        undefined,
        undefined,
      ])
      expect((await fieldsOf('/edits/strict')).slice(0, 4)).toEqual([
        'nosniff',
        'DENY',
        'strict-origin-when-cross-origin',
        "base-uri 'self'; frame-ancestors 'none'; object-src 'none'",
      ])
      expect(await fieldsOf('/edits/none')).toEqual([undefined, undefined, undefined, undefined, undefined])
      expect(await fieldsOf('/edits/own')).toEqual([undefined, 'DENY', undefined, undefined, '1'])
    },
  },
  {
    name: 'leaves security headers that the origin sets',
    async check(world) {
      expect((await ask(world, { host, target: '/answers/secured' })).field('x-frame-options')).toBe('ALLOWALL')
    },
  },
  {
    name: 'sends security headers and the request id with errors too',
    async check(world) {
      const answer = await ask(world, { host, target: '/missing' })
      expect([answer.field('x-content-type-options'), answer.field('cache-control')]).toEqual(['nosniff', 'no-store'])
      expect(answer.field('x-request-id')).toBe(answer.json()['requestId'])
    },
  },
  {
    name: 'sets Cache-Control of successful answers only',
    async check(world) {
      const cached = await ask(world, { host, target: '/edits/cached' })
      expect([cached.field('cache-control'), cached.field('expires')]).toEqual(['no-store', undefined])
      expect((await ask(world, { host, target: '/edits/cached-error' })).field('cache-control')).toBe('max-age=1')
      expect((await ask(world, { host, target: '/edits/control' })).field('cache-control')).toBe('max-age=5')
      expect((await ask(world, { host, target: '/answers/cached' })).field('cache-control')).toBe('public, max-age=9')
    },
  },
  {
    name: 'passes on bytes above ASCII in fields as they came, both ways (RFC 9110 §5.5)',
    async check(world) {
      const value = Buffer.from('가 café').toString('latin1')
      const echo = await askEcho(world, { host, target: '/echo', headers: [['X-Name', value]] })
      expect(echo.field('x-name')).toBe(value)
      expect((await ask(world, { host, target: '/answers/bytes' })).field('x-name')).toBe(value)
    },
  },
  {
    name: 'keeps Set-Cookie lines apart (RFC 6265 §3)',
    async check(world) {
      const answer = await ask(world, { host, target: '/answers/cookies' })
      const lines = answer.headers.filter(
        (_, index) => answer.headers[index - 1]?.toLowerCase() === 'set-cookie' && index % 2 === 1,
      )
      expect(lines).toEqual(['a=1; Path=/', 'b=2; Expires=Thu, 01 Jan 2099 00:00:00 GMT'])
    },
  },
]

/** Only a chunked body may announce trailers. */
async function* inChunks(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('x')
}
