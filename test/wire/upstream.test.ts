import type { Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { limits } from '#edge/limits.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, says, startHostileOrigin } from '../support/hostile-origin.ts'
import type { Behaviour, HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw, field } from '../support/raw-client.ts'
import type { RawClient } from '../support/raw-client.ts'

/** Upstreams that break off, stall, lie and babble: the client always learns of it, and the next request is clean. */
let origin: HostileOrigin
let gateway: TestGateway
const behaviours = new Map<string, Behaviour>()
let made = 0

/** A path that the origin answers so. */
function behaving(behaviour: Behaviour): string {
  const path = `/case-${made++}`
  behaviours.set(path, behaviour)
  return path
}

beforeAll(async () => {
  origin = await startHostileOrigin((socket, request) => (behaviours.get(request.path) ?? ok)(socket, request))
  gateway = await startTestGateway({
    name: 'wire',
    upstreams: {
      origin: { servers: [origin.url] },
      nobody: { servers: ['http://127.0.0.1:1'] },
    },
    sites: [
      {
        hosts: ['a.example'],
        routes: [
          { path: '/*', proxy: { to: 'origin', readTimeoutMs: 300 }, bodyBytesMax: 1_000 },
          { path: '/nobody', proxy: { to: 'nobody' } },
          { path: '/limited', limit: { by: 'address', requests: 1, per: '1 h' }, proxy: { to: 'origin' } },
        ],
      },
    ],
  })
})
/** Whatever an upstream did: nothing is left open, and every request has left one line. */
afterEach(async () => {
  await gateway.settled()
  expect(await gateway.metric('daemun_open_requests')).toBe(0)
  expect(gateway.output()).not.toContain('internal error')
  const ids = gateway.log().map((line) => line['id'])
  expect(new Set(ids).size).toBe(ids.length)
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
})

const get = (path: string, version = '1.1'): string => `GET ${path} HTTP/${version}\r\nHost: a.example\r\n\r\n`
const post = (path: string, body = 'hello'): string =>
  `POST ${path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${body.length}\r\n\r\n${body}`

async function send(bytes: string): Promise<RawClient> {
  const client = await connectRaw(gateway.port)
  client.send(bytes)
  return client
}

const lastLine = async (): Promise<Record<string, unknown>> => {
  await gateway.settled()
  return gateway.log().at(-1) ?? {}
}

const reset = (socket: Socket): void => void socket.resetAndDestroy()
const end = (socket: Socket): void => void socket.end()

/** Says some bytes, then does something else when they have had time to arrive by themselves. */
const saysThen =
  (bytes: string, then: (socket: Socket) => void): Behaviour =>
  (socket) =>
    void socket.write(bytes, 'latin1', () => void setTimeout(() => then(socket), 10))

describe('an answer that cannot be passed on is 502, in the shape of the site', () => {
  const rows: [string, Behaviour, string?][] = [
    ['closes before head (FIN)', end],
    ['closes before head (RST)', reset],
    ['closes within head (FIN)', saysThen('HTTP/1.1 200 OK\r\nContent-Le', end)],
    ['closes within head (RST)', saysThen('HTTP/1.1 200 OK\r\nContent-Le', reset)],
    ['closes within the status line', saysThen('HTTP/1', end)],
    ['garbage status line', says('NONSENSE\r\n\r\n')],
    ['garbage status line without an end', saysThen('\x00\x01\x02', () => {})],
    ['status line of HTTP/2', says('HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok')],
    ['status 99', says('HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nok')],
    ['status 1000', says('HTTP/1.1 1000 OK\r\nContent-Length: 2\r\n\r\nok')],
    ['CL + TE', says('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n')],
    ['duplicate differing CL', says('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!')],
    ['duplicate equal CL', says('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok')],
    ['CL that is no number', says('HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok')],
    ['bare LF smuggles Set-Cookie', says('HTTP/1.1 200 OK\r\nX-A: b\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok')],
    ['bare CR smuggles Set-Cookie', says('HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok')],
    ['NUL in header', says('HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok')],
    ['empty field name', says('HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n\r\nok')],
    ['space before the colon', says('HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok')],
    [
      '200 KB header',
      says(`HTTP/1.1 200 OK\r\nX-Long: ${'a'.repeat(200_000)}\r\nContent-Length: 2\r\n\r\nok`),
      'upstreamHeaderBytesMax',
    ],
    ['unsolicited 101', says('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')],
    ['unsolicited 101 without a protocol', says('HTTP/1.1 101 Switching Protocols\r\n\r\n')],
    ['unsolicited 100', says('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')],
    [
      '2000 × 103',
      says(
        `${'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'.repeat(2_000)}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
      ),
      'informationalMax',
    ],
    ['204 with a body', says('HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello')],
    ['204 with chunks', says('HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n')],
    ['205 with a body', says('HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello')],
    ['an interim answer, then FIN', saysThen('HTTP/1.1 103 Early Hints\r\n\r\n', end)],
  ]
  for (const [name, behaviour, limit = 'attempts'] of rows)
    it(`${name} → 502`, async () => {
      const path = behaving(behaviour)
      // A POST is sent once, so that the connection that fails is the one that is looked at.
      const client = await send(post(path))
      const [answer] = await client.read()
      expect(answer?.status).toBe(502)
      const body = JSON.parse(answer?.body ?? '') as Record<string, unknown>
      expect(body).toMatchObject({ route: 'wire /*', limit, requestId: field(answer!, 'x-request-id') })
      expect(typeof body['value']).toBe('number')
      expect(client.text()).not.toMatch(/set-cookie/i)
      expect(client.text().split('HTTP/1.1 103 ').length - 1).toBeLessThanOrEqual(limits.informationalMax)
      expect(await lastLine()).toMatchObject({ status: 502, path, limit, server: origin.url })
      const failed = origin.requests.at(-1)?.connection ?? -1
      await origin.closed(failed)
      // The client's connection and the next request are unharmed.
      client.send(get('/next'))
      const [, next] = await client.read(2)
      client.socket.destroy()
      expect(next).toMatchObject({ status: 200, body: '/next' })
      expect(origin.requests.at(-1)?.connection).not.toBe(failed)
    })

  it('an upstream that is not there → 502 with route, limit and value', async () => {
    const answer = await ask(gateway.port, get('/nobody'))
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.body)).toMatchObject({ route: 'wire /nobody', limit: 'attempts', value: 1 })
    expect(await lastLine()).toMatchObject({ status: 502, cause: 'ECONNREFUSED' })
  })
})

describe('interim answers', () => {
  const hints =
    'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: h\r\nX-Request-Id: theirs\r\n\r\n'
  const final = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

  it('up to 8 are passed on, without fields of the hop', async () => {
    const path = behaving(says(hints.repeat(limits.informationalMax) + final))
    const client = await send(get(path))
    const [answer] = await client.read()
    client.socket.destroy()
    expect(answer).toMatchObject({ status: 200, body: 'ok' })
    const passed = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'.repeat(limits.informationalMax)
    expect(client.text().startsWith(`${passed}HTTP/1.1 200 `)).toBe(true)
    expect(client.text()).not.toMatch(/x-hop|theirs/i)
  })

  it('each is passed on when it comes', async () => {
    const path = behaving(saysThen(hints, () => {}))
    const client = await send(get(path))
    expect(await client.readUntil('\r\n\r\n')).toBe('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n')
    client.socket.destroy()
  })

  it('HTTP/1.0 gets none, because it knows none', async () => {
    const path = behaving(says(hints + final))
    const client = await send(get(path, '1.0'))
    await client.closed
    expect(client.text()).toMatch(/^HTTP\/1\.1 200 /)
    expect(client.answers()).toMatchObject([{ status: 200, body: 'ok' }])
  })
})

describe('an answer that breaks off is broken off for the client', () => {
  const half = 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello'
  const chunk = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'
  const rows: [string, Behaviour][] = [
    ['body cut (CL) FIN', saysThen(half, end)],
    ['body cut (CL) RST', saysThen(half, reset)],
    ['body cut (CL) in one packet with the head', (socket) => void socket.end(half)],
    ['body cut (CL) before its first byte', saysThen('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n', end)],
    ['body cut (chunked) FIN', saysThen(chunk, end)],
    ['body cut (chunked) RST', saysThen(chunk, reset)],
    ['body cut (chunked) in one packet with the head', (socket) => void socket.end(chunk)],
    [
      'body cut (chunked) before its first chunk',
      saysThen('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', end),
    ],
    ['body cut (chunked) within a chunk', saysThen(`${chunk}a\r\nhel`, end)],
    ['body cut (chunked) before its last line', saysThen(`${chunk}0\r\n`, end)],
    ['bad chunk', saysThen(chunk, (socket) => void socket.write('nonsense\r\n'))],
    ['body cut (close-delimited) RST', saysThen('HTTP/1.1 200 OK\r\n\r\nhello', reset)],
    ['body cut (HTTP/1.0 close-delimited) RST', saysThen('HTTP/1.0 200 OK\r\n\r\nhello', reset)],
  ]
  for (const [name, behaviour] of rows)
    for (const version of ['1.1', '1.0'])
      it(`${name}: cut seen by HTTP/${version}`, async () => {
        const path = behaving(behaviour)
        const client = await send(get(path, version))
        const how = await client.closed
        await gateway.settled()
        const [answer] = client.answers()
        expect(answer?.status).toBe(200)
        if (version === '1.1') expect(answer?.whole).toBe(false)
        else expect(how === 'ECONNRESET' || answer?.whole === false).toBe(true)
        expect(client.text()).not.toContain('0\r\n\r\n')
        expect(await lastLine()).toMatchObject({ status: 200, path, end: 'upstream_cut' })
        expect(gateway.log().filter((line) => line['path'] === path)).toHaveLength(1)
      })

  it('an answer that ends with its connection is whole', async () => {
    const path = behaving(saysThen('HTTP/1.1 200 OK\r\n\r\nhello', end))
    expect(await ask(gateway.port, get(path))).toMatchObject({ status: 200, body: 'hello', whole: true })
  })
})

describe('an upstream that takes its time', () => {
  it('never answers → 504 at the limit, with route, limit and value', async () => {
    const path = behaving(() => {})
    const client = await send(get(path))
    const [answer] = await client.read()
    client.socket.destroy()
    expect(answer?.status).toBe(504)
    expect(JSON.parse(answer?.body ?? '')).toMatchObject({
      route: 'wire /*',
      limit: 'readTimeoutMs',
      value: 300,
      requestId: field(answer!, 'x-request-id'),
    })
    expect(await lastLine()).toMatchObject({ status: 504, path, limit: 'readTimeoutMs' })
    await origin.closed(origin.requests.at(-1)?.connection ?? -1)
  })

  it('never takes the body → 504 at the limit', async () => {
    const stuck = await startHostileOrigin(() => {}, { onConnection: (socket) => void socket.pause() })
    const other = await startTestGateway({
      name: 'stuck',
      upstreams: { origin: { servers: [stuck.url] } },
      sites: [
        {
          hosts: ['a.example'],
          routes: [{ path: '/*', bodyBytesMax: 100_000_000, proxy: { to: 'origin', readTimeoutMs: 300 } }],
        },
      ],
    })
    const client = await connectRaw(other.port)
    client.send('POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 50000000\r\n\r\n')
    client.send(Buffer.alloc(20_000_000))
    const [answer] = await client.read()
    client.socket.destroy()
    expect(answer?.status).toBe(504)
    await other.settled()
    expect(other.log()).toMatchObject([{ status: 504 }])
    await other.stop()
    await stuck.close()
  })

  for (const [name, head] of [
    ['CL', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello'],
    ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'],
    ['close-delimited', 'HTTP/1.1 200 OK\r\n\r\nhello'],
    ['nothing of its body', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'],
  ] as const)
    it(`stalls mid-body (${name}) → cut at the idle limit`, async () => {
      const path = behaving(says(head))
      const client = await send(get(path))
      await client.closed
      expect(client.answers()).toMatchObject([{ status: 200, whole: false }])
      expect(client.text()).not.toContain('0\r\n\r\n')
      expect(await lastLine()).toMatchObject({ status: 200, path, end: 'stalled' })
    })

  it('says a little again and again, and is not cut', async () => {
    const path = behaving((socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n')
      let left = 10
      const timer = setInterval(() => {
        socket.write('x')
        if (--left === 0) clearInterval(timer)
      }, 60)
    })
    expect(await ask(gateway.port, get(path))).toMatchObject({ status: 200, body: 'xxxxxxxxxx', whole: true })
  })
})

describe('fields of an answer', () => {
  it('`Connection: X-Secret` on response: stripped', async () => {
    const path = behaving(
      says(
        'HTTP/1.1 200 OK\r\nConnection: X-Secret, keep-alive\r\nX-Secret: s\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Open: o\r\nContent-Length: 2\r\n\r\nok',
      ),
    )
    const answer = await ask(gateway.port, get(path))
    expect(field(answer, 'x-secret')).toBeUndefined()
    expect(field(answer, 'proxy-authenticate')).toBeUndefined()
    expect(field(answer, 'x-open')).toBe('o')
    expect(answer).toMatchObject({ status: 200, body: 'ok' })
  })

  it('`Connection: Content-Length, Set-Cookie` cannot change the framing', async () => {
    const path = behaving(
      says(
        'HTTP/1.1 200 OK\r\nConnection: Content-Length, Content-Type\r\nContent-Type: text/x\r\nContent-Length: 2\r\n\r\nok',
      ),
    )
    const answer = await ask(gateway.port, get(path))
    expect(answer).toMatchObject({ status: 200, body: 'ok', whole: true })
    expect(field(answer, 'content-length')).toBe('2')
  })

  it("the request id is the gateway's, once", async () => {
    const path = behaving(
      says('HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nx-request-id: theirs\r\nContent-Length: 2\r\n\r\nok'),
    )
    const answer = await ask(gateway.port, get(path))
    expect(answer.fields.filter(([name]) => name.toLowerCase() === 'x-request-id')).toHaveLength(1)
    expect(field(answer, 'x-request-id')).toBe((await lastLine())['id'])
  })

  it('bytes above 127 in a value arrive as they were sent', async () => {
    const path = behaving(says('HTTP/1.1 200 OK\r\nX-Raw: \xe4\xff\r\nContent-Length: 2\r\n\r\nok'))
    expect(field(await ask(gateway.port, get(path)), 'x-raw')).toBe('\xe4\xff')
  })

  it('304 with a length and a body: passed on without the body, and the connection is not used again', async () => {
    const path = behaving(says('HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: "a"\r\n\r\nhello'))
    const client = await send(get(path))
    await client.readUntil('\r\n\r\n')
    const { connection = -1 } = origin.requests.at(-1) ?? {}
    await origin.closed(connection)
    client.send(get('/next'))
    await client.readUntil('/next')
    client.socket.destroy()
    expect(client.answers().map(({ status }) => status)).toEqual([304, 200])
    expect(client.text()).not.toContain('hello')
  })

  it('204 without a body is passed on and its connection used again', async () => {
    const path = behaving(says('HTTP/1.1 204 No Content\r\n\r\n'))
    const client = await send(get(path))
    await client.readUntil('\r\n\r\n')
    client.send(get('/next'))
    const answers = await client.read(2)
    client.socket.destroy()
    expect(answers.map(({ status }) => status)).toEqual([204, 200])
    const [first, second] = origin.requests.slice(-2)
    expect(second?.connection).toBe(first?.connection)
  })

  it('HEAD keeps the length and has no body', async () => {
    const path = behaving(says('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n'))
    const client = await send(`HEAD ${path} HTTP/1.1\r\nHost: a.example\r\n\r\n`)
    const text = await client.readUntil('\r\n\r\n')
    expect(text).toMatch(/content-length: 1000/i)
    client.send(get('/next'))
    expect(await client.readUntil('/next')).toMatch(/\r\n\r\nHTTP\/1\.1 200 /)
    client.socket.destroy()
  })

  it('a redirect to another host is passed on, never followed', async () => {
    const path = behaving(says('HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n'))
    const answer = await ask(gateway.port, get(path))
    expect(answer.status).toBe(302)
    expect(field(answer, 'location')).toBe('http://169.254.169.254/')
  })
})

describe('a connection that is used again', () => {
  it('extra response while idle: socket destroyed, next request clean', async () => {
    const extra = 'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned'
    const path = behaving((socket, request) => {
      ok(socket, request)
      setTimeout(() => socket.write(extra), 20)
    })
    await ask(gateway.port, get(path))
    const { connection = -1 } = origin.requests.at(-1) ?? {}
    await origin.closed(connection)
    expect(await ask(gateway.port, get('/clean'))).toMatchObject({ status: 200, body: '/clean' })
    expect(origin.requests.at(-1)?.connection).not.toBe(connection)
  })

  it('extra response in one packet with the first: socket destroyed, next request clean', async () => {
    const answer = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
    const path = behaving(says(answer + answer.replace('ok', 'no')))
    const client = await send(get(path) + get('/clean'))
    const answers = await client.read(2)
    client.socket.destroy()
    expect(answers.map(({ body }) => body)).toEqual(['ok', '/clean'])
  })

  it('a body that is longer than its length: socket destroyed, next request clean', async () => {
    const path = behaving(
      says('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno'),
    )
    expect((await ask(gateway.port, get(path))).body).toBe('ok')
    expect((await ask(gateway.port, get('/clean'))).body).toBe('/clean')
  })

  /** The origin closes a kept connection in the moment it is used again. */
  async function race(bytes: (path: string) => string): Promise<{ status: number; seen: number }> {
    await ask(gateway.port, get('/warm'))
    let seen = 0
    const path = behaving((socket, request) => {
      seen++
      if (request.before > 0) socket.resetAndDestroy()
      else ok(socket, request)
    })
    const { status } = await ask(gateway.port, bytes(path))
    return { status, seen }
  }

  it('keep-alive race: a GET is transparently sent again, once', async () => {
    expect(await race(get)).toEqual({ status: 200, seen: 2 })
  })

  it('keep-alive race: a POST is 502 and was sent once', async () => {
    expect(await race(post)).toEqual({ status: 502, seen: 1 })
  })

  it('keep-alive race: a GET with a body is 502 and was sent once', async () => {
    expect(await race((path) => post(path).replace('POST', 'GET'))).toEqual({ status: 502, seen: 1 })
  })

  it('keep-alive race: a GET whose answer has begun is not sent again', async () => {
    await ask(gateway.port, get('/warm'))
    let seen = 0
    const path = behaving((socket) => {
      seen++
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel', () => socket.resetAndDestroy())
    })
    const client = await send(get(path))
    await client.closed
    expect(seen).toBe(1)
  })

  it('an upstream that always closes costs two tries, then 502', async () => {
    await ask(gateway.port, get('/warm'))
    let seen = 0
    const path = behaving((socket) => {
      seen++
      socket.resetAndDestroy()
    })
    const answer = await ask(gateway.port, get(path))
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.body)).toMatchObject({ limit: 'attempts', value: seen })
    expect(seen).toBe(2)
  })

  it('is given back after an error too: 1,100 failures leave room for more', async () => {
    const path = behaving(end)
    for (let i = 0; i < 11; i++) {
      const client = await send(get(path).repeat(100))
      await client.read(100)
      client.socket.destroy()
    }
    expect((await ask(gateway.port, get('/after'))).status).toBe(200)
    expect(await gateway.metric('daemun_upstream_connections')).toBe(0)
  })
})

describe('errors that name their limit', () => {
  it('413: route, limit and value', async () => {
    const answer = await ask(gateway.port, post('/x', 'a'.repeat(1_001)))
    expect(answer.status).toBe(413)
    expect(JSON.parse(answer.body)).toMatchObject({
      route: 'wire /*',
      limit: 'bodyBytesMax',
      value: 1_000,
      requestId: field(answer, 'x-request-id'),
    })
  })

  it('429: route, limit and value', async () => {
    await ask(gateway.port, get('/limited'))
    const answer = await ask(gateway.port, get('/limited'))
    expect(answer.status).toBe(429)
    expect(JSON.parse(answer.body)).toMatchObject({ route: 'wire /limited', limit: 'address 1/1 h', value: 1 })
    expect(field(answer, 'retry-after')).toMatch(/^\d+$/)
  })
})
