import { expect } from 'vitest'
import { ask, askEcho } from '../suite.ts'
import type { Case, World } from '../suite.ts'

const host = 'shop.example'

async function rowOf(world: World, target: string, method = 'GET', headers: [string, string][] = []): Promise<string> {
  return (await ask(world, { host, target, method, headers })).text
}

const refusedPaths = [
  '/echo/a%2fb',
  '/echo/a%2Fb',
  '/echo/a%5cb',
  '/echo/%00',
  '/echo/a%0ab',
  '/echo//b',
  '//echo',
  '/echo/%zz',
  '/echo/%e',
  '/echo/%c0%af',
  '/echo/..;/row',
  '/echo/%2e%2e;x/row',
]
const dotPaths = ['/echo/../row', '/echo/./x', '/echo/..', '/echo/%2e%2e/row', '/echo/.%2E']

export const routing: Case[] = [
  {
    name: 'takes an exact path before a prefix, and the longer prefix first',
    async check(world) {
      expect(await rowOf(world, '/row')).toBe('exact')
      expect(await rowOf(world, '/row/x')).toBe('prefix')
      expect(await rowOf(world, '/row/deep')).toBe('longer prefix')
      expect(await rowOf(world, '/row/deep/er')).toBe('longer prefix')
    },
  },
  {
    name: 'takes a row for some methods before a row for all',
    async check(world) {
      expect(await rowOf(world, '/row/deep/x', 'POST')).toBe('POST')
      expect(await rowOf(world, '/row/deep/x', 'PUT')).toBe('longer prefix')
    },
  },
  {
    name: 'takes a row only when the request carries its fields',
    async check(world) {
      expect(await rowOf(world, '/row/field', 'GET', [['X-Beta', 'yes']])).toBe('field')
      expect(
        await rowOf(world, '/row/field', 'GET', [
          ['X-Beta', 'no'],
          ['x-any', ''],
        ]),
      ).toBe('any field')
      expect(await rowOf(world, '/row/field', 'GET', [['X-Beta', 'no']])).toBe('prefix')
    },
  },
  {
    name: 'matches whole segments only',
    async check(world) {
      const answer = await ask(world, { host, target: '/rowing' })
      expect(answer.status).toBe(404)
      expect(answer.json()).toMatchObject({ code: 'not_found' })
    },
  },
  {
    name: 'compares paths with regard to case and closing slashes',
    async check(world) {
      expect((await ask(world, { host, target: '/ROW' })).status).toBe(404)
      expect(await rowOf(world, '/row/')).toBe('prefix')
    },
  },
  {
    name: 'lets GET rows answer HEAD, without a body',
    async check(world) {
      const answer = await ask(world, { host, target: '/row/get', method: 'HEAD' })
      expect([answer.status, answer.text, answer.field('content-length')]).toEqual([200, '', '8'])
    },
  },
  {
    name: 'answers 405 with what is allowed when only the method does not fit',
    async check(world) {
      const answer = await ask(world, { host, target: '/only', method: 'POST' })
      expect([answer.status, answer.field('allow')]).toEqual([405, 'GET, HEAD, PUT, DELETE'])
    },
  },
  {
    name: 'chooses the site by host: exact, then the longer wildcard, without regard to case, port and closing dot',
    async check(world) {
      const siteOf = async (name: string): Promise<string> => (await ask(world, { host: name, target: '/x' })).text
      expect(await siteOf('api.shop.example')).toBe('exact host')
      expect(await siteOf('any.shop.example')).toBe('wildcard')
      expect(await siteOf('a.b.shop.example')).toBe('wildcard')
      expect(await siteOf('x.eu.shop.example')).toBe('longer wildcard')
      expect(await siteOf('API.shop.EXAMPLE:8080')).toBe('exact host')
      expect(await siteOf('api.shop.example.')).toBe('exact host')
    },
  },
  {
    name: 'answers at the .localhost twin of a host',
    async check(world) {
      expect((await ask(world, { host: 'shop.localhost:8080', target: '/row' })).text).toBe('exact')
      expect((await ask(world, { host: 'any.shop.localhost', target: '/row' })).text).toBe('wildcard')
    },
  },
  {
    name: 'answers 421 for a host that no table names',
    async check(world) {
      const answer = await ask(world, { host: 'nobody.example', target: '/row' })
      expect([answer.status, answer.json()['code']]).toEqual([421, 'unknown_host'])
    },
  },
  ...refusedPaths.map((target) => ({
    name: `refuses the path ${target}`,
    check: (world: World) => checkRefused(world, target),
  })),
  ...dotPaths.map((target) => ({
    name: `never sends on the path ${target}`,
    check: (world: World) => checkRefused(world, target),
  })),
  {
    name: 'sends on the canonical path: unreserved characters unescaped, escapes in upper case',
    async check(world) {
      expect((await askEcho(world, { host, target: '/echo/%7Euser/%e2%82%ac/%41%2a' })).target).toBe(
        '/echo/~user/%E2%82%AC/A%2A',
      )
    },
  },
  {
    name: 'sends on the query as it came',
    async check(world) {
      const query = '?a=%2f..%2F&b=%e2&&c=+x&d=/../&e'
      expect((await askEcho(world, { host, target: `/echo/q${query}` })).target).toBe(`/echo/q${query}`)
    },
  },
  {
    name: 'strips leading segments, or sends another path, with the query',
    async check(world) {
      expect((await askEcho(world, { host, target: '/stripped/echo/x?y=1' })).target).toBe('/echo/x?y=1')
      expect((await askEcho(world, { host, target: '/stripped' })).target).toBe('/')
      expect((await askEcho(world, { host, target: '/renamed/x/y?z=1' })).target).toBe('/echo/renamed?z=1')
    },
  },
  {
    name: 'sends on the method and the body',
    async check(world) {
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
        const echo = await askEcho(world, { host, target: '/echo', method, body: '{"a":1}' })
        expect([echo.method, echo.body]).toEqual([method, '{"a":1}'])
      }
    },
  },
  {
    name: 'answers 414 for a target that is too long',
    async check(world) {
      const answer = await ask(world, { host, target: `/echo/${'a'.repeat(8_200)}` })
      expect([answer.status, answer.json()]).toMatchObject([414, { limit: 'targetBytesMax', value: 8_192 }])
    },
  },
]

async function checkRefused(world: World, target: string): Promise<void> {
  const answer = await ask(world, { host, target })
  expect([answer.status, answer.json()['code']]).toEqual([400, 'ambiguous_path'])
}
