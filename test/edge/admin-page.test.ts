import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { limits } from '#edge/limits.ts'
import { pageFiles, pageFolder } from '#edge/node/admin-page.ts'
import type { Status } from '#edge/status.ts'
import { runCli, createFolder } from '../support/cli.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startOrigin } from '../support/origin.ts'
import type { Origin } from '../support/origin.ts'

const toTable = (origin: string) => ({
  name: 'shop',
  upstreams: { app: { servers: [origin] }, dead: { servers: ['http://127.0.0.1:1'] } },
  sites: [
    {
      hosts: ['shop.example'],
      routes: [
        { path: '/a', respond: { status: 200, body: 'a' } },
        { path: '/limited', limit: { by: 'address' as const, requests: 1, per: '1 d' }, respond: { status: 200 } },
        { path: '/dead', proxy: { to: 'dead' } },
        { path: '/echo/*', requestHeaders: { set: { 'X-Api-Key': 'planted-key' } }, proxy: { to: 'app' } },
      ],
    },
  ],
})

let origin: Origin
let gateway: TestGateway

beforeAll(async () => {
  origin = await startOrigin()
  gateway = await startTestGateway(toTable(origin.url))
})
afterAll(async () => {
  await gateway?.stop()
  await origin?.close()
})

interface Asked {
  method?: string
  host?: string
  headers?: Record<string, string>
  body?: string
}

/** As a browser would ask, with a Host of its choice. */
const ask = (
  url: string,
  { method = 'GET', host, headers = {}, body }: Asked = {},
): Promise<{ status: number; headers: Record<string, string>; text: string }> =>
  new Promise((resolve, reject) => {
    const fields = { ...headers, ...(host !== undefined && { host }) }
    const sent = request(url, { method, headers: fields }, async (answer) => {
      let text = ''
      for await (const chunk of answer) text += String(chunk)
      resolve({ status: answer.statusCode ?? 0, headers: answer.headers as Record<string, string>, text })
    })
    sent.once('error', reject)
    sent.end(body)
  })

const serve = (path: string) => ask(`http://127.0.0.1:${gateway.port}${path}`, { host: 'shop.example' })
const admin = (path: string, asked?: Asked) => ask(`${gateway.adminUrl}${path}`, asked)
const readStatus = async (): Promise<Status> => JSON.parse((await admin('/status')).text) as Status

describe("the operators' page", () => {
  it('takes less than 60 KB, gzipped', () => {
    const sizes = Object.values(pageFiles).map(({ file }) => gzipSync(readFileSync(new URL(file, pageFolder))).length)
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(60_000)
  })

  it('names nothing that is not served here, and has no script or style inside', async () => {
    const { text } = await admin('/')
    expect(text).not.toMatch(/<style|<script(?![^>]* src=)|\son\w+=|\sstyle=/)
    const named = [...text.matchAll(/(?:src|href)="([^"#][^"]*)"/g)].map(([, url = '']) => url)
    const scripts = Object.values(pageFiles).flatMap(({ file }) =>
      [...readFileSync(new URL(file, pageFolder), 'utf8').matchAll(/from '\.\/([^']+)'/g)].map(([, url = '']) => url),
    )
    for (const url of [...named, ...scripts].filter((one) => !one.startsWith('data:')))
      expect(Object.keys(pageFiles)).toContain(`/${url}`)
    expect(
      Object.keys(pageFiles).filter((path) => path !== '/' && ![...named, ...scripts].includes(path.slice(1))),
    ).toEqual([])
  })

  it('lets nothing run but its own files, and nobody frame it', async () => {
    const { headers } = await admin('/')
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self';/)
    expect(headers['content-security-policy']).toContain("frame-ancestors 'none'")
    expect(headers['x-content-type-options']).toBe('nosniff')
    expect(headers['cross-origin-resource-policy']).toBe('same-origin')
    expect(headers['access-control-allow-origin']).toBeUndefined()
  })

  it('is not sent again to who has it', async () => {
    const { headers } = await admin('/page.js')
    expect(await admin('/page.js', { headers: { 'if-none-match': headers['etag'] ?? '' } })).toMatchObject({
      status: 304,
      text: '',
    })
  })
})

describe('the Host that operators ask with', () => {
  it.each(['127.0.0.1:9090', 'localhost:9090', 'LOCALHOST', '[::1]:9090', '10.1.2.3'])('may be %s', async (host) => {
    expect((await admin('/status', { host })).status).toBe(200)
  })

  it.each(['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example'])(
    "may not be '%s', which a page from elsewhere could make its own",
    async (host) => {
      for (const path of ['/', '/status', '/metrics', '/status/history']) {
        const { status, text } = await admin(path, { host })
        expect(status).toBe(421)
        expect(JSON.parse(text)).toMatchObject({ code: 'unknown_host' })
      }
    },
  )

  it('may be any where machines look whether all is well', async () => {
    expect((await admin('/healthz', { host: 'gateway.internal' })).status).toBe(200)
    expect((await admin('/readyz', { host: 'gateway.internal' })).status).toBe(200)
  })

  it('may be a name that was declared', async () => {
    const declared = await startTestGateway(toTable(origin.url), { adminHosts: ['gateway.internal'] })
    expect((await ask(`${declared.adminUrl}/status`, { host: 'gateway.internal:9090' })).status).toBe(200)
    await declared.stop()
  })
})

describe('the status', () => {
  it('tells of sites, rows, servers and what went wrong', async () => {
    for (const path of ['/a', '/a', '/limited', '/limited', '/dead?token=planted-token', '/nowhere', '/echo/x'])
      await serve(path)
    await gateway.settled()
    const status = await readStatus()
    expect(status).toMatchObject({ version: 1, state: 'ready', openRequests: 0, certificates: [] })
    const [site] = status.sites
    expect(site).toMatchObject({ table: 'shop', site: 'shop.example', hosts: ['shop.example'] })
    expect(site?.routes.map(({ id, action }) => [id, action])).toEqual([
      ['shop /limited', 'respond 200'],
      ['shop /dead', 'proxy dead'],
      ['shop /a', 'respond 200'],
      ['shop /echo/*', 'proxy app'],
      ['', ''],
    ])
    expect(site?.routes[0]?.limitVerdicts).toEqual({ allowed: 1, refused: 1 })
    expect(status.upstreams.find(({ id }) => id === 'shop/app')).toMatchObject({
      balance: 'round-robin',
      inFlightMax: limits.inFlightMax,
      servers: [{ url: origin.url, up: true, share: 1, inFlight: 0, changedAt: null }],
    })
    expect(status.failedRequests[0]).toMatchObject({
      requestId: expect.stringMatching(/^[\w-]{36}$/),
      method: 'GET',
      host: 'shop.example',
      path: '/dead',
      route: 'shop /dead',
      status: 502,
      code: 'upstream_unreachable',
      cause: 'ECONNREFUSED',
    })
    expect(status.refusedRequests.map(({ code }) => code)).toEqual(['not_found', 'rate_limited'])
    expect(JSON.stringify(status)).not.toContain('planted')
  })

  it('forgets the oldest of many that went wrong', async () => {
    for (let asked = 0; asked <= limits.recentMax; asked++) await serve(`/nowhere/${asked}`)
    await gateway.settled()
    const { refusedRequests } = await readStatus()
    expect(refusedRequests).toHaveLength(limits.recentMax)
    expect(refusedRequests[0]?.path).toBe(`/nowhere/${limits.recentMax}`)
  })

  it('has a history, and says what of it there is not', async () => {
    const points = JSON.parse((await admin('/status/history?range=6h&table=shop&site=shop.example')).text)
    expect(points).toMatchObject({ stepMs: 60_000, requestsPerSecond: { length: limits.historyMinutes } })
    expect(await admin('/status/history?range=1y')).toMatchObject({
      status: 400,
      text: '{"code":"bad_request","detail":"range is \'1y\': write 15m or 6h"}',
    })
    expect((await admin('/status/history?site=shop.example')).status).toBe(400)
    expect((await admin('/status/history?table=shop&route=x')).status).toBe(400)
  })
})

describe('explain', () => {
  const explain = (body: unknown, type = 'application/json') =>
    admin('/explain', { method: 'POST', headers: { 'content-type': type }, body: JSON.stringify(body) })

  it('says what the program says', async () => {
    const folder = createFolder({ 'shop.ts': `export default ${JSON.stringify(toTable(origin.url))}` })
    const url = 'https://shop.example/echo/x?full=1'
    const { stdout } = await runCli(
      ['explain', 'shop.ts', 'POST', url, '-H', 'X-Own: 1', '-H', 'Accept: a', '--from', '192.0.2.1'],
      { folder: folder.path, env: { NODE_ENV: 'production' } },
    )
    folder.remove()
    const headers = [
      ['X-Own', '1'],
      ['Accept', 'a'],
    ]
    const { status, text } = await explain({ method: 'POST', url, headers, from: '192.0.2.1' })
    expect(status).toBe(200)
    const toSame = (one: string): string => one.replace(/[\da-f-]{36}/g, 'ID').replace(/(test|shop)\.ts:?\d*/g, 'FILE')
    expect(toSame(text)).toBe(toSame(stdout))
    expect(text).toContain('X-Api-Key: [redacted]')
    expect(text + stdout).not.toContain('planted')
  })

  it('counts nobody', async () => {
    const before = await gateway.metrics()
    for (let times = 0; times < 3; times++)
      expect((await explain({ url: 'https://shop.example/limited' })).text).toContain('within the limit')
    expect(await gateway.metrics()).toBe(before)
  })

  it.each([
    ['text', 'the body is no JSON object'],
    [{}, 'url is no URL'],
    [{ url: 'shop.example' }, 'url is no URL'],
    [{ url: 'https://shop.example/', method: 'get' }, 'method is no method'],
    [{ url: 'https://shop.example/', from: 'home' }, 'from is no address'],
    [{ url: 'https://shop.example/', headers: [['a b', 'c']] }, 'headers is no list of fields'],
    [{ url: 'https://shop.example/', headers: [['a', 'b\nc']] }, 'headers is no list of fields'],
    [{ url: `https://shop.example/${'x'.repeat(70_000)}` }, 'the body is longer than 65536 bytes'],
  ])('refuses %j', async (body, detail) => {
    const { status, text } = await explain(body)
    expect(status).toBe(400)
    expect(text).toContain(detail)
  })

  it('refuses what a form of another page could send', async () => {
    expect((await explain({ url: 'https://shop.example/' }, 'text/plain')).status).toBe(400)
    const asked = await admin('/explain', { method: 'OPTIONS', headers: { origin: 'http://evil.example' } })
    expect(asked.status).toBe(403)
    expect(asked.headers['access-control-allow-origin']).toBeUndefined()
  })
})
