import { once } from 'node:events'
import { appendFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { limits } from '#edge/limits.ts'
import { createListener } from '#edge/node/listen.ts'
import { createProgressWatch } from '#edge/node/progress.ts'
import type { NodeIo } from '#edge/node/exchange-io.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, startHostileOrigin } from '../support/hostile-origin.ts'
import type { Behaviour, HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw, field } from '../support/raw-client.ts'
import type { RawClient } from '../support/raw-client.ts'

/** Bodies as they flow: at once, both ways, never held, and ended with whoever leaves. */
let origin: HostileOrigin
let gateway: TestGateway
const folder = mkdtempSync(join(tmpdir(), 'files-'))
const behaviours = new Map<string, Behaviour>()
const heads = new Map<string, Behaviour>()
let made = 0

function behaving(behaviour: Behaviour): string {
  const path = `/case-${made++}`
  behaviours.set(path, behaviour)
  return path
}

/** A path whose head alone is answered so; its body stays in the socket, which is not read. */
function onHead(behaviour: Behaviour): string {
  const path = behaving(() => {})
  heads.set(path, behaviour)
  return path
}

beforeAll(async () => {
  origin = await startHostileOrigin((socket, request) => (behaviours.get(request.path) ?? ok)(socket, request), {
    onHead: (socket, request) => heads.get(request.path)?.(socket, request),
  })
  gateway = await startTestGateway({
    name: 'wire',
    upstreams: { origin: { servers: [origin.url] } },
    keys: { main: { secret: 'b7Qx0pLr5mZk2Vd9Wc4Ht8Ns1Jf6Ya3E', algorithms: ['HS256'] } },
    sites: [
      {
        hosts: ['a.example'],
        routes: [
          { path: '/*', proxy: { to: 'origin' }, bodyBytesMax: 1_000_000_000 },
          { path: '/small/*', proxy: { to: 'origin' }, bodyBytesMax: 100_000 },
          { path: '/private/*', auth: { jwt: 'main' }, proxy: { to: 'origin' }, bodyBytesMax: 1_000_000_000 },
          { path: '/files/*', files: { root: folder }, bodyBytesMax: 1_000_000_000 },
          { path: '/fixed', respond: { status: 200, body: 'fixed' }, bodyBytesMax: 1_000_000_000 },
        ],
      },
    ],
  })
})
afterEach(async () => {
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
  rmSync(folder, { recursive: true })
})

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a.example\r\n\r\n`
const sse = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n'
const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`
const lastLine = async (): Promise<Record<string, unknown>> => {
  await gateway.settled()
  return gateway.log().at(-1) ?? {}
}

describe('server-sent events', () => {
  it('an event arrives while the next is not sent', async () => {
    let stream: Socket | undefined
    const path = behaving((socket) => {
      stream = socket
      socket.write(sse)
    })
    const client = await connectRaw(gateway.port)
    client.send(get(path))
    // The head arrives before there is any event, and each event before the next is made.
    expect(await client.readUntil('\r\n\r\n')).toMatch(/text\/event-stream/)
    for (const event of ['data: 1\n\n', 'data: 2\n\n', 'data: 3\n\n']) {
      stream?.write(chunk(event))
      expect(await client.readUntil(event)).toContain(event)
    }
    stream?.write('0\r\n\r\n')
    expect(await client.read()).toMatchObject([{ whole: true, body: 'data: 1\n\ndata: 2\n\ndata: 3\n\n' }])
    client.socket.destroy()
  })

  it('head and small body of an ordinary answer are one write', async () => {
    const client = await connectRaw(gateway.port)
    const pieces: number[] = []
    client.socket.on('data', (data: Buffer) => void pieces.push(data.length))
    client.send(get('/small'))
    await client.read()
    client.socket.destroy()
    expect(pieces).toHaveLength(1)
  })
})

describe('an answer of unknown length', () => {
  /** Around the lengths at which a chunk's size has one digit more, and those at which it is no longer copied. */
  const lengths = [1, 9, 10, 15, 16, 17, 255, 256, 4_095, 4_096, 8_191, 8_192, 8_193, 65_535, 65_536, 200_000]

  it.each(lengths)('of %i bytes is whole, in chunks', async (length) => {
    const text = 'x'.repeat(length)
    const path = behaving((socket) => void socket.write(`${sse}${chunk(text)}0\r\n\r\n`))
    const client = await connectRaw(gateway.port)
    client.send(get(path) + get('/next'))
    const [answer, next] = await client.read(2)
    client.socket.destroy()
    expect(answer?.whole).toBe(true)
    expect(answer?.body === text).toBe(true)
    expect(next?.status).toBe(200)
  })

  it('that comes in pieces, many in a tick, keeps every byte and their order', async () => {
    const pieces = Array.from({ length: 300 }, (_, index) => `${index}:${'y'.repeat((index * 37) % 9_000)};`)
    const path = behaving((socket) => {
      socket.write(sse)
      for (const piece of pieces) socket.write(chunk(piece))
      socket.write('0\r\n\r\n')
    })
    const client = await connectRaw(gateway.port)
    client.send(get(path))
    const [answer] = await client.read()
    client.socket.destroy()
    expect(answer?.whole).toBe(true)
    expect(answer?.body === pieces.join('')).toBe(true)
  })

  it.each([
    ['in chunks', sse + chunk('')],
    ['to its end', 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n'],
  ])('that is empty, sent %s, is whole', async (_, bytes) => {
    const path = behaving((socket) => void socket.end(bytes))
    const client = await connectRaw(gateway.port)
    client.send(get(path) + get('/next'))
    expect(await client.read(2)).toMatchObject([
      { whole: true, body: '' },
      { status: 200, whole: true },
    ])
    client.socket.destroy()
  })

  it('has no body for HEAD, and another request follows', async () => {
    const path = behaving((socket) => void socket.write(sse))
    const client = await connectRaw(gateway.port)
    client.send(`HEAD ${path} HTTP/1.1\r\nHost: a.example\r\n\r\n`)
    const head = await client.readUntil('\r\n\r\n')
    expect(head).toMatch(/^HTTP\/1\.1 200 /)
    client.send(get('/next'))
    const both = await client.readUntil('\r\n\r\n/next')
    client.socket.destroy()
    expect(both.slice(head.length)).toMatch(/^HTTP\/1\.1 200 /)
  })

  it('sends nothing for HEAD of what is written all the same', async () => {
    const server = createListener(
      (_raw, { response }) => {
        response.write(Buffer.from('one'))
        response.write(Buffer.from('two'))
        response.end(Buffer.from('three'))
      },
      () => {},
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const client = await connectRaw((server.address() as AddressInfo).port)
    client.send('HEAD / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n')
    await client.closed
    server.close()
    expect(client.text()).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\n$/)
    expect(client.text()).not.toMatch(/one|two|three/)
  })

  it('goes to a client of HTTP/1.0 as it is, and ends with the connection', async () => {
    const path = behaving((socket) => void socket.write(`${sse}${chunk('one')}${chunk('two')}0\r\n\r\n`))
    const client = await connectRaw(gateway.port)
    client.send(`GET ${path} HTTP/1.0\r\nHost: a.example\r\n\r\n`)
    await client.closed
    expect(client.text()).toMatch(/\r\n\r\nonetwo$/)
  })
})

// Nothing else would close these connections within the time that a test has: the upstream's timeouts are longer.
describe('client gone → upstream aborted', () => {
  const leaving: [string, (socket: Socket) => void][] = [
    ['closes', (socket) => void socket.destroy()],
    ['resets', (socket) => void socket.resetAndDestroy()],
  ]
  const moments: [string, Behaviour, string][] = [
    ['before the head of the answer', () => {}, ''],
    ['in a quiet stream of events', (socket) => void socket.write(sse + chunk('data: 1\n\n')), 'data: 1'],
    [
      'in a busy stream of events',
      (socket) => {
        socket.write(sse)
        const timer = setInterval(() => socket.write(chunk('data: x\n\n')), 1)
        socket.once('close', () => clearInterval(timer))
      },
      'data: x',
    ],
  ]
  for (const [how, leave] of leaving)
    for (const [when, behaviour, seen] of moments)
      it(`${how} ${when}`, async () => {
        let connection = -1
        const asked = new Promise<void>((resolve) => {
          behaviours.set('/leave', (socket, request) => {
            connection = request.connection
            behaviour(socket, request)
            resolve()
          })
        })
        const client = await connectRaw(gateway.port)
        client.send(get('/leave'))
        await asked
        await client.readUntil(seen)
        leave(client.socket)
        await origin.closed(connection)
        expect(await lastLine()).toMatchObject({ path: '/leave', end: 'client_gone' })
      })

  it('in the middle of an upload', async () => {
    let connection = -1
    const asked = new Promise<void>((resolve) => {
      heads.set('/upload', (_socket, request) => {
        connection = request.connection
        resolve()
      })
    })
    const client = await connectRaw(gateway.port)
    client.send('POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\npart')
    await asked
    client.socket.resetAndDestroy()
    await origin.closed(connection)
    expect(origin.requests.map(({ path }) => path)).not.toContain('/upload')
    expect(await lastLine()).toMatchObject({ path: '/upload', end: 'client_gone' })
  })

  it('while a policy is still asking somebody', async () => {
    // The key set never comes: the token cannot be judged before the client has left.
    const keySet = await startHostileOrigin(() => {})
    const other = await startTestGateway({
      name: 'keys',
      upstreams: { origin: { servers: [origin.url] } },
      keys: { main: { jwks: `${keySet.url}/keys`, algorithms: ['ES256'] } },
      sites: [{ hosts: ['a.example'], routes: [{ path: '/*', auth: { jwt: 'main' }, proxy: { to: 'origin' } }] }],
    })
    const token = `${btoa('{"alg":"ES256"}')}.${btoa('{}')}.${'A'.repeat(86)}`.replace(/=/g, '')
    const client = await connectRaw(other.port)
    client.send(`GET /x HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer ${token}\r\n\r\n`)
    while (keySet.requests.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    client.socket.resetAndDestroy()
    await new Promise((resolve) => setTimeout(resolve, 20))
    for (const socket of keySet.connections) socket.destroy()
    await other.settled()
    expect(other.log()).toMatchObject([{ status: 0, end: 'client_gone' }])
    await other.stop()
    await keySet.close()
  })
})

describe('back-pressure', () => {
  const size = 64 * 1_024 * 1_024

  /** Waits until something has moved and then nothing does any more. */
  async function standsStill(read: () => number): Promise<void> {
    for (let last = -1; last !== read() || last === 0; await new Promise((resolve) => setTimeout(resolve, 300)))
      last = read()
  }

  it('a client that does not read pauses the upstream, and memory stays flat', async () => {
    let sent = 0
    const path = behaving((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`)
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
    client.send(get(path))
    await standsStill(() => sent)
    expect(sent).toBeLessThan(size / 2)
    expect(process.memoryUsage().rss - before).toBeLessThan(32 * 1_024 * 1_024)
    // And all of it arrives when the client reads on.
    client.socket.removeAllListeners('data')
    await new Promise<void>((resolve) => {
      let got = 0
      client.socket.on('data', (data: Buffer) => {
        got += data.length
        if (got >= size) resolve()
      })
      client.socket.resume()
    })
    client.socket.destroy()
    expect(sent).toBe(size)
  })

  for (const framing of ['Content-Length', 'chunked'])
    it(`an upstream that does not read pauses the upload (${framing}), and memory stays flat`, async () => {
      let resume = (): void => {}
      let received = 0
      const slow = await startHostileOrigin(() => {}, {
        onConnection: (socket) => {
          socket.pause()
          socket.on('data', (data: Buffer) => {
            received += data.length
          })
          socket.pause()
          resume = () => void socket.resume()
          socket.on('data', () => {
            if (received > size) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone')
          })
          socket.pause()
        },
      })
      const other = await startTestGateway({
        name: 'slow',
        upstreams: { origin: { servers: [slow.url] } },
        sites: [{ hosts: ['a.example'], routes: [{ path: '/*', bodyBytesMax: 2 * size, proxy: { to: 'origin' } }] }],
      })
      const client = await connectRaw(other.port)
      const before = process.memoryUsage().rss
      const block = Buffer.alloc(65_536)
      const chunked = framing === 'chunked'
      client.send(
        `POST /x HTTP/1.1\r\nHost: a.example\r\n${chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${size}`}\r\n\r\n`,
      )
      let sent = 0
      const pump = (async () => {
        while (sent < size) {
          sent += block.length
          if (chunked) client.socket.write('10000\r\n')
          client.socket.write(block)
          if (chunked) client.socket.write('\r\n')
          if (client.socket.writableNeedDrain) await once(client.socket, 'drain')
        }
        if (chunked) client.socket.write('0\r\n\r\n')
      })()
      await standsStill(() => sent)
      expect(sent).toBeLessThan(size / 2)
      expect(process.memoryUsage().rss - before).toBeLessThan(32 * 1_024 * 1_024)
      resume()
      await pump
      expect(await client.read()).toMatchObject([{ status: 200, body: 'done' }])
      client.socket.destroy()
      await other.stop()
      await slow.close()
    })
})

describe('a large file', () => {
  const size = 16 * 1_024 * 1_024
  const file = (): string => join(folder, 'large.bin')
  const request = 'GET /files/large.bin HTTP/1.1\r\nHost: a.example\r\n\r\n'

  /** Asks for it, and does something to it while the client does not read. */
  async function changedWhileSent(change: () => void): Promise<RawClient> {
    writeFileSync(file(), Buffer.alloc(size, 'a'))
    const client = await connectRaw(gateway.port)
    client.socket.once('data', () => client.socket.pause())
    client.send(request)
    await client.readUntil('\r\n\r\n')
    await new Promise((resolve) => setTimeout(resolve, 100))
    change()
    client.socket.resume()
    return client
  }

  it('that shrinks while it is sent is broken off, not left hanging', async () => {
    const client = await changedWhileSent(() => truncateSync(file(), size / 2))
    await client.closed
    expect(client.answers()).toMatchObject([{ status: 200, whole: false }])
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ path: '/files/large.bin', status: 200, end: 'upstream_cut' })
  })

  it('that grows while it is sent ends where its length says', async () => {
    const client = await changedWhileSent(() =>
      appendFileSync(file(), 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad'),
    )
    await client.readUntil('a'.repeat(10))
    client.send(get('/next'))
    const answers = await client.read(2)
    client.socket.destroy()
    expect(answers.map(({ body }) => body.length)).toEqual([size, '/next'.length])
  })

  it('that the client leaves is closed, and the log does not say that it was sent', async () => {
    const client = await changedWhileSent(() => {})
    client.socket.resetAndDestroy()
    await gateway.settled()
    const line = gateway.log().at(-1)
    expect(line).toMatchObject({ path: '/files/large.bin', end: 'client_gone' })
    expect(line?.['bytes']).toBeLessThan(size)
  })

  it('is not paid for with a body that nobody reads: the connection is closed behind it', async () => {
    writeFileSync(join(folder, 'small.txt'), 'small')
    const client = await connectRaw(gateway.port)
    client.send('GET /files/small.txt HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n')
    const [answer] = await client.read()
    expect(answer).toMatchObject({ status: 200, body: 'small' })
    expect(field(answer!, 'connection')).toBe('close')
    await client.closed
  })
})

describe('a body that is refused', () => {
  it('413 in the middle of a chunked upload, and the upstream never sees a whole request', async () => {
    const path = `/small${behaving(ok)}`
    const client = await connectRaw(gateway.port)
    client.send(`POST ${path} HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n`)
    for (let i = 0; i < 20; i++) client.send(chunk('a'.repeat(10_000)))
    const [answer] = await client.read()
    expect(answer?.status).toBe(413)
    expect(JSON.parse(answer?.body ?? '')).toMatchObject({
      route: 'wire /small/*',
      limit: 'bodyBytesMax',
      value: 100_000,
    })
    expect(field(answer!, 'connection')).toBe('close')
    client.socket.destroy()
    expect(await lastLine()).toMatchObject({ status: 413, path })
    expect(origin.requests.map((request) => request.path)).not.toContain(path)
  })

  it('a body of exactly the most bytes passes, chunked and not', async () => {
    const body = 'a'.repeat(100_000)
    const chunked = await ask(
      gateway.port,
      `POST /small/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n${chunk(body)}0\r\n\r\n`,
    )
    const plain = await ask(
      gateway.port,
      `POST /small/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n${body}`,
    )
    expect([chunked.status, plain.status]).toEqual([200, 200])
  })

  it('what exceeds an understated Content-Length is never part of the body', async () => {
    const path = `/small${behaving(ok)}`
    const client = await connectRaw(gateway.port)
    client.send(`POST ${path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello${'a'.repeat(200)}\r\n\r\n`)
    await client.closed
    expect(client.answers().map(({ status }) => status)).toEqual([200, 400])
    expect(origin.requests.at(-1)?.body.toString()).toBe('hello')
  })

  /** A client that reads nothing until it has sent all it has, like many a simple library. */
  async function upload(path: string, { chunked = false, bytes = 20_000_000 } = {}): Promise<string> {
    const client = await connectRaw(gateway.port)
    client.socket.pause()
    const block = Buffer.alloc(100_000)
    const framing = chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${bytes}`
    client.send(`POST ${path} HTTP/1.1\r\nHost: a.example\r\n${framing}\r\n\r\n`)
    for (let sent = 0; sent < bytes; sent += block.length) {
      if (chunked) client.send(`${block.length.toString(16)}\r\n`)
      client.send(block)
      if (chunked) client.send('\r\n')
      if (client.socket.writableNeedDrain) await once(client.socket, 'drain')
    }
    client.socket.resume()
    const [answer] = await client.read()
    client.socket.destroy()
    return `${answer?.status}`
  }
  const refusals: [string, string, string][] = [
    ['401', '/private/x', '401'],
    ['413 by its own word', '/small/x', '413'],
    ['an answer that needs no body', '/fixed', '200'],
  ]
  for (const [name, path, status] of refusals)
    for (const chunked of [false, true])
      it(`a client that first sends all of a large ${chunked ? 'chunked ' : ''}body reads ${name}`, async () => {
        expect(await upload(path, { chunked })).toBe(status)
      })

  it("a client that first sends all of a large body reads the upstream's early answer", async () => {
    const path = onHead((socket) => {
      socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nearly')
    })
    expect(await upload(path)).toBe('403')
  })

  it('a client that first sends all of a large body reads the answer of an upstream that closed early', async () => {
    const path = onHead((socket) => {
      socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly')
    })
    expect(await upload(path)).toBe('403')
  })

  it('a large body that nobody reads is not kept in memory', async () => {
    const before = process.memoryUsage().rss
    expect(await upload('/private/x', { bytes: 100_000_000 })).toBe('401')
    expect(process.memoryUsage().rss - before).toBeLessThan(48 * 1_024 * 1_024)
  })
})

describe('clients that are too slow', () => {
  /** A server that serves nothing, with a watch on a clock of the test's own. */
  async function startWatched(serve: (request: IncomingMessage, response: ServerResponse) => void) {
    let now = 0
    const watch = createProgressWatch(() => now)
    const connection: { current: NodeIo | undefined } = { current: undefined }
    const server = createServer((request, response) => {
      connection.current = {
        request,
        response,
        upgrade: undefined,
        malformed: undefined,
        onMalformed: undefined,
        stalled: false,
      }
      serve(request, response)
    })
    server.on('connection', (socket) => watch.add(socket, connection))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return {
      connection,
      port: (server.address() as AddressInfo).port,
      /** Looks every 2 s of the clock. */
      pass: (ms: number) => {
        for (const end = now + ms; now < end;) {
          now += limits.progressLookMs
          watch.look()
        }
      },
      stop: async () => {
        server.closeAllConnections()
        server.close()
        await once(server, 'close')
      },
    }
  }

  it('a body slower than 500 B/s over 10 s is cut off', async () => {
    const server = await startWatched((request) => void request.resume())
    const client = await connectRaw(server.port)
    client.send('POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n')
    await vi.waitUntil(() => server.connection.current)
    server.pass(limits.bodyRateWindowMs)
    client.send('a')
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(server.connection.current?.stalled).toBe(false)
    server.pass(limits.bodyRateWindowMs)
    await client.closed
    expect(server.connection.current?.stalled).toBe(true)
    await server.stop()
  })

  it('a body of 600 B/s is not', async () => {
    const server = await startWatched((request) => void request.resume())
    const client = await connectRaw(server.port)
    client.send('POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n')
    await vi.waitUntil(() => server.connection.current)
    for (let seconds = 0; seconds < 60; seconds += 10) {
      const { socket } = server.connection.current?.request ?? {}
      const read = socket?.bytesRead ?? 0
      client.send('a'.repeat(6_000))
      await vi.waitUntil(() => (socket?.bytesRead ?? 0) === read + 6_000)
      server.pass(10_000)
    }
    expect(server.connection.current?.stalled).toBe(false)
    client.socket.destroy()
    await server.stop()
  })

  it('a body that we ourselves do not read is not the fault of its client', async () => {
    const server = await startWatched((request) => void request.pause())
    const client = await connectRaw(server.port)
    client.send('POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n')
    await vi.waitUntil(() => server.connection.current)
    server.pass(10 * limits.bodyRateWindowMs)
    expect(server.connection.current?.stalled).toBe(false)
    client.socket.destroy()
    await server.stop()
  })

  it('a client that takes nothing of its answer for 60 s is cut off, one that takes a little is not', async () => {
    const server = await startWatched((_request, response) => void response.end(Buffer.alloc(32_000_000)))
    const client = await connectRaw(server.port)
    client.socket.pause()
    client.send(get('/'))
    await vi.waitUntil(() => server.connection.current)
    await new Promise((resolve) => setTimeout(resolve, 100))
    server.pass(limits.clientStallMs - limits.progressLookMs)
    const { socket } = server.connection.current?.request ?? {}
    const taken = (): number => (socket?.bytesWritten ?? 0) - (socket?.writableLength ?? 0)
    expect(server.connection.current?.stalled).toBe(false)
    // It takes something: the clock begins anew.
    const before = taken()
    client.socket.resume()
    await vi.waitUntil(() => taken() !== before || socket?.destroyed)
    client.socket.pause()
    await new Promise((resolve) => setTimeout(resolve, 100))
    if (!server.connection.current?.response.writableFinished) {
      server.pass(limits.clientStallMs)
      expect(server.connection.current?.stalled).toBe(false)
      server.pass(limits.clientStallMs)
      expect(server.connection.current?.stalled).toBe(true)
    }
    client.socket.destroy()
    await server.stop()
  })

  it('a stream of events that is silent for an hour is not cut off', async () => {
    const server = await startWatched((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.flushHeaders()
    })
    const client = await connectRaw(server.port)
    client.send(get('/'))
    await client.readUntil('\r\n\r\n')
    server.pass(3_600_000)
    expect(server.connection.current?.stalled).toBe(false)
    client.socket.destroy()
    await server.stop()
  })

  it('a head that never ends (slowloris) gets 408 at the limit, others are served meanwhile', async () => {
    const server = createListener(
      (_raw, { response }) => void response.end('ok'),
      () => {},
      { headTimeoutMs: 300, checkEveryMs: 50 },
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const slow = await connectRaw(port)
    slow.send('GET / HTTP/1.1\r\nHost: a.example\r\n')
    const drip = setInterval(() => slow.send('X-A: b\r\n'), 40)
    expect((await ask(port, get('/'))).status).toBe(200)
    await slow.closed
    clearInterval(drip)
    expect(slow.answers().map(({ status }) => status)).toEqual([408])
    server.close()
  })

  it('half a head behind a running answer does not cut into it', async () => {
    const server = createListener(
      (_raw, { response }) => {
        response.write('begun ')
        setTimeout(() => response.end('ended'), 600)
      },
      () => {},
      { headTimeoutMs: 200, checkEveryMs: 50 },
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const client = await connectRaw(port)
    client.send(`${get('/')}GET /ne`)
    await client.closed
    expect(client.answers().map(({ status, body }) => [status, status === 200 && body])).toEqual([
      [200, 'begun ended'],
      [408, false],
    ])
    server.close()
  })
})
