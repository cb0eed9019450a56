import { expect } from 'vitest'
import { ask, nextId } from '../suite.ts'
import type { Answer, Case, World } from '../suite.ts'

const host = 'pages.example'
const page = 'https://app.example'

const from = (origin: string, ...more: [string, string][]): [string, string][] => [['Origin', origin], ...more]

/** A browser's question whether it may. */
const askFirst = (
  world: World,
  target: string,
  { origin = page, method = 'POST', fields = '', at = host } = {},
): Promise<Answer> =>
  ask(world, {
    host: at,
    target,
    method: 'OPTIONS',
    headers: from(
      origin,
      ['Access-Control-Request-Method', method],
      ...(fields === '' ? [] : [['Access-Control-Request-Headers', fields] as [string, string]]),
    ),
  })

/** What a browser looks at before it shows a page the answer to a request with credentials. */
function expectReadable(answer: Answer, origin = page): void {
  expect(answer.field('access-control-allow-origin')).toBe(origin)
  expect(answer.field('access-control-allow-credentials')).toBe('true')
  expect(answer.field('access-control-expose-headers')).toBe(
    'X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, X-Origin',
  )
  expect(answer.field('vary')).toMatch(/(^|, )Origin($|,)/)
}

function expectUnreadable(answer: Answer): void {
  const said = answer.headers.filter((text, index) => index % 2 === 0 && /^access-control-/i.test(text))
  expect(said).toEqual([])
  expect(answer.field('vary')).toMatch(/(^|, )Origin($|,)/)
}

export const cors: Case[] = [
  {
    name: "lets a listed origin's pages read what an upstream answers",
    async check(world) {
      const answer = await ask(world, { host, target: '/echo', headers: from(page) })
      expectReadable(answer)
      expect(answer.status).toBe(200)
      const other = 'http://127.0.0.1:3000'
      expectReadable(await ask(world, { host, target: '/echo', headers: from(other) }), other)
    },
  },
  {
    name: 'says the same of answers of its own',
    async check(world) {
      expectReadable(await ask(world, { host, target: '/here', headers: from(page) }))
    },
  },
  {
    name: 'never names an origin that is not listed, whatever it looks like',
    async check(world) {
      for (const origin of [
        'https://evil.example',
        'http://app.example',
        'https://app.example:444',
        'https://app.example.evil.example',
        'https://evilapp.example',
        'https://APP.example',
        'https://app.example/',
        'https://app.example, https://evil.example',
        'http://app.localhost:8080',
        'null',
        '*',
        '',
      ])
        expectUnreadable(await ask(world, { host, target: '/echo', headers: from(origin) }))
      expectUnreadable(await ask(world, { host, target: '/echo' }))
    },
  },
  {
    name: "lets the pages of a listed origin's twin read a twin's answers",
    async check(world) {
      const twin = 'http://app.localhost:8080'
      expectReadable(await ask(world, { host: 'pages.localhost', target: '/here', headers: from(twin) }), twin)
      expectUnreadable(
        await ask(world, { host: 'pages.localhost', target: '/here', headers: from('http://evil.localhost:8080') }),
      )
    },
  },
  {
    name: 'lets pages read why they were refused: 400, 401, 404, 405, 413, 429, 502',
    async check(world) {
      const key: [string, string] = ['X-Key', nextId()]
      const asked: [number, Parameters<typeof ask>[1]][] = [
        [400, { host, target: '/a%2fb', headers: from(page) }],
        [401, { host, target: '/auth', headers: from(page) }],
        [401, { host, target: '/auth', headers: from(page, ['Authorization', 'Bearer x.y.z']) }],
        [404, { host, target: '/missing', headers: from(page) }],
        [405, { host, target: '/only', method: 'PUT', headers: from(page) }],
        [413, { host, target: '/body', method: 'POST', headers: from(page), body: 'more than ten' }],
        [200, { host, target: '/limit', headers: from(page, key) }],
        [429, { host, target: '/limit', headers: from(page, key) }],
        [502, { host, target: '/dead', headers: from(page) }],
      ]
      for (const [status, request] of asked) {
        const answer = await ask(world, request)
        expect(answer.status).toBe(status)
        expectReadable(answer)
      }
    },
  },
  {
    name: 'says it once, whatever the upstream says of it',
    async check(world) {
      const answer = await ask(world, { host, target: '/answers/cors', headers: from(page) })
      expectReadable(answer)
      expect(answer.field('access-control-allow-methods')).toBeUndefined()
    },
  },
  {
    name: 'answers a browser that asks first: without a token, uncounted, and without the upstream',
    async check(world) {
      for (let asked = 0; asked < 3; asked++)
        for (const target of ['/auth', '/limit', '/dead', '/echo/x']) {
          const answer = await askFirst(world, target, { fields: 'content-type,X-Key', method: 'PUT' })
          expect([answer.status, answer.text]).toEqual([204, ''])
          expectReadable(answer)
          expect(answer.field('access-control-allow-methods')).toBe('GET, POST, PUT')
          expect(answer.field('access-control-allow-headers')).toBe('authorization, content-type, x-key')
          expect(answer.field('access-control-max-age')).toBe('60')
        }
    },
  },
  {
    name: 'answers for the row that the page asks for, not for one that takes OPTIONS',
    async check(world) {
      expect((await askFirst(world, '/only', { method: 'GET' })).status).toBe(204)
      expect((await askFirst(world, '/only', { method: 'PUT' })).json()['code']).toBe('cors_refused')
      expect((await askFirst(world, '/beta', { method: 'GET', fields: 'x-beta' })).status).toBe(403)
      expect((await askFirst(world, '/beta', { method: 'GET' })).status).toBe(204)
    },
  },
  {
    name: 'tells a browser that asks first what is wrong',
    async check(world) {
      const cases: [Parameters<typeof askFirst>[2], string][] = [
        [{ origin: 'https://evil.example' }, "pages of 'https://evil.example' may not ask"],
        [{ method: 'DELETE' }, "other origins' pages may not ask with 'DELETE'"],
        [{ method: 'post' }, "other origins' pages may not ask with 'post'"],
        [{ fields: 'content-type, x-secret' }, "other origins' pages may not send the field 'x-secret'"],
        [{ fields: 'x-key\tx' }, "other origins' pages may not send the field 'x-key\tx'"],
      ]
      for (const [asked, detail] of cases) {
        const answer = await askFirst(world, '/echo', asked)
        expect([answer.status, answer.json()['code'], answer.json()['detail']]).toEqual([403, 'cors_refused', detail])
      }
      expectUnreadable(await askFirst(world, '/echo', { origin: 'https://evil.example' }))
    },
  },
  {
    name: "lets everybody's pages read a row for all, without credentials",
    async check(world) {
      for (const headers of [from('https://evil.example'), from('null'), []]) {
        const answer = await ask(world, { host, target: '/public', headers })
        expect(answer.field('access-control-allow-origin')).toBe('*')
        expect(answer.field('access-control-allow-credentials')).toBeUndefined()
        expect(answer.field('vary')).toBeUndefined()
      }
      const preflight = await askFirst(world, '/public', { origin: 'https://evil.example', fields: 'x-any, x-other' })
      expect([preflight.status, preflight.field('access-control-allow-origin')]).toEqual([204, '*'])
      expect(preflight.field('access-control-allow-headers')).toBe('x-any, x-other')
    },
  },
  {
    name: 'leaves a row to its upstream that says so, and every row of a site without it',
    async check(world) {
      const answer = await ask(world, { host, target: '/own', headers: from(page) })
      expect(answer.field('access-control-allow-origin')).toBe("the upstream's own")
      const echo = await askFirst(world, '/own/echo')
      expect(echo.json()['method']).toBe('OPTIONS')
      expect((await askFirst(world, '/echo', { at: 'shop.example' })).json()['method']).toBe('OPTIONS')
    },
  },
  {
    name: 'passes on OPTIONS that ask for something else',
    async check(world) {
      const answer = await ask(world, { host, target: '/echo', method: 'OPTIONS', headers: from(page) })
      expectReadable(answer)
      expect(answer.json()['method']).toBe('OPTIONS')
    },
  },
]
