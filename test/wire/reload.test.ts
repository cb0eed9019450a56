import { once } from 'node:events'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import type { Route, Site, Table } from '#edge/table.ts'
import { authority, createCertificateFolder, issue } from '../support/certificates.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { get } from '../support/get.ts'
import { connectRaw } from '../support/raw-client.ts'

/** What a swap of tables changes, and what it leaves as it is. */
const secret = 'b7Qx0pLr5mZk2Vd9Wc4Ht8Ns1Jf6Ya3E'
const folder = mkdtempSync(join(tmpdir(), 'daemun-reload-'))
const certificates = createCertificateFolder()
/** Answers of the origin that wait for the test. */
const held: ServerResponse[] = []
/** Connections that the origin took. */
let taken = 0
let origin: Server
let gateway: TestGateway

beforeAll(async () => {
  origin = createServer((request, response) => {
    const answer = `asked by ${String(request.headers['x-asked-by'])}`
    if (request.url !== '/held') return void response.end(answer)
    response.setHeader('X-Body', answer)
    held.push(response)
  })
  origin.on('connection', () => taken++)
  const sockets = new WebSocketServer({ server: origin })
  sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(String(data))))
  origin.listen(0, '127.0.0.1')
  await once(origin, 'listening')
  writeBuild('first')
  certificates.put('a.example', issue(['a.example']))
  certificates.put('b.example', issue(['b.example']))
})
beforeEach(async () => {
  gateway = await startTestGateway(tableOf(1), { reloadGraceMs: 10, https: httpsOptions })
})
afterEach(async () => {
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
  await gateway.stop()
})
afterAll(async () => {
  origin.closeAllConnections()
  origin.close()
  await once(origin, 'close')
  certificates.clear()
  rmSync(folder, { recursive: true })
})

const httpsOptions = { host: '127.0.0.1', port: 0, certificates: certificates.path, development: false }

/** The folder `current` leads to a new build. */
function writeBuild(name: string): void {
  mkdirSync(join(folder, name))
  writeFileSync(join(folder, name, 'index.html'), name)
  symlinkSync(name, join(folder, 'next'))
  renameSync(join(folder, 'next'), join(folder, 'current'))
}

/** The row /held says in both directions which generation it is of. */
function tableOf(generation: number, rows: Route[] = [], site: Partial<Site> = {}): Table {
  const { port } = origin.address() as AddressInfo
  return {
    name: 'wire',
    upstreams: { origin: { servers: [`http://127.0.0.1:${port}`, 'http://127.0.0.1:1'], balance: 'round-robin' } },
    keys: { main: { secret, algorithms: ['HS256'] } },
    sites: [
      {
        hosts: ['a.example'],
        ...site,
        routes: [
          ...rows,
          { path: '/ws', proxy: { to: 'origin', websocket: true } },
          { path: '/changed', proxy: { to: 'origin', websocket: true, idleMs: 10_000 + generation } },
          { path: '/private', auth: { jwt: 'main' }, respond: { status: 200, body: 'yours' } },
          { path: '/limited', limit: { by: 'address', requests: 2, per: '1 d' }, respond: { status: 200 } },
          { path: '/files/*', files: { root: join(folder, 'current') } },
          {
            path: '/*',
            requestHeaders: { set: { 'X-Asked-By': String(generation) } },
            responseHeaders: { set: { 'X-Answered-By': String(generation) } },
            proxy: { to: 'origin' },
          },
        ],
      },
    ],
  }
}

const ask = (path: string, headers?: Record<string, string>) => get(gateway.port, `http://a.example${path}`, headers)

async function openSocket(path: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${gateway.port}${path}`, { headers: { Host: 'a.example' } })
  socket.on('error', () => {})
  await once(socket, 'open')
  return socket
}

async function says(socket: WebSocket, text: string): Promise<string> {
  socket.send(text)
  const [data] = await once(socket, 'message')
  return String(data)
}

async function shownTo(servername: string): Promise<string> {
  const socket = connectTls({
    port: gateway.httpsPort,
    host: '127.0.0.1',
    servername,
    ca: authority,
    rejectUnauthorized: false,
  })
  await once(socket, 'secureConnect')
  const { subject } = socket.getPeerCertificate()
  socket.destroy()
  return String(subject.CN)
}

describe('a swap', () => {
  it('is whole for every request: those under way end as they began, on their connection, and the next are new', async () => {
    const client = await connectRaw(gateway.port)
    const request = 'GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n'
    client.send(request)
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    await gateway.swap(tableOf(2))
    held.pop()?.end('whole')
    await client.read(1)
    client.send('GET /plain HTTP/1.1\r\nHost: a.example\r\n\r\n')
    const [first, second] = await client.read(2)
    expect(first).toMatchObject({ status: 200, body: 'whole', whole: true })
    expect(Object.fromEntries(first?.fields ?? [])).toMatchObject({ 'X-Answered-By': '1', 'X-Body': 'asked by 1' })
    expect(second).toMatchObject({ status: 200, body: 'asked by 2' })
    expect(Object.fromEntries(second?.fields ?? [])).toMatchObject({ 'X-Answered-By': '2' })
    client.socket.destroy()
  })

  it('adds and takes away hosts and rows', async () => {
    expect((await get(gateway.port, 'http://b.example/')).status).toBe(421)
    await gateway.swap(tableOf(2, [{ path: '/new', respond: { status: 200, body: 'new' } }], { hosts: ['b.example'] }))
    expect((await get(gateway.port, 'http://b.example/new')).body.toString()).toBe('new')
    expect((await ask('/')).status).toBe(421)
  })

  it('shows the certificates of the new hosts', async () => {
    expect(await shownTo('a.example')).toBe('a.example')
    expect(await shownTo('b.example')).not.toBe('b.example')
    await gateway.swap(tableOf(2, [], { hosts: ['a.example', 'b.example'] }))
    expect(await shownTo('b.example')).toBe('b.example')
    expect(await shownTo('a.example')).toBe('a.example')
  })

  it('keeps the counts of limits, also of rows that stand elsewhere now', async () => {
    await ask('/limited')
    await gateway.swap(tableOf(2, [{ path: '/new', respond: { status: 200 } }]))
    expect((await ask('/limited')).status).toBe(200)
    expect((await ask('/limited')).status).toBe(429)
  })

  it('keeps verified tokens', async () => {
    const token = await new SignJWT({ sub: 'kim' })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime('1h')
      .sign(new TextEncoder().encode(secret))
    const headers = { authorization: `Bearer ${token}` }
    expect((await ask('/private', headers)).status).toBe(200)
    await gateway.swap(tableOf(2))
    expect((await ask('/private', headers)).status).toBe(200)
  })

  it('keeps connections to upstreams, and what is known of their health', async () => {
    // Until the server that does not answer is put aside.
    while (
      (await gateway.metric('daemun_upstream_server_up{upstream="wire/origin",server="http://127.0.0.1:1"}')) === 1
    )
      await ask('/')
    const before = taken
    await gateway.swap(tableOf(2))
    expect(await gateway.metric('daemun_upstream_server_up{upstream="wire/origin",server="http://127.0.0.1:1"}')).toBe(
      0,
    )
    for (let count = 0; count < 5; count++) expect((await ask('/')).status).toBe(200)
    expect(taken).toBe(before)
  })

  it('lets go of upstreams that are gone', async () => {
    await ask('/')
    const closed = once(origin, 'connection').then(([socket]) => once(socket, 'close'))
    await ask('/')
    await gateway.swap({
      name: 'wire',
      sites: [{ hosts: ['a.example'], routes: [{ path: '/', respond: { status: 200 } }] }],
    })
    expect(await gateway.metrics()).not.toContain('wire/origin')
    await closed
  })

  it('serves a build that was put there since, at once', async () => {
    expect((await ask('/files/')).body.toString()).toBe('first')
    writeBuild('second')
    await gateway.swap(tableOf(2))
    expect((await ask('/files/')).body.toString()).toBe('second')
  })

  it('cuts no WebSocket of a row that has not changed, wherever that stands now', async () => {
    const socket = await openSocket('/ws')
    for (let generation = 2; generation < 6; generation++) {
      await gateway.swap(tableOf(generation, [{ path: `/new-${generation}`, respond: { status: 200 } }]))
      expect(await says(socket, `still there ${generation}`)).toBe(`still there ${generation}`)
    }
    socket.close()
    await once(socket, 'close')
  })

  it.each([
    ['has changed', '/changed', () => tableOf(2)],
    [
      'is gone',
      '/ws',
      () => ({ ...tableOf(2), sites: [{ hosts: ['a.example'], routes: [{ path: '/', respond: { status: 200 } }] }] }),
    ],
    ['has another site around it', '/ws', () => tableOf(2, [], { headers: { 'X-Added': 'now' } })],
    ['is no longer of this host', '/ws', () => tableOf(2, [], { hosts: ['b.example'] })],
  ])('tells a WebSocket whose row %s to come again: 1012, on both sides', async (_, path, next) => {
    const socket = await openSocket(path)
    const closed = once(socket, 'close')
    await gateway.swap(next())
    const [code] = await closed
    expect(code).toBe(1_012)
  })
})
