import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Agent, request } from 'undici'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readNetwork } from '#edge/address.ts'
import type { Proxy, Table, Upstream } from '#edge/table.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, says, startHostileOrigin } from '../support/hostile-origin.ts'
import type { Behaviour, HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw, field } from '../support/raw-client.ts'

/** Several servers of which some are dead, slow or changing their minds: what clients see, and what servers are sent. */
const open: { close(): Promise<void> }[] = []
let gateways: TestGateway[] = []

beforeEach(() => {
  gateways = []
})
afterEach(async () => {
  for (const gateway of gateways) {
    await gateway.settled()
    expect(gateway.output()).not.toContain('internal error')
    await gateway.stop()
  }
  await Promise.all(open.splice(0).map((one) => one.close()))
})

async function startOrigin(behave: Behaviour = ok): Promise<HostileOrigin> {
  const origin = await startHostileOrigin(behave)
  open.push(origin)
  return origin
}

const toTable = (upstream: Upstream, proxy: Partial<Proxy> = {}): Table => ({
  name: 'wire',
  upstreams: { app: upstream },
  sites: [
    {
      hosts: ['a.example'],
      routes: [
        { path: '/*', proxy: { to: 'app', ...proxy } },
        { path: '/own', respond: { status: 200, body: 'own' } },
      ],
    },
  ],
})

async function start(upstream: Upstream, proxy: Partial<Proxy> = {}, options = {}): Promise<TestGateway> {
  const gateway = await startTestGateway(toTable(upstream, proxy), options)
  gateways.push(gateway)
  return gateway
}

const get = (path: string, fields = ''): string => `GET ${path} HTTP/1.1\r\nHost: a.example\r\n${fields}\r\n`
const post = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi`
const nobody = 'http://127.0.0.1:1'
const reset: Behaviour = (socket) => void socket.resetAndDestroy()
const count = (origins: HostileOrigin[]): number[] => origins.map(({ requests }) => requests.length)

/** Resolves when what is looked for has come about. */
async function eventually(isThere: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await isThere()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('it has not come about')
}

describe('several servers', () => {
  it('are asked by weight, a backup not at all', async () => {
    const origins = [await startOrigin(), await startOrigin(), await startOrigin()]
    const [one, two, three] = origins.map(({ url }) => url) as [string, string, string]
    const gateway = await start({ servers: [{ url: one, weight: 3 }, two, { url: three, backup: true }] })
    for (let i = 0; i < 40; i++) expect((await ask(gateway.port, get('/x'))).status).toBe(200)
    expect(count(origins)).toEqual([30, 10, 0])
  })

  it('keep a client by its cookie, and another client by its own', async () => {
    const origins = [await startOrigin(), await startOrigin(), await startOrigin()]
    const gateway = await start({
      servers: origins.map(({ url }) => url),
      balance: { hash: { cookie: 'session' } },
    })
    const seen = new Set<number>()
    for (let client = 0; client < 20; client++) {
      for (const origin of origins) origin.forget()
      for (let i = 0; i < 3; i++) await ask(gateway.port, get('/x', `Cookie: a=b; session=client-${client}\r\n`))
      expect(count(origins).toSorted()).toEqual([0, 0, 3])
      seen.add(count(origins).indexOf(3))
    }
    expect(seen.size).toBe(3)
  })

  it('least-connections leaves a busy server alone', async () => {
    const origins = [await startOrigin(() => {}), await startOrigin()]
    const gateway = await start(
      { servers: origins.map(({ url }) => url), balance: 'least-connections' },
      { readTimeoutMs: 60_000 },
    )
    const held = await connectRaw(gateway.port)
    held.send(get('/held'))
    await eventually(() => count(origins)[0] === 1)
    for (let i = 0; i < 10; i++) await ask(gateway.port, get('/x'))
    expect(count(origins)).toEqual([1, 10])
    held.socket.destroy()
  })
})

describe('a server that fails', () => {
  it('one is dead: no GET fails, it is put aside, said once, counted, and no longer asked', async () => {
    const origin = await startOrigin()
    const gateway = await start({ servers: [nobody, origin.url] })
    for (let i = 0; i < 50; i++) expect((await ask(gateway.port, get('/x'))).status).toBe(200)
    expect(gateway.output().match(/upstream wire\/app: http:\/\/127\.0\.0\.1:1 is put aside: /g)).toHaveLength(1)
    expect(gateway.output()).toContain('ECONNREFUSED')
    const metric = (name: string, server: string): Promise<number> =>
      gateway.metric(`${name}{upstream="wire/app",server="${server}"}`)
    expect(await metric('daemun_upstream_server_up', nobody)).toBe(0)
    expect(await metric('daemun_upstream_server_up', origin.url)).toBe(1)
    expect(await metric('daemun_upstream_ejections_total', nobody)).toBe(1)
    expect(await gateway.metric('daemun_upstream_retries_total{upstream="wire/app"}')).toBe(5)
    expect(gateway.log().filter((line) => line['attempts'] === 2)).toHaveLength(5)
  })

  it('one of three is killed under 1,000 requests: no GET fails, and none is asked for twice of one server', async () => {
    const servers = await Promise.all([startNode(), startNode(), startNode()])
    const gateway = await start({ servers: servers.map(({ url }) => url) })
    const agent = new Agent({ connections: 16 })
    const statuses = new Map<number, number>()
    let next = 0
    const work = async (): Promise<void> => {
      while (next < 1_000) {
        if (next === 300) servers[1]?.kill()
        const path = `/r-${next++}`
        const { statusCode, body } = await request(`http://127.0.0.1:${gateway.port}${path}`, {
          dispatcher: agent,
          headers: { host: 'a.example' },
        })
        expect(await body.text()).toBe(statusCode === 200 ? path : '')
        statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1)
      }
    }
    await Promise.all(Array.from({ length: 16 }, work))
    await agent.close()
    expect([...statuses]).toEqual([[200, 1_000]])
    for (const { paths } of servers) expect(new Set(paths).size).toBe(paths.length)
  })

  it('one is slow: it is put aside, and the others go on', async () => {
    const slow = await startOrigin((socket, seen) => void setTimeout(() => ok(socket, seen), 1_100))
    const origins = [await startOrigin(), await startOrigin()]
    const gateway = await start({ servers: [slow.url, ...origins.map(({ url }) => url)] })
    await Promise.all(Array.from({ length: 36 }, () => ask(gateway.port, get('/x'))))
    await eventually(() => gateway.output().includes(`${slow.url} is put aside: it takes 1`))
    slow.forget()
    for (let i = 0; i < 20; i++) await ask(gateway.port, get('/x'))
    expect(slow.requests).toHaveLength(0)
  })

  it('all are down: 503 at once with the row and the bound, other rows are served', async () => {
    const gateway = await start({
      servers: [nobody, 'http://127.0.0.1:2'],
      health: { path: '/health', everyMs: 100, unhealthyAfter: 1 },
    })
    await eventually(() => (gateway.output().match(/is put aside/g) ?? []).length === 2)
    const from = performance.now()
    const answer = await ask(gateway.port, get('/x'))
    expect(performance.now() - from).toBeLessThan(1_000)
    expect(answer.status).toBe(503)
    expect(JSON.parse(answer.body)).toMatchObject({
      code: 'upstream_down',
      route: 'wire /*',
      limit: 'unhealthyAfter',
      value: 1,
    })
    expect(field(answer, 'retry-after')).toMatch(/^\d+$/)
    expect((await ask(gateway.port, get('/own'))).body).toBe('own')
  })

  it('a name that does not resolve: the gateway starts, and answers 502 quickly', async () => {
    const gateway = await start({ servers: ['http://nowhere.invalid:80'] })
    await ask(gateway.port, get('/x'))
    const from = performance.now()
    const answer = await ask(gateway.port, get('/x'))
    expect(performance.now() - from).toBeLessThan(1_000)
    expect(answer.status).toBe(502)
    expect(gateway.log().at(-1)?.['cause']).toMatch(/ENOTFOUND|EAI_AGAIN/)
  })
})

describe('checks', () => {
  it('put a server aside that answers badly, before a client meets it', async () => {
    let good = false
    const flapping = await startOrigin((socket, seen) => {
      if (seen.path !== '/health' || good) ok(socket, seen)
      else socket.write('HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n')
    })
    const origin = await startOrigin()
    const gateway = await start({
      servers: [flapping.url, origin.url],
      health: { path: '/health', everyMs: 100, unhealthyAfter: 2, status: 200 },
    })
    await eventually(() => gateway.output().includes(`${flapping.url} is put aside: 2 checks in a row failed`))
    expect(gateway.output()).toContain('the last: status 500')
    for (let i = 0; i < 10; i++) await ask(gateway.port, get('/x'))
    expect(flapping.requests.filter(({ path }) => path === '/x')).toHaveLength(0)
    good = true
  })

  it('end with the gateway', async () => {
    const origin = await startOrigin()
    const gateway = await startTestGateway(
      toTable({ servers: [origin.url], health: { path: '/health', everyMs: 100 } }),
    )
    await eventually(() => origin.requests.length > 2)
    await gateway.stop()
    origin.forget()
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(origin.requests).toHaveLength(0)
  })
})

describe('what is sent once more', () => {
  it('a GET that is lost goes to another server, with its log line saying so', async () => {
    const [bad, good] = [await startOrigin(reset), await startOrigin()]
    const gateway = await start({ servers: [bad.url, good.url] })
    expect((await ask(gateway.port, get('/a'))).status).toBe(200)
    expect(count([bad, good])).toEqual([1, 1])
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ status: 200, attempts: 2, server: good.url })
  })

  it('a POST never: not lost, not refused, not with a body, unless it has an Idempotency-Key and no body', async () => {
    const [bad, good] = [await startOrigin(reset), await startOrigin()]
    const gateway = await start({ servers: [bad.url, good.url] })
    expect((await ask(gateway.port, post('/a'))).status).toBe(502)
    expect(count([bad, good])).toEqual([1, 0])
    await ask(gateway.port, post('/b'))
    const keyed = 'POST /c HTTP/1.1\r\nHost: a.example\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n'
    expect((await ask(gateway.port, keyed)).status).toBe(200)
    expect(bad.requests.map(({ path }) => path)).toEqual(['/a', '/c'])
    expect(good.requests.map(({ path }) => path)).toEqual(['/b', '/c'])
  })

  it('nothing whose answer has begun', async () => {
    const bad = await startOrigin((socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel', () => setTimeout(() => socket.destroy(), 20))
    })
    const good = await startOrigin()
    const gateway = await start({ servers: [bad.url, good.url] })
    const client = await connectRaw(gateway.port)
    client.send(get('/a'))
    await client.closed
    expect(client.answers()).toMatchObject([{ status: 200, whole: false }])
    expect(count([bad, good])).toEqual([1, 0])
  })

  const unavailable = says('HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy')

  it('a GET that is answered with a status of the row; the last answer is passed on', async () => {
    const [bad, worse, good] = [await startOrigin(unavailable), await startOrigin(unavailable), await startOrigin()]
    const gateway = await start({ servers: [bad.url, good.url] }, { retry: { statuses: [503] } })
    expect(await ask(gateway.port, get('/a'))).toMatchObject({ status: 200, body: '/a' })
    const none = await start({ servers: [bad.url, worse.url] }, { retry: { statuses: [503] } })
    expect(await ask(none.port, get('/b'))).toMatchObject({ status: 503, body: 'busy' })
    expect(bad.requests.concat(worse.requests).filter(({ path }) => path === '/b')).toHaveLength(2)
  })

  it('not for a status that the row does not name, and nothing when the row says so', async () => {
    const [bad, good] = [await startOrigin(unavailable), await startOrigin()]
    const gateway = await start({ servers: [bad.url, good.url] })
    expect((await ask(gateway.port, get('/a'))).status).toBe(503)
    const dead = await start({ servers: [nobody, good.url] }, { retry: false })
    const answer = await ask(dead.port, get('/a'))
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.body)).toMatchObject({ limit: 'attempts', value: 1 })
  })

  it('at most `attempts` times, which the error names', async () => {
    const origins = await Promise.all([1, 2, 3, 4].map(() => startOrigin(reset)))
    const gateway = await start({ servers: origins.map(({ url }) => url) }, { retry: { attempts: 3 } })
    const answer = await ask(gateway.port, get('/a'))
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.body)).toMatchObject({ limit: 'attempts', value: 3 })
    expect(count(origins)).toEqual([1, 1, 1, 0])
  })
})

describe('a deadline', () => {
  it('ends a request whose answer has not begun with 504, the bound and its value', async () => {
    const origin = await startOrigin(() => {})
    const gateway = await start({ servers: [origin.url] }, { timeoutMs: 150 })
    const from = performance.now()
    const answer = await ask(gateway.port, get('/a'))
    expect(performance.now() - from).toBeLessThan(5_000)
    expect(answer.status).toBe(504)
    expect(JSON.parse(answer.body)).toMatchObject({ route: 'wire /*', limit: 'timeoutMs', value: 150 })
    await origin.closed(0)
  })

  it('cuts an answer that goes on for too long', async () => {
    const origin = await startOrigin(says('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel'))
    const gateway = await start({ servers: [origin.url] }, { timeoutMs: 150 })
    const client = await connectRaw(gateway.port)
    client.send(get('/a'))
    await client.closed
    expect(client.answers()).toMatchObject([{ status: 200, whole: false }])
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ end: 'timed_out' })
  })

  it('covers all attempts together', async () => {
    const late: Behaviour = (socket) => void setTimeout(() => socket.resetAndDestroy(), 100)
    const origins = await Promise.all([1, 2, 3, 4].map(() => startOrigin(late)))
    const gateway = await start({ servers: origins.map(({ url }) => url) }, { timeoutMs: 250, retry: { attempts: 4 } })
    const answer = await ask(gateway.port, get('/a'))
    expect(answer.status).toBe(504)
    expect(JSON.parse(answer.body)).toMatchObject({ limit: 'timeoutMs', value: 250 })
    // Each takes 100 ms at the least: the time is over before the fourth.
    const asked = count(origins)
    expect([asked[0], asked[3]]).toEqual([1, 0])
  })

  const name = 'x-envoy-expected-rq-timeout-ms'
  const leftAt = (origin: HostileOrigin): number =>
    Number(new RegExp(`${name}: (\\d+)`, 'i').exec(origin.requests.at(-1)?.head ?? '')?.[1] ?? Number.NaN)

  it('is told to the upstream, as what is left of it', async () => {
    const origin = await startOrigin()
    const gateway = await start({ servers: [origin.url] }, { timeoutMs: 5_000 })
    await ask(gateway.port, get('/a'))
    expect(leftAt(origin)).toBeGreaterThan(4_000)
    expect(leftAt(origin)).toBeLessThanOrEqual(5_000)
  })

  it('of a trusted hop makes it shorter, never longer; of anybody else it is dropped', async () => {
    const origin = await startOrigin()
    const hop = readNetwork('127.0.0.1')!
    const trusting = await start({ servers: [origin.url] }, { timeoutMs: 5_000 }, { trustedHops: [hop] })
    await ask(trusting.port, get('/a', `${name}: 1000\r\n`))
    expect(leftAt(origin)).toBeLessThanOrEqual(1_000)
    expect(leftAt(origin)).toBeGreaterThan(500)
    await ask(trusting.port, get('/a', `${name}: 90000\r\n`))
    expect(leftAt(origin)).toBeGreaterThan(4_000)
    expect(leftAt(origin)).toBeLessThanOrEqual(5_000)
    await ask(trusting.port, get('/a', `${name}: 0\r\n`)).then(({ status }) => expect(status).toBe(504))
    const gateway = await start({ servers: [origin.url] })
    await ask(gateway.port, get('/a', `${name}: 1000\r\n`))
    expect(leftAt(origin)).toBeNaN()
  })
})

describe('too many requests at once', () => {
  it('above `inFlightMax` are 503 with Retry-After at once, and are served again when there is room', async () => {
    const origin = await startOrigin((socket, seen) => {
      if (seen.path !== '/held') ok(socket, seen)
    })
    const gateway = await start({ servers: [origin.url], inFlightMax: 2 })
    const held = [await connectRaw(gateway.port), await connectRaw(gateway.port)]
    for (const client of held) client.send(get('/held'))
    await eventually(() => origin.requests.length === 2)
    const answer = await ask(gateway.port, get('/x'))
    expect(answer.status).toBe(503)
    expect(JSON.parse(answer.body)).toMatchObject({ code: 'upstream_busy', limit: 'inFlightMax', value: 2 })
    expect(field(answer, 'retry-after')).toBe('1')
    for (const client of held) client.socket.destroy()
    await gateway.settled()
    expect((await ask(gateway.port, get('/x'))).status).toBe(200)
  })
})

/** A server as people run them, which can be killed. */
async function startNode(): Promise<{ url: string; paths: string[]; kill(): void }> {
  const paths: string[] = []
  const server: Server = createServer((incoming, response) => {
    paths.push(incoming.url ?? '')
    setTimeout(() => response.end(incoming.url), 1)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const kill = (): void => {
    server.close()
    server.closeAllConnections()
  }
  open.push({ close: async () => kill() })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, paths, kill }
}
