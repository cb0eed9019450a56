import { expect } from 'vitest'
import { ask } from '../suite.ts'
import type { Answer, Case, World } from '../suite.ts'

const host = 'files.example'
const page: [string, string][] = [
  ['Accept', 'text/html,*/*;q=0.8'],
  ['Sec-Fetch-Mode', 'navigate'],
]
const part: [string, string][] = [
  ['Accept', '*/*'],
  ['Sec-Fetch-Mode', 'no-cors'],
]

const get = (world: World, target: string, headers: [string, string][] = []): Promise<Answer> =>
  ask(world, { host, target, headers })

export const files: Case[] = [
  {
    name: 'answers with a file, its type and how long it may be kept',
    async check(world) {
      const factsOf = async (target: string): Promise<(string | number | undefined)[]> => {
        const answer = await get(world, target)
        return [answer.status, answer.field('content-type'), answer.field('cache-control')]
      }
      const never = 'no-cache, no-store, must-revalidate'
      expect(await factsOf('/app.js')).toEqual([
        200,
        'text/javascript; charset=utf-8',
        'public, max-age=31536000, immutable',
      ])
      expect(await factsOf('/sw.js')).toEqual([200, 'text/javascript; charset=utf-8', never])
      expect(await factsOf('/logo.svg')).toEqual([200, 'image/svg+xml; charset=utf-8', 'no-cache'])
      expect(await factsOf('/')).toEqual([200, 'text/html; charset=utf-8', never])
      expect(await factsOf('/index.html')).toEqual([200, 'text/html; charset=utf-8', never])
      expect(await factsOf('/two%20words.txt')).toEqual([200, 'text/plain; charset=utf-8', 'no-cache'])
    },
  },
  {
    name: 'sends the whole file with its length and security headers',
    async check(world) {
      const answer = await get(world, '/app.js')
      expect([answer.text, answer.field('x-content-type-options')]).toEqual(['console.log("shop")\n', 'nosniff'])
      expect(answer.field('content-length') ?? '20').toBe('20')
    },
  },
  {
    name: 'answers HEAD without the file',
    async check(world) {
      const answer = await ask(world, { host, target: '/app.js', method: 'HEAD' })
      expect([answer.status, answer.text, answer.field('content-type')]).toEqual([
        200,
        '',
        'text/javascript; charset=utf-8',
      ])
    },
  },
  {
    name: 'answers 304 to whoever has the file',
    async check(world) {
      const etag = (await get(world, '/app.js')).field('etag') ?? ''
      expect(etag).toMatch(/^(W\/)?"[^"]+"$/)
      for (const tag of [etag, `"other", ${etag}`, `W/${etag.replace(/^W\//, '')}`, '*']) {
        const answer = await get(world, '/app.js', [['If-None-Match', tag]])
        expect([tag, answer.status, answer.text, answer.field('etag')]).toEqual([tag, 304, '', etag])
      }
      expect((await get(world, '/app.js', [['If-None-Match', '"other"']])).status).toBe(200)
    },
  },
  {
    name: 'keeps for a year what has a hash in its name, and only that',
    async check(world) {
      const controlOf = async (target: string): Promise<string | undefined> =>
        (await get(world, target)).field('cache-control')
      expect(await controlOf('/plain/app.3f9a1c2b.js')).toBe('public, max-age=31536000, immutable')
      expect(await controlOf('/plain/app.js')).toBe('no-cache')
    },
  },
  {
    name: "sends Unity's builds under their names, as what is inside them",
    async check(world) {
      const answer = await get(world, '/Build/game.wasm.br', [['Accept-Encoding', 'br']])
      expect([answer.status, answer.field('content-type'), answer.field('content-encoding')]).toEqual([
        200,
        'application/wasm',
        'br',
      ])
    },
  },
  {
    name: 'sends the part of a file that is asked for, or the whole',
    async check(world) {
      const some = await get(world, '/app.js', [['Range', 'bytes=0-6']])
      expect([some.status, some.text, some.field('content-range')]).toEqual([206, 'console', 'bytes 0-6/20'])
      const beyond = await get(world, '/app.js', [['Range', 'bytes=20-']])
      expect([beyond.status, beyond.field('content-range')]).toEqual([416, 'bytes */20'])
      expect((await get(world, '/app.js', [['Range', 'bytes=0-1,4-5']])).status).toBe(200)
    },
  },
  {
    name: 'answers 304 to whoever has had the file since it changed',
    async check(world) {
      const changed = (await get(world, '/app.js')).field('last-modified') ?? ''
      expect((await get(world, '/app.js', [['If-Modified-Since', changed]])).status).toBe(304)
    },
  },
  {
    name: "shows an SPA's index for its pages, and 404 for a missing script",
    async check(world) {
      const shown = await get(world, '/orders/7', page)
      expect([shown.status, shown.text]).toEqual([200, '<!doctype html><title>Shop</title>\n'])
      expect(shown.field('cache-control')).toBe('no-cache, no-store, must-revalidate')
      expect((await get(world, '/orders/7')).status).toBe(200)
      expect((await get(world, '/missing.js', part)).status).toBe(404)
      expect((await get(world, '/missing.js')).status).toBe(404)
      expect((await get(world, '/orders/7', part)).status).toBe(404)
    },
  },
  {
    name: 'answers 404 for what is not there where there is no SPA',
    async check(world) {
      const answer = await get(world, '/plain/orders', page)
      expect([answer.status, answer.json()]).toMatchObject([404, { code: 'not_found', route: 'shop /plain/*' }])
    },
  },
  {
    name: 'looks below the folder of the row, with its headers',
    async check(world) {
      expect((await get(world, '/plain/app.js')).text).toBe('console.log("shop")\n')
      const docs = await get(world, '/docs')
      expect([docs.text, docs.field('cache-control'), docs.field('x-frame-options')]).toEqual([
        '<!doctype html><title>Docs</title>\n',
        'max-age=60',
        'DENY',
      ])
      expect((await get(world, '/plain/docs/')).text).toBe('<!doctype html><title>Docs</title>\n')
    },
  },
  {
    name: 'gives out no hidden files and nothing above the folder, but what RFC 8615 puts there',
    async check(world) {
      expect((await get(world, '/plain/.well-known/security.txt')).text).toBe('contact: mira\n')
      for (const target of [
        '/plain/.hidden',
        '/plain/%2ehidden',
        '/plain/source.txt',
        '/plain/..%2fsource.txt',
        '/plain/.assetsignore',
      ])
        expect([target, [400, 404].includes((await get(world, target)).status)]).toEqual([target, true])
    },
  },
  {
    name: 'gives out nothing that stands beside the pages, whatever a table names',
    async check(world) {
      for (const target of ['/other/source.txt', '/other/web/app.js'])
        expect((await get(world, target)).status).toBe(404)
    },
  },
  {
    name: 'only reads files',
    async check(world) {
      const answer = await ask(world, { host, target: '/app.js', method: 'POST', body: 'x' })
      expect([answer.status, answer.field('allow')]).toEqual([405, 'GET, HEAD'])
    },
  },
]
