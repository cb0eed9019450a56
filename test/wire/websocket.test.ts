import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo, Socket } from 'node:net'
import { SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, startHostileOrigin } from '../support/hostile-origin.ts'
import type { Behaviour, HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw, field } from '../support/raw-client.ts'

/** WebSockets: joined only when both sides have agreed, closed when either leaves, and nothing left behind. */
const secret = 'b7Qx0pLr5mZk2Vd9Wc4Ht8Ns1Jf6Ya3E'
let echo: WebSocketServer
let origin: HostileOrigin
let gateway: TestGateway
const behaviours = new Map<string, Behaviour>()
let made = 0

function behaving(behaviour: Behaviour): string {
  const path = `/raw/case-${made++}`
  behaviours.set(path, behaviour)
  return path
}

const tableFor = (echoUrl: string, originUrl: string) => ({
  name: 'wire',
  upstreams: {
    echo: { servers: [echoUrl] },
    origin: { servers: [originUrl] },
    nobody: { servers: ['http://127.0.0.1:1'] },
  },
  keys: { main: { secret, algorithms: ['HS256' as const] } },
  sites: [
    {
      hosts: ['127.0.0.1'],
      errors: 'nest' as const,
      routes: [
        { path: '/ws', proxy: { to: 'echo', websocket: true } },
        { path: '/idle', proxy: { to: 'echo', websocket: true, idleMs: 200 } },
        { path: '/private', auth: { jwt: 'main', from: { query: 'token' } }, proxy: { to: 'echo', websocket: true } },
        { path: '/raw/*', proxy: { to: 'origin', websocket: true, readTimeoutMs: 300 } },
        { path: '/plain/*', proxy: { to: 'origin', strip: '/plain' } },
        { path: '/nobody', proxy: { to: 'nobody', websocket: true } },
      ],
    },
  ],
})

async function startEcho(): Promise<WebSocketServer> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 200_000_000 })
  server.on('connection', (socket, request) => {
    socket.on('error', () => {})
    socket.on('message', (data, isBinary) => {
      if (String(data) === 'who') socket.send(JSON.stringify(request.headers))
      else if (String(data) === 'leave') socket.terminate()
      else if (String(data) === 'goodbye') {
        socket.send('last words'.repeat(100_000))
        socket.close(4_000, 'goodbye')
      } else socket.send(data, { binary: isBinary })
    })
  })
  await once(server, 'listening')
  return server
}

const urlOf = (server: WebSocketServer): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`

beforeAll(async () => {
  echo = await startEcho()
  origin = await startHostileOrigin((socket, request) => (behaviours.get(request.path) ?? ok)(socket, request))
  gateway = await startTestGateway(tableFor(urlOf(echo), origin.url))
})
/** Nothing is left open, whatever became of the handshake. */
afterEach(async () => {
  await gateway.settled()
  expect(await gateway.metric('daemun_websockets')).toBe(0)
  expect(gateway.output()).not.toContain('internal error')
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
  echo.close()
})

async function open(path: string, port = gateway.port): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`)
  await once(socket, 'open')
  return socket
}

async function say(socket: WebSocket, data: string | Buffer): Promise<string> {
  const answer = once(socket, 'message')
  socket.send(data)
  return String((await answer)[0])
}

const key = 'dGhlIHNhbXBsZSBub25jZQ=='
const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
const handshake = (path: string, ...lines: string[]): string =>
  [
    `GET ${path} HTTP/1.1`,
    'Host: 127.0.0.1',
    'Connection: keep-alive, Upgrade',
    'Upgrade: websocket',
    `Sec-WebSocket-Key: ${key}`,
    'Sec-WebSocket-Version: 13',
    ...lines,
    '',
    '',
  ].join('\r\n')
const switching = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`

describe('a WebSocket that both sides want', () => {
  it('carries what each side says to the other', async () => {
    const socket = await open('/ws')
    expect(await say(socket, 'hello')).toBe('hello')
    expect(await say(socket, 'ä'.repeat(100_000))).toBe('ä'.repeat(100_000))
    expect((await say(socket, Buffer.alloc(70_000, 7))).length).toBe(70_000)
    socket.close(4_001, 'done')
    expect((await once(socket, 'close'))[0]).toBe(4_001)
    await gateway.settled()
    await vi.waitUntil(() => gateway.log().some((line) => line['path'] === '/ws' && line['status'] === 101))
    expect(gateway.log().filter((line) => line['path'] === '/ws')).toHaveLength(1)
  })

  it('carries 64 MB both ways at once, with back-pressure', async () => {
    const socket = await open('/ws')
    const block = Buffer.alloc(1_048_576, 1)
    let got = 0
    const all = new Promise<void>((resolve) =>
      socket.on('message', (data: Buffer) => {
        got += data.length
        if (got === 64 * block.length) resolve()
      }),
    )
    for (let i = 0; i < 64; i++) socket.send(block)
    await all
    expect(got).toBe(64 * block.length)
    socket.close()
    await once(socket, 'close')
  })

  it('a reader that stops pauses the other side, and memory stays flat', async () => {
    let sent = 0
    const size = 64 * 1_048_576
    const path = behaving((socket) => {
      socket.write(switching)
      const more = (): void => {
        while (sent < size) {
          sent += 65_536
          if (!socket.write(Buffer.alloc(65_536))) return void socket.once('drain', more)
        }
      }
      more()
    })
    const client = await connectRaw(gateway.port)
    client.socket.pause()
    const before = process.memoryUsage().rss
    client.send(handshake(path))
    for (let last = -1; last !== sent || last === 0; await new Promise((resolve) => setTimeout(resolve, 300)))
      last = sent
    expect(sent).toBeLessThan(size / 2)
    expect(process.memoryUsage().rss - before).toBeLessThan(32 * 1_048_576)
    client.socket.destroy()
  })

  it('the upstream hears who asks, and nothing of the hop', async () => {
    const socket = await open('/ws')
    const seen = JSON.parse(await say(socket, 'who')) as Record<string, string>
    socket.terminate()
    expect(seen).toMatchObject({ 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'http', connection: 'upgrade' })
    expect(seen['x-request-id']).toMatch(/^[\w-]{8,}$/)
  })

  it('the last words of an upstream that closes arrive whole', async () => {
    const socket = await open('/ws')
    const closed = once(socket, 'close')
    expect((await say(socket, 'goodbye')).length).toBe(1_000_000)
    expect(String((await closed)[1])).toBe('goodbye')
  })

  it('is closed after `idleMs` of silence, not before', async () => {
    const socket = await open('/idle')
    const closed = once(socket, 'close')
    for (let i = 0; i < 6; i++) {
      await new Promise((resolve) => setTimeout(resolve, 80))
      expect(await say(socket, 'still here')).toBe('still here')
    }
    expect((await closed)[0]).toBe(1_006)
    await vi.waitUntil(() => gateway.log().some((line) => line['path'] === '/idle'))
    expect(gateway.log().find((line) => line['path'] === '/idle')).toMatchObject({ status: 101, end: 'stalled' })
  })
})

describe('who leaves takes the other side along', () => {
  it('client gone closes upstream', async () => {
    const before = echo.clients.size
    const socket = await open('/ws')
    await vi.waitUntil(() => echo.clients.size === before + 1)
    socket.terminate()
    await vi.waitUntil(() => echo.clients.size === before)
  })

  it('upstream gone closes client', async () => {
    const socket = await open('/ws')
    const closed = once(socket, 'close')
    socket.send('leave')
    expect((await closed)[0]).toBe(1_006)
  })

  for (const [name, leave] of [
    ['FIN', (socket: Socket) => void socket.end()],
    ['RST', (socket: Socket) => void socket.resetAndDestroy()],
  ] as const) {
    it(`a client that leaves with ${name} from an upstream that does not react`, async () => {
      let connection = -1
      const path = behaving((socket, request) => {
        ;({ connection } = request)
        socket.write(switching)
      })
      const client = await connectRaw(gateway.port)
      client.send(handshake(path))
      await client.readUntil('\r\n\r\n')
      leave(client.socket)
      await origin.closed(connection)
    })

    it(`an upstream that leaves with ${name} from a client that does not react`, async () => {
      const path = behaving((socket) => void socket.write(switching, () => void setTimeout(() => leave(socket), 10)))
      const client = await connectRaw(gateway.port, { allowHalfOpen: true })
      client.send(handshake(path))
      await client.closed
      await vi.waitUntil(async () => (await gateway.metric('daemun_websockets')) === 0, { timeout: 3_000 })
      client.socket.destroy()
    })

    it(`a client that leaves with ${name} before the upstream has agreed`, async () => {
      let connection = -1
      const path = behaving((_socket, request) => {
        ;({ connection } = request)
      })
      const client = await connectRaw(gateway.port)
      client.send(handshake(path))
      await vi.waitUntil(() => connection !== -1)
      leave(client.socket)
      await origin.closed(connection)
      await vi.waitUntil(() => gateway.log().some((line) => line['path'] === path))
      expect(gateway.log().filter((line) => line['path'] === path)).toMatchObject([{ end: 'client_gone' }])
    })
  }
})

describe('no tunnel before 101', () => {
  const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
  const refusals: [string, string, number, string][] = [
    ['200', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain', 200, 'plain'],
    ['403', 'HTTP/1.1 403 Forbidden\r\nX-Why: origin\r\nContent-Length: 2\r\n\r\nno', 403, 'no'],
    ['200 with chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nplain\r\n0\r\n\r\n', 200, 'plain'],
    [
      `200 of 1 MB`,
      `HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n${'a'.repeat(1_000_000)}`,
      200,
      'a'.repeat(1_000_000),
    ],
    ['426', 'HTTP/1.1 426 Upgrade Required\r\nUpgrade: h3\r\nContent-Length: 0\r\n\r\n', 426, ''],
  ]
  for (const [name, answer, status, body] of refusals)
    it(`upstream answers ${name}: relayed, then closed; bytes behind the request are discarded`, async () => {
      const path = behaving((socket) => void socket.write(answer))
      origin.forget()
      const client = await connectRaw(gateway.port)
      client.send(handshake(path) + smuggled)
      await client.closed
      expect(client.answers()).toMatchObject([{ status, body, whole: true }])
      expect(field(client.answers()[0]!, 'connection')).toBe('close')
      expect(origin.received()).not.toContain('smuggled')
      expect(gateway.log().filter((line) => line['path'] === path)).toMatchObject([{ status }])
    })

  it('a refusal that breaks off is broken off for the client', async () => {
    const path = behaving((socket) => void socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello'))
    const client = await connectRaw(gateway.port)
    client.send(handshake(path))
    await client.closed
    expect(client.answers().every(({ whole }) => !whole)).toBe(true)
  })

  const faults: [string, string][] = [
    ['bad Sec-WebSocket-Accept', switching.replace(accept, 'AAAAAAAAAAAAAAAAAAAAAAAAAAA=')],
    ['no Sec-WebSocket-Accept', switching.replace(/Sec-WebSocket-Accept: [^\r]*\r\n/, '')],
    ['101 to another protocol', switching.replace('Upgrade: websocket', 'Upgrade: h2c')],
    ['101 without Upgrade', 'HTTP/1.1 101 Switching Protocols\r\n\r\n'],
    ['garbage', 'NONSENSE\r\n\r\n'],
    ['more than 8 interim answers', 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(9) + switching],
  ]
  for (const [name, answer] of faults)
    it(`${name} → 502 in the shape of the site, bytes behind the request are discarded`, async () => {
      let connection = -1
      const path = behaving((socket, request) => {
        ;({ connection } = request)
        socket.write(`${answer}leaked`)
      })
      origin.forget()
      const client = await connectRaw(gateway.port)
      client.send(handshake(path) + smuggled)
      await client.closed
      const [first] = client.answers()
      expect(first?.status).toBe(502)
      expect(JSON.parse(first?.body ?? '')).toMatchObject({
        statusCode: 502,
        route: 'wire /raw/*',
        requestId: expect.any(String),
      })
      expect(client.text()).not.toContain('leaked')
      expect(origin.received()).not.toContain('smuggled')
      await origin.closed(connection)
    })

  it('an upstream that never answers → 504', async () => {
    const path = behaving(() => {})
    const answer = await ask(gateway.port, handshake(path))
    expect(answer.status).toBe(504)
    expect(JSON.parse(answer.body)).toMatchObject({ limit: 'readTimeoutMs', value: 300 })
  })

  it('an upstream that is not there → 502', async () => {
    expect((await ask(gateway.port, handshake('/nobody'))).status).toBe(502)
  })

  it('refused by auth → 401 in the shape of the site, and the upstream hears nothing', async () => {
    const before = echo.clients.size
    const client = await connectRaw(gateway.port)
    client.send(handshake('/private?token=nonsense') + smuggled)
    await client.closed
    const [answer] = client.answers()
    expect(client.answers()).toHaveLength(1)
    expect(answer?.status).toBe(401)
    expect(JSON.parse(answer?.body ?? '')).toMatchObject({
      statusCode: 401,
      message: 'Unauthorized',
      error: 'Unauthorized',
    })
    expect(echo.clients.size).toBe(before)
  })

  it('let in by auth: the token opens it', async () => {
    const token = await new SignJWT({ sub: 'u1' })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime('1h')
      .sign(new TextEncoder().encode(secret))
    const socket = await open(`/private?token=${token}`)
    expect(JSON.parse(await say(socket, 'who'))).toMatchObject({ 'x-user-id': 'u1' })
    socket.terminate()
    await vi.waitUntil(() => gateway.log().some((line) => line['path'] === '/private' && line['status'] === 101))
    expect(gateway.output()).not.toContain(token)
  })

  it('a row without `websocket` serves a handshake as an ordinary request', async () => {
    origin.forget()
    const client = await connectRaw(gateway.port)
    client.send(handshake('/plain/x'))
    await client.closed
    expect(client.answers()).toMatchObject([{ status: 200, body: '/x' }])
    expect(origin.requests[0]?.head).not.toMatch(/^(upgrade|connection: upgrade)/im)
  })

  it('a handshake without a key is an ordinary request', async () => {
    const path = behaving(ok)
    const answer = await ask(gateway.port, handshake(path).replace(/Sec-WebSocket-Key: [^\r]*\r\n/, ''))
    expect(answer.status).toBe(200)
    expect(origin.requests.at(-1)?.head).not.toMatch(/^upgrade:/im)
  })

  for (const [name, bytes] of [
    [
      'POST',
      (path: string) =>
        handshake(path).replace('GET', 'POST').replace('\r\n\r\n', '\r\nContent-Length: 5\r\n\r\nhello'),
    ],
    ['GET with a body', (path: string) => handshake(path).replace('\r\n\r\n', '\r\nContent-Length: 5\r\n\r\nhello')],
    ['HTTP/1.0', (path: string) => handshake(path).replace('HTTP/1.1', 'HTTP/1.0')],
    ['h2c', (path: string) => handshake(path).replace('Upgrade: websocket', 'Upgrade: h2c')],
  ] as const)
    it(`no WebSocket comes of ${name}`, async () => {
      const path = behaving(ok)
      const answer = await ask(gateway.port, bytes(path))
      expect(answer).toMatchObject({ status: 200, body: path })
      expect(origin.requests.at(-1)?.head).not.toMatch(/^upgrade:/im)
    })
})

describe('nothing is left behind', () => {
  it('after 200 failed upgrades, and the next requests are clean', async () => {
    const refused = behaving((socket) => void socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n'))
    const lied = behaving((socket) => void socket.write(switching.replace(accept, 'A')))
    const broken = behaving((socket) => void socket.end())
    const before = process.memoryUsage().heapUsed
    await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const path = [refused, lied, broken, '/private', '/nobody'][index % 5] ?? ''
        const client = await connectRaw(gateway.port)
        client.send(handshake(path))
        // Some do not wait for the answer.
        if (index % 7 === 0) client.socket.resetAndDestroy()
        await client.closed
      }),
    )
    await gateway.settled()
    expect(await gateway.metric('daemun_websockets')).toBe(0)
    await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        expect((await ask(gateway.port, `GET /plain/${index} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`)).body).toBe(
          `/${index}`,
        )
      }),
    )
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 * 1_048_576)
  })

  it('stop() says goodbye with close 1001 to both sides, and does not wait for those who do not listen', async () => {
    const other = await startTestGateway(tableFor(urlOf(echo), origin.url))
    const socket = await open('/ws', other.port)
    const closed = once(socket, 'close')
    const upstream = [...echo.clients].at(-1)
    const upstreamClosed = upstream ? once(upstream, 'close') : Promise.reject(new Error('no upstream'))
    let deafConnection = -1
    const path = behaving((raw, request) => {
      deafConnection = request.connection
      raw.write(switching)
    })
    const deaf = await connectRaw(other.port, { allowHalfOpen: true })
    deaf.send(handshake(path))
    await deaf.readUntil('\r\n\r\n')
    const started = performance.now()
    const stopped = other.stop()
    expect((await closed)[0]).toBe(1_001)
    expect((await upstreamClosed)[0]).toBe(1_001)
    await stopped
    await origin.closed(deafConnection)
    expect(performance.now() - started).toBeLessThan(10_000)
    deaf.socket.destroy()
  })

  it('stop() lets a running answer end, then closes its connection', async () => {
    const other = await startTestGateway(tableFor(urlOf(echo), origin.url))
    let answer = (): void => {}
    behaviours.set('/slow', (socket, request) => {
      answer = () => ok(socket, request)
    })
    const client = await connectRaw(other.port)
    client.send('GET /plain/slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
    await vi.waitUntil(() => origin.requests.at(-1)?.path === '/slow')
    const started = performance.now()
    const stopped = other.stop()
    answer()
    await stopped
    await client.closed
    expect(client.answers()).toMatchObject([{ status: 200, whole: true }])
    expect(performance.now() - started).toBeLessThan(10_000)
  })
})
