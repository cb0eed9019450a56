import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { gunzipSync, gzipSync } from 'node:zlib'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Table } from '#edge/table.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { get } from '../support/get.ts'
import type { Got } from '../support/get.ts'

/** How an origin answers one path: what came there, and with what each time. */
interface Page {
  requests: IncomingMessage[]
  answer(request: IncomingMessage, response: ServerResponse, count: number): void
}

const adminToken = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='
const pages = new Map<string, Page>()
const origin = createServer((request, response) => {
  const page = pages.get(new URL(request.url ?? '', 'http://origin').pathname)
  if (!page) return response.writeHead(404).end()
  page.requests.push(request)
  return page.answer(request, response, page.requests.length)
})
let gateway: TestGateway
let made = 0
const secret = 'c2VjcmV0cy1vZi1jYWNoZXMtYXJlLW5vdC1rZXB0LWhlcmU='
const tokens = { secret, ada: '' }

/** A page of its own for each test; its URL and what the origin saw. */
function createPage(answer: Page['answer'], row = 'kept') {
  const path = `/${row}/${made++}`
  const page: Page = { requests: [], answer }
  pages.set(path, page)
  const url = `http://shop.example${path}`
  return {
    path,
    url,
    page,
    get: (headers: Record<string, string> = {}, method = 'GET') => get(gateway.port, url, headers, method),
  }
}

/** Always the same text, with these fields; `{n}` is how often it was asked for. */
const texts =
  (fields: Record<string, string>, text = 'answer {n}', status = 200): Page['answer'] =>
  (_, response, count) => {
    const body = text.replace('{n}', String(count))
    response.writeHead(status, { 'Content-Length': Buffer.byteLength(body), ...fields }).end(body)
  }

/** Without the seconds, which depend on how long the test has taken. */
const verdictOf = ({ headers }: Got): string => String(headers['cache-status']).replace(/ttl=(-?)\d+/, 'ttl=$1n')
const bodies = (answers: Got[]): string[] => answers.map(({ body }) => body.toString())

/** Resolves once `done` says so; fails when that takes long. */
async function until(done: () => boolean | Promise<boolean>): Promise<void> {
  for (let left = 2_000; left > 0; left--) {
    if (await done()) return
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  throw new Error('it did not happen')
}

beforeAll(async () => {
  origin.listen(0, '127.0.0.1')
  await once(origin, 'listening')
  const { port } = origin.address() as AddressInfo
  tokens.ada = await new SignJWT({ sub: 'ada' })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1 h')
    .sign(new TextEncoder().encode(secret))
  const table: Table = {
    name: 'shop',
    upstreams: {
      app: { servers: [`http://127.0.0.1:${port}`] },
      dead: { servers: ['http://127.0.0.1:1'] },
    },
    keys: { own: { secret: tokens.secret, algorithms: ['HS256'] } },
    sites: [
      {
        hosts: ['shop.example', 'other.example'],
        routes: [
          { path: '/kept/*', methods: ['GET'], cache: 'shared', proxy: { to: 'app' } },
          { path: '/kept/*', proxy: { to: 'app' } },
          { path: '/compressed/*', cache: 'shared', compress: true, proxy: { to: 'app' } },
          {
            path: '/ruled/*',
            cache: { shared: { freshMs: 60_000, vary: ['X-Tenant'], entryBytesMax: 100 }, control: 'no-cache' },
            proxy: { to: 'app' },
          },
          {
            path: '/limited/*',
            cache: 'shared',
            limit: { by: { header: 'x-key' }, requests: 2, per: '1 h' },
            proxy: { to: 'app' },
          },
          { path: '/guarded/*', cache: 'shared', auth: { jwt: 'own', from: { query: 'token' } }, proxy: { to: 'app' } },
          { path: '/chosen/*', cache: 'shared', matchHeaders: { 'x-beta': true }, proxy: { to: 'app', path: '/beta' } },
          { path: '/chosen/*', cache: 'shared', proxy: { to: 'app' } },
        ],
      },
    ],
  }
  gateway = await startTestGateway(table, { adminToken })
})

afterAll(async () => {
  origin.closeAllConnections()
  origin.close()
  await gateway.stop()
})

describe('a kept answer', () => {
  it('is sent without asking the upstream, with its age and what the cache did', async () => {
    const { page, get: ask } = createPage(texts({ 'Cache-Control': 'max-age=60', ETag: '"1"', Age: '10' }))
    const [first, second] = [await ask(), await ask()]
    expect(page.requests.length).toBe(1)
    expect(bodies([first, second])).toEqual(['answer 1', 'answer 1'])
    expect([verdictOf(first), verdictOf(second)]).toEqual(['Daemun; fwd=uri-miss; stored', 'Daemun; hit; ttl=n'])
    expect(second.headers).toMatchObject({
      'cache-control': 'max-age=60',
      etag: '"1"',
      age: expect.stringMatching(/^1\d$/),
      date: first.headers.date,
      'content-length': '8',
      'x-content-type-options': 'nosniff',
    })
    expect(second.headers['x-request-id']).not.toBe(first.headers['x-request-id'])
  })

  it('answers HEAD', async () => {
    const { page, get: ask } = createPage(texts({ 'Cache-Control': 'max-age=60' }))
    await ask()
    const head = await ask({}, 'HEAD')
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, '8', 0])
    expect(page.requests.length).toBe(1)
  })

  it.each([
    [{ 'If-None-Match': '"1"' }, 304],
    [{ 'If-None-Match': 'W/"1", "2"' }, 304],
    [{ 'If-None-Match': '*' }, 304],
    [{ 'If-None-Match': '"2"' }, 200],
    [{ 'If-Modified-Since': 'Thu, 01 Jan 2026 00:00:00 GMT' }, 304],
    [{ 'If-Modified-Since': 'Wed, 31 Dec 2025 23:59:59 GMT' }, 200],
    [{ 'If-None-Match': '"2"', 'If-Modified-Since': 'Thu, 01 Jan 2026 00:00:00 GMT' }, 200],
  ])('answers the condition %j with %i, at first and from the store', async (condition, status) => {
    const { page, get: ask } = createPage(
      texts({ 'Cache-Control': 'max-age=60', ETag: '"1"', 'Last-Modified': 'Thu, 01 Jan 2026 00:00:00 GMT' }),
    )
    const first = await ask(condition as Record<string, string>)
    await until(async () => verdictOf(await ask()).includes('hit'))
    const second = await ask(condition as Record<string, string>)
    expect([first.status, second.status]).toEqual([status, status])
    if (status === 304) expect(second.headers).toMatchObject({ etag: '"1"', 'cache-control': 'max-age=60' })
    expect(second.body.length).toBe(status === 304 ? 0 : 8)
    expect(page.requests.length).toBe(1)
    expect(page.requests[0]?.headers['if-none-match']).toBeUndefined()
  })

  it('gives parts of itself', async () => {
    const { page, get: ask } = createPage(texts({ 'Cache-Control': 'max-age=60', ETag: '"1"' }, '0123456789'))
    const missed = await ask({ Range: 'bytes=2-4' })
    expect([missed.status, verdictOf(missed)]).toEqual([200, 'Daemun; fwd=uri-miss'])
    await ask()
    const part = await ask({ Range: 'bytes=2-4' })
    expect([part.status, part.body.toString(), part.headers['content-range']]).toEqual([206, '234', 'bytes 2-4/10'])
    expect((await ask({ Range: 'bytes=-3' })).body.toString()).toBe('789')
    expect((await ask({ Range: 'bytes=20-' })).status).toBe(416)
    expect((await ask({ Range: 'bytes=2-4', 'If-Range': '"1"' })).status).toBe(206)
    expect((await ask({ Range: 'bytes=2-4', 'If-Range': '"2"' })).status).toBe(200)
    expect(page.requests.length).toBe(2)
  })

  it('is told apart by host, query and what it varies by', async () => {
    const {
      page,
      url,
      get: ask,
    } = createPage((request, response) => {
      const text = [request.headers.host, request.url, request.headers['accept-language']].join(' ')
      texts({ 'Cache-Control': 'max-age=60', Vary: 'Accept-Language' }, text)(request, response, 1)
    })
    const ways: [string, Record<string, string>][] = [
      [url, {}],
      [`${url}?a`, {}],
      [url.replace('shop', 'other'), {}],
      [url, { 'Accept-Language': 'ko' }],
      [url, { 'Accept-Language': 'en' }],
      [url.replace('shop.example', 'shop.example:81'), {}],
    ]
    const askAll = (): Promise<Got[]> => Promise.all(ways.map(([one, headers]) => get(gateway.port, one, headers)))
    const first = bodies(await askAll())
    const again = await askAll()
    expect(new Set(first).size).toBe(ways.length)
    expect(bodies(again)).toEqual(first)
    expect(again.map(verdictOf).filter((verdict) => verdict.includes('hit')).length).toBe(ways.length)
    expect(page.requests.length).toBe(ways.length)
    const other = await ask({ 'Accept-Language': 'de', 'Cache-Control': 'only-if-cached' })
    expect([other.status, JSON.parse(other.body.toString()).code]).toEqual([504, 'not_cached'])
  })

  it('takes the upstream’s encoding only for those who take it', async () => {
    const encoded = gzipSync('a text')
    const { page, get: ask } = createPage((request, response) => {
      const takes = /gzip/.test(String(request.headers['accept-encoding'] ?? ''))
      response.writeHead(200, { 'Cache-Control': 'max-age=60', ...(takes && { 'Content-Encoding': 'gzip' }) })
      response.end(takes ? encoded : 'a text')
    })
    await ask({ 'Accept-Encoding': 'gzip, br' })
    const same = await ask({ 'Accept-Encoding': 'br;q=0.9, gzip' })
    expect([verdictOf(same), gunzipSync(same.body).toString()]).toEqual(['Daemun; hit; ttl=n', 'a text'])
    expect((await ask()).body.toString()).toBe('a text')
    expect(page.requests.length).toBe(2)
  })

  it('is compressed once where the row asks for it', async () => {
    const { page, get: ask } = createPage(
      texts({ 'Cache-Control': 'max-age=60', 'Content-Type': 'text/plain', ETag: '"1"' }, 'text '.repeat(1_000)),
      'compressed',
    )
    const takes = { 'Accept-Encoding': 'gzip' }
    expect(gunzipSync((await ask(takes)).body).length).toBe(5_000)
    let got = await ask(takes)
    await until(async () => (got = await ask(takes)).headers['content-encoding'] === 'gzip')
    expect(gunzipSync(got.body).toString()).toBe('text '.repeat(1_000))
    expect(got.headers).toMatchObject({
      vary: 'Accept-Encoding',
      etag: 'W/"1"',
      'content-length': `${got.body.length}`,
    })
    const plain = await ask()
    expect([plain.body.length, plain.headers.vary]).toEqual([5_000, 'Accept-Encoding'])
    expect((await ask({ ...takes, 'If-None-Match': 'W/"1"' })).status).toBe(304)
    expect(page.requests.length).toBe(1)
  })

  it('is kept as the row says where the upstream says nothing', async () => {
    const { page, get: ask } = createPage(texts({}), 'ruled')
    const [first, second] = [await ask({ 'X-Tenant': 'a' }), await ask({ 'X-Tenant': 'a' })]
    expect([verdictOf(second), second.headers['cache-control']]).toEqual(['Daemun; hit; ttl=n', 'no-cache'])
    expect(first.headers['cache-control']).toBe('no-cache')
    expect((await ask({ 'X-Tenant': 'b' })).body.toString()).toBe('answer 2')
    expect(page.requests.length).toBe(2)
  })
})

describe('an answer', () => {
  it('that breaks off is not kept', async () => {
    const { path, page } = createPage((_, response, count) => {
      if (count > 1) return texts({ 'Cache-Control': 'max-age=60' })(_, response, count)
      response.writeHead(200, { 'Cache-Control': 'max-age=60', 'Content-Length': '100' })
      return void response.write('half', () => response.destroy())
    })
    const url = `http://shop.example${path}`
    await expect(get(gateway.port, url)).rejects.toThrow('aborted')
    const next = await get(gateway.port, url)
    expect([next.body.toString(), page.requests.length]).toEqual(['answer 2', 2])
  })

  it('whose end is only that of its connection is not kept', async () => {
    const { get: ask, page } = createPage((_, response) => {
      response.socket?.end('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nsome of it?')
    })
    expect(verdictOf(await ask())).toBe('Daemun; fwd=uri-miss; detail="no end"')
    await ask()
    expect(page.requests.length).toBe(2)
  })

  it('that is too long is sent and not kept, with and without a length', async () => {
    const long = 'x'.repeat(1_000)
    const whole = createPage(texts({}, long), 'ruled')
    const chunked = createPage((_, response) => {
      response.write(long.slice(0, 50))
      setImmediate(() => response.end(long.slice(50)))
    }, 'ruled')
    for (const { get: ask, page } of [whole, chunked]) {
      expect(bodies([await ask(), await ask()])).toEqual([long, long])
      expect(page.requests.length).toBe(2)
    }
  })

  it('is kept whole although its first client leaves', async () => {
    let finish = (): void => {}
    const {
      path,
      page,
      get: ask,
    } = createPage((_, response) => {
      response.writeHead(200, { 'Cache-Control': 'max-age=60', 'Content-Length': '8' })
      response.write('half')
      finish = () => response.end('more')
    })
    const client = connect(gateway.port, '127.0.0.1')
    client.write(`GET ${path} HTTP/1.1\r\nHost: shop.example\r\n\r\n`)
    await once(client, 'data')
    client.resetAndDestroy()
    await until(() => gateway.log().some((line) => line['path'] === path && line['end'] === 'client_gone'))
    finish()
    await until(async () => verdictOf(await ask({ 'Cache-Control': 'only-if-cached' })).includes('hit'))
    expect((await ask()).body.toString()).toBe('halfmore')
    expect(page.requests.length).toBe(1)
  })

  it('loses its Cache-Tag on the way to clients', async () => {
    const { get: ask } = createPage(texts({ 'Cache-Control': 'max-age=60', 'Cache-Tag': 'a, b' }))
    expect([(await ask()).headers['cache-tag'], (await ask()).headers['cache-tag']]).toEqual([undefined, undefined])
  })
})

describe('a row', () => {
  it('checks limits before it gives what is kept', async () => {
    const { page, get: ask } = createPage(texts({ 'Cache-Control': 'max-age=60' }), 'limited')
    const key = { 'X-Key': page.requests.length + String(made) }
    const statuses = [await ask(key), await ask(key), await ask(key)].map(({ status }) => status)
    expect(statuses).toEqual([200, 200, 429])
    expect(page.requests.length).toBe(1)
  })

  it('checks tokens before, and gives nobody what was made for another subject', async () => {
    const [own, all] = [
      createPage(texts({ 'Cache-Control': 'max-age=60' }), 'guarded'),
      createPage(texts({ 'Cache-Control': 'public, max-age=60' }), 'guarded'),
    ]
    for (const { page, url } of [own, all]) {
      expect((await get(gateway.port, url)).status).toBe(401)
      expect(page.requests.length).toBe(0)
    }
    const ask = (url: string, token: string): Promise<Got> => get(gateway.port, `${url}?token=${token}`)
    expect(bodies([await ask(own.url, tokens.ada), await ask(own.url, tokens.ada)])).toEqual(['answer 1', 'answer 2'])
    expect(bodies([await ask(all.url, tokens.ada), await ask(all.url, tokens.ada)])).toEqual(['answer 1', 'answer 1'])
  })

  it('has answers of its own', async () => {
    const { get: ask } = createPage(texts({ 'Cache-Control': 'max-age=60' }), 'chosen')
    pages.set('/beta', { requests: [], answer: texts({ 'Cache-Control': 'max-age=60' }, 'beta') })
    const beta = { 'X-Beta': '1' }
    expect(bodies([await ask(), await ask(beta), await ask(), await ask(beta)])).toEqual([
      'answer 1',
      'beta',
      'answer 1',
      'beta',
    ])
  })
})

describe('the sides of an upstream', () => {
  it('keep answers of their own', async () => {
    const sides = ['blue', 'green'].map((name) =>
      createServer((request, response) => texts({ 'Cache-Control': 'max-age=60' }, name)(request, response, 1)),
    )
    for (const side of sides) side.listen(0, '127.0.0.1')
    await Promise.all(sides.map((side) => once(side, 'listening')))
    const [blue = '', green = ''] = sides.map((side) => `http://127.0.0.1:${(side.address() as AddressInfo).port}`)
    const split = {
      sides: { blue: { servers: [blue], weight: 50 }, green: { servers: [green], weight: 50 } },
      force: { header: 'x-side' },
    }
    const other = await startTestGateway({
      name: 'sides',
      upstreams: { app: { split } },
      sites: [{ hosts: ['sides.example'], routes: [{ path: '/*', cache: 'shared', proxy: { to: 'app' } }] }],
    })
    const ask = (side: string): Promise<Got> => get(other.port, 'http://sides.example/', { 'X-Side': side })
    const answers = [await ask('blue'), await ask('green'), await ask('blue'), await ask('green')]
    expect(bodies(answers)).toEqual(['blue', 'green', 'blue', 'green'])
    expect(answers.slice(2).map(verdictOf)).toEqual(['Daemun; hit; ttl=n', 'Daemun; hit; ttl=n'])
    await other.stop()
    for (const side of sides) {
      side.closeAllConnections()
      side.close()
    }
  })
})

describe('a stale answer', () => {
  const stale = { 'Cache-Control': 'max-age=60', Age: '100' }

  it('is brought up to date by a 304', async () => {
    const { page, get: ask } = createPage((request, response, count) => {
      if (count === 1) return texts({ ...stale, ETag: '"1"', 'X-Version': '1' })(request, response, count)
      return void response.writeHead(304, { 'Cache-Control': 'max-age=90', ETag: '"1"', 'X-Version': '2' }).end()
    })
    await ask()
    const second = await ask({ 'If-None-Match': '"7"' })
    expect(page.requests[1]?.headers['if-none-match']).toBe('"1"')
    expect([second.status, second.body.toString(), verdictOf(second)]).toEqual([
      200,
      'answer 1',
      'Daemun; fwd=stale; fwd-status=304; stored',
    ])
    expect(second.headers).toMatchObject({ 'x-version': '2', 'cache-control': 'max-age=90', 'content-length': '8' })
    expect(verdictOf(await ask())).toBe('Daemun; hit; ttl=n')
    expect(page.requests.length).toBe(2)
  })

  it('is replaced by a new one', async () => {
    const { get: ask } = createPage((request, response, count) =>
      texts(count === 1 ? { ...stale, ETag: '"1"' } : { 'Cache-Control': 'max-age=60', ETag: '"2"' })(
        request,
        response,
        count,
      ),
    )
    expect(bodies([await ask(), await ask(), await ask()])).toEqual(['answer 1', 'answer 2', 'answer 2'])
  })

  it('is sent while a new one is fetched behind it', async () => {
    const { page, get: ask } = createPage((request, response, count) =>
      texts(
        count === 1
          ? { 'Cache-Control': 'max-age=60, stale-while-revalidate=90', Age: '100' }
          : { 'Cache-Control': 'max-age=60' },
      )(request, response, count),
    )
    await ask()
    const second = await ask()
    expect([second.body.toString(), verdictOf(second)]).toEqual(['answer 1', 'Daemun; hit; ttl=-n'])
    await until(async () => (await ask()).body.toString() === 'answer 2')
    expect(page.requests.length).toBe(2)
  })

  it.each([500, 502, 503, 504])('stands in when the upstream answers %i', async (status) => {
    const { get: ask, page } = createPage((request, response, count) =>
      count === 1 ? texts(stale)(request, response, count) : texts({}, 'broken', status)(request, response, count),
    )
    await ask()
    const second = await ask()
    expect([second.status, second.body.toString(), verdictOf(second)]).toEqual([
      200,
      'answer 1',
      `Daemun; fwd=stale; fwd-status=${status}; detail="the upstream fails"`,
    ])
    const third = await ask()
    expect([third.body.toString(), page.requests.length]).toEqual(['answer 1', 2])
    expect((await ask({ 'Cache-Control': 'no-cache' })).status).toBe(status)
  })

  it('stands in when the upstream breaks off', async () => {
    const { get: ask } = createPage((request, response, count) =>
      count === 1 ? texts(stale)(request, response, count) : void response.destroy(),
    )
    await ask()
    expect((await ask()).body.toString()).toBe('answer 1')
  })

  it('stands in when nobody listens there any more, at once', async () => {
    const own = createServer(texts(stale) as (request: IncomingMessage, response: ServerResponse) => void)
    own.listen(0, '127.0.0.1')
    await once(own, 'listening')
    const { port } = own.address() as AddressInfo
    const other = await startTestGateway({
      name: 'gone',
      upstreams: { app: { servers: [`http://127.0.0.1:${port}`] } },
      sites: [{ hosts: ['gone.example'], routes: [{ path: '/*', cache: 'shared', proxy: { to: 'app' } }] }],
    })
    await get(other.port, 'http://gone.example/a')
    own.closeAllConnections()
    own.close()
    await once(own, 'close')
    const answers = await Promise.all(Array.from({ length: 20 }, () => get(other.port, 'http://gone.example/a')))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect((await get(other.port, 'http://gone.example/b')).status).toBe(502)
    await other.stop()
  })

  it('does not stand in where the upstream forbids it', async () => {
    const { get: ask } = createPage((request, response, count) =>
      count === 1
        ? texts({ ...stale, 'Cache-Control': 'max-age=60, must-revalidate' })(request, response, count)
        : texts({}, 'broken', 503)(request, response, count),
    )
    await ask()
    expect((await ask()).status).toBe(503)
  })
})

describe('many requests for one answer', () => {
  it('ask the upstream once', async () => {
    let answer = (): void => {}
    const { page, get: ask } = createPage((request, response, count) => {
      answer = () => texts({ 'Cache-Control': 'max-age=60' })(request, response, count)
    })
    const asked = Array.from({ length: 1_000 }, () => ask())
    await until(async () => (await gateway.metric('daemun_open_requests')) >= 1_000)
    expect(page.requests.length).toBe(1)
    answer()
    const answers = await Promise.all(asked)
    expect(new Set(bodies(answers))).toEqual(new Set(['answer 1']))
    expect(answers.map(verdictOf).filter((verdict) => verdict.includes('collapsed')).length).toBe(999)
    expect(page.requests.length).toBe(1)
  })

  it('go on by themselves, all at once, when it may not be kept', async () => {
    const held: (() => void)[] = []
    const { page, get: ask } = createPage((request, response, count) => {
      held.push(() => texts({ 'Cache-Control': 'private, max-age=60' })(request, response, count))
    })
    const asked = Array.from({ length: 20 }, () => ask())
    await until(async () => held.length === 1 && (await gateway.metric('daemun_open_requests')) >= 20)
    held.shift()?.()
    await until(() => held.length === 19)
    for (const answer of held) answer()
    expect(new Set(bodies(await Promise.all(asked))).size).toBe(20)
    const more = Array.from({ length: 5 }, () => ask())
    await until(() => page.requests.length === 25)
    for (const answer of held.slice(19)) answer()
    await Promise.all(more)
  })

  it('share what the upstream has to say when it fails', async () => {
    const { page, get: ask } = createPage((_, response, count) => {
      if (count === 1)
        void until(async () => (await gateway.metric('daemun_open_requests')) >= 10).then(() => response.destroy())
      else response.destroy()
    })
    const answers = await Promise.all(Array.from({ length: 10 }, () => ask()))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([502]))
    expect(page.requests.length).toBeLessThanOrEqual(2)
  })

  it('are answered when the one who asked first leaves', async () => {
    const held: (() => void)[] = []
    const {
      path,
      page,
      get: ask,
    } = createPage((request, response, count) => {
      held.push(() => texts({ 'Cache-Control': 'max-age=60' })(request, response, count))
    })
    const client = connect(gateway.port, '127.0.0.1')
    client.write(`GET ${path} HTTP/1.1\r\nHost: shop.example\r\n\r\n`)
    await until(() => held.length === 1)
    const asked = Array.from({ length: 5 }, () => ask())
    await until(async () => (await gateway.metric('daemun_open_requests')) >= 6)
    client.resetAndDestroy()
    await until(() => held.length === 2)
    held[1]?.()
    expect(new Set(bodies(await Promise.all(asked)))).toEqual(new Set(['answer 2']))
    expect(page.requests.length).toBe(2)
  })
})

describe('a change', () => {
  it.each(['POST', 'PUT', 'DELETE', 'PATCH'])('by %s makes what is kept doubtful', async (method) => {
    const { get: ask, page } = createPage(texts({ 'Cache-Control': 'max-age=60' }))
    await ask()
    await ask({}, method)
    expect((await ask()).body.toString()).toBe('answer 3')
    expect(page.requests.length).toBe(3)
  })

  it('that was refused changes nothing', async () => {
    const { get: ask } = createPage((request, response, count) =>
      texts({ 'Cache-Control': 'max-age=60' }, 'answer {n}', request.method === 'POST' ? 422 : 200)(
        request,
        response,
        count,
      ),
    )
    await ask()
    await ask({}, 'POST')
    expect((await ask()).body.toString()).toBe('answer 1')
  })

  it('tells what else it has changed, of the same origin only', async () => {
    const [mine, foreign] = [
      createPage(texts({ 'Cache-Control': 'max-age=60' })),
      createPage(texts({ 'Cache-Control': 'max-age=60' })),
    ]
    const change = createPage(
      texts({ Location: mine.path, 'Content-Location': foreign.url.replace('shop', 'other') }, '', 201),
    )
    const elsewhere = foreign.url.replace('shop', 'other')
    await Promise.all([mine.get(), get(gateway.port, elsewhere)])
    await change.get({}, 'POST')
    expect((await mine.get()).body.toString()).toBe('answer 2')
    expect((await get(gateway.port, elsewhere)).body.toString()).toBe('answer 1')
  })
})

describe('a purge', () => {
  const purge = async (selector: unknown): Promise<unknown> => {
    const answer = await fetch(`${gateway.adminUrl}/purge`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${adminToken}` },
      body: JSON.stringify(selector),
    })
    return answer.json()
  }
  const kept = (tags = ''): ReturnType<typeof createPage> =>
    createPage(texts({ 'Cache-Control': 'max-age=60', ...(tags && { 'Cache-Tag': tags }) }))

  it('forgets a URL with its variants', async () => {
    const page = createPage(texts({ 'Cache-Control': 'max-age=60', Vary: 'Accept-Language' }))
    const other = kept()
    await Promise.all([page.get(), page.get({ 'Accept-Language': 'ko' }), other.get()])
    expect(await purge({ url: page.url.replace('/kept', '/%6bept') })).toEqual({ purged: 2 })
    expect([verdictOf(await page.get()), verdictOf(await other.get())]).toEqual([
      'Daemun; fwd=uri-miss; stored',
      'Daemun; hit; ttl=n',
    ])
  })

  it('forgets what lies below a prefix, by whole segments', async () => {
    const page = kept()
    const queried = `${page.url}?a=1`
    const neighbour = `${page.url}x`
    pages.set(`${page.path}x`, page.page)
    for (const url of [page.url, queried, neighbour]) await get(gateway.port, url)
    expect(await purge({ prefix: page.url })).toEqual({ purged: 2 })
    expect(verdictOf(await get(gateway.port, neighbour))).toContain('hit')
  })

  it('forgets what carries a tag', async () => {
    const [a, b, c] = [kept('product-1, products'), kept('products'), kept('product-11')]
    await Promise.all([a.get(), b.get(), c.get()])
    expect(await purge({ tag: 'products' })).toEqual({ purged: 2 })
    const verdicts = [await a.get(), await b.get(), await c.get()].map(verdictOf)
    expect(verdicts).toEqual(['Daemun; fwd=uri-miss; stored', 'Daemun; fwd=uri-miss; stored', 'Daemun; hit; ttl=n'])
  })

  it('reaches what is on its way', async () => {
    let answer = (): void => {}
    const { url, get: ask } = createPage((request, response, count) => {
      if (count > 1) return texts({ 'Cache-Control': 'max-age=60' })(request, response, count)
      answer = () => texts({ 'Cache-Control': 'max-age=60' })(request, response, count)
      return undefined
    })
    const first = ask()
    await until(async () => (await gateway.metric('daemun_upstream_connections')) > 0)
    await purge({ url })
    answer()
    expect((await first).body.toString()).toBe('answer 1')
    expect((await ask()).body.toString()).toBe('answer 2')
  })

  it.each([
    [{}, "name exactly one of 'url', 'prefix' and 'tag', as text"],
    [{ url: '/x' }, "'/x' is no URL: write it as clients do, such as https://shop.example/products?page=2"],
    [{ url: 'http://shop.example/a/../b' }, "'http://shop.example/a/../b' is no URL: the path has a dot segment"],
    [{ path: '/x' }, "there is no 'path': known: url, prefix, tag"],
    [{ tag: 'a b' }, "'a b' is not one tag"],
    [null, "name exactly one of 'url', 'prefix' and 'tag', as text"],
  ])('of %j says what is wrong', async (selector, detail) => {
    expect(await purge(selector)).toEqual({ code: 'malformed_selector', detail })
  })
})

describe('what the gateway says of its cache', () => {
  it('stands in the access log and in the metrics', async () => {
    const { path, get: ask } = createPage(texts({ 'Cache-Control': 'max-age=60' }))
    await ask()
    await ask()
    await ask({ 'If-Match': '"1"' })
    await until(() => gateway.log().filter((line) => line['path'] === path).length === 3)
    const lines = gateway.log().filter((line) => line['path'] === path)
    expect(lines.map((line) => line['cache'])).toEqual(['miss', 'hit', 'bypass'])
    expect(await gateway.metric('daemun_cache_entries')).toBeGreaterThan(0)
    expect(await gateway.metric('daemun_cache_bytes')).toBeGreaterThan(1_024)
  })
})
