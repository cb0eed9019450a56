import { once } from 'node:events'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { limits } from '#edge/limits.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, startHostileOrigin } from '../support/hostile-origin.ts'
import type { HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw, field } from '../support/raw-client.ts'

/**
 * Requests that two readers could read differently. What is refused must not have reached the upstream with a single
 * byte, neither at once nor in front of the next request.
 */
let origin: HostileOrigin
let gateway: TestGateway
/** The connection to the origin that a request came on last. */
let lastUsed = 0

beforeAll(async () => {
  origin = await startHostileOrigin(
    (socket, request) => {
      if (!request.path.startsWith('/trailers')) return ok(socket, request)
      socket.write(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n',
      )
    },
    {
      onHead: (_socket, { connection }) => {
        lastUsed = connection
      },
    },
  )
  gateway = await startTestGateway({
    name: 'wire',
    upstreams: { origin: { servers: [origin.url] } },
    keys: { main: { secret: 'b7Qx0pLr5mZk2Vd9Wc4Ht8Ns1Jf6Ya3E', algorithms: ['HS256'] } },
    sites: [
      {
        hosts: ['a.example'],
        routes: [
          { path: '/*', proxy: { to: 'origin' } },
          { path: '/private/*', auth: { jwt: 'main' }, proxy: { to: 'origin' } },
          { path: '/fixed', respond: { status: 200, body: 'fixed' } },
          { path: '/read-only', methods: ['GET'], proxy: { to: 'origin' } },
        ],
      },
    ],
  })
})
beforeEach(() => origin.forget())
afterAll(async () => {
  await gateway.stop()
  await origin.close()
})

/** What the upstream has received of the request before this one. */
async function reachedUpstream(): Promise<string> {
  await gateway.settled()
  const marker = `/marker-${Math.random()}`
  await ask(gateway.port, `GET ${marker} HTTP/1.1\r\nHost: a.example\r\n\r\n`)
  const received = origin.received()
  return received.slice(0, received.indexOf(`GET ${marker} `))
}

interface Refused {
  name: string
  status: number
  bytes: string
}

const get = (...lines: string[]): string => ['GET /x HTTP/1.1', 'Host: a.example', ...lines, '', ''].join('\r\n')
const post = (lines: string[], body: string): string =>
  `${['POST /x HTTP/1.1', 'Host: a.example', ...lines].join('\r\n')}\r\n\r\n${body}`
const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n'

describe('a request that peers read differently is refused, with 0 bytes upstream', () => {
  const rows: Refused[] = [
    { name: 'CL+TE', status: 400, bytes: post(['Content-Length: 6', 'Transfer-Encoding: chunked'], '0\r\n\r\nX') },
    { name: 'TE+CL', status: 400, bytes: post(['Transfer-Encoding: chunked', 'Content-Length: 6'], '0\r\n\r\nX') },
    {
      name: '`Transfer-Encoding` on 1.0',
      status: 400,
      bytes: `POST /x HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    },
    { name: '`gzip, chunked`', status: 501, bytes: post(['Transfer-Encoding: gzip, chunked'], `0\r\n\r\n${smuggled}`) },
    { name: 'dup `Host`', status: 400, bytes: `GET /x HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n` },
    { name: 'dup `Host`, equal', status: 400, bytes: get('hOST: a.example') },
    { name: 'no `Host`', status: 400, bytes: 'GET /x HTTP/1.1\r\n\r\n' },
    { name: 'no `Host` on 1.0', status: 400, bytes: 'GET /x HTTP/1.0\r\n\r\n' },
    { name: 'absolute-form ≠ Host', status: 400, bytes: `GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n` },
    { name: 'absolute-form without Host', status: 400, bytes: `GET http://a.example/x HTTP/1.1\r\n\r\n` },
    {
      name: 'absolute-form with userinfo',
      status: 400,
      bytes: `GET http://u:p@a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n`,
    },
    {
      name: 'absolute-form and Host with userinfo',
      status: 400,
      bytes: `GET http://u@a.example/x HTTP/1.1\r\nHost: u@a.example\r\n\r\n`,
    },
    {
      name: 'absolute-form with bad port',
      status: 400,
      bytes: `GET http://a.example:x/x HTTP/1.1\r\nHost: a.example:x\r\n\r\n`,
    },
    {
      name: 'absolute-form with port above 65535',
      status: 400,
      bytes: `GET http://a.example:70000/x HTTP/1.1\r\nHost: a.example:70000\r\n\r\n`,
    },
    {
      name: 'absolute-form of another scheme',
      status: 400,
      bytes: `GET ftp://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n`,
    },
    { name: '`Host: a/b?c`', status: 400, bytes: 'GET /x HTTP/1.1\r\nHost: a/b?c\r\n\r\n' },
    {
      name: '`Host: a.example, b.example`',
      status: 400,
      bytes: 'GET /x HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n',
    },
    { name: '`Host: a.example b.example`', status: 400, bytes: 'GET /x HTTP/1.1\r\nHost: a.example b.example\r\n\r\n' },
    { name: 'obs-fold', status: 400, bytes: get('X-Long: a', ' b') },
    { name: 'obs-fold in TE', status: 400, bytes: post(['Transfer-Encoding:', ' chunked'], `0\r\n\r\n`) },
    { name: 'obs-fold in CL', status: 400, bytes: post(['Content-Length:', ' 5'], `hello`) },
    {
      name: 'obs-fold with a tab before the first field',
      status: 400,
      bytes: 'GET /x HTTP/1.1\r\n\tHost: a.example\r\n\r\n',
    },
    { name: 'bare LF head', status: 400, bytes: 'GET /x HTTP/1.1\nHost: a.example\n\n' },
    { name: 'bare LF behind a field', status: 400, bytes: 'GET /x HTTP/1.1\r\nHost: a.example\nX-A: b\r\n\r\n' },
    { name: 'bare CR in a value', status: 400, bytes: get('X-A: a\rX-B: b') },
    { name: 'NUL in value', status: 400, bytes: get('X-A: a\0b') },
    { name: 'NUL in name', status: 400, bytes: get('X-\0A: b') },
    { name: 'empty field name', status: 400, bytes: get(': b') },
    { name: 'space before the colon', status: 400, bytes: get('X-A : b') },
    { name: '`Content-Length :`', status: 400, bytes: post(['Content-Length : 5'], 'hello') },
    { name: '`Transfer-Encoding :`', status: 400, bytes: post(['Transfer-Encoding : chunked'], '0\r\n\r\n') },
    { name: 'a field without a colon', status: 400, bytes: get('X-A') },
    { name: '`Content-Length: 5, 5`', status: 400, bytes: post(['Content-Length: 5, 5'], 'hello') },
    {
      name: '`Content-Length` repeated',
      status: 400,
      bytes: post(['Content-Length: 5', 'Content-Length: 5'], 'hello'),
    },
    {
      name: '`Content-Length` repeated and differing',
      status: 400,
      bytes: post(['Content-Length: 5', 'Content-Length: 0'], 'hello'),
    },
    { name: '`Content-Length: +5`', status: 400, bytes: post(['Content-Length: +5'], 'hello') },
    { name: '`Content-Length: -1`', status: 400, bytes: post(['Content-Length: -1'], 'hello') },
    { name: '`Content-Length: 0x5`', status: 400, bytes: post(['Content-Length: 0x5'], 'hello') },
    { name: '`Content-Length: 5 5`', status: 400, bytes: post(['Content-Length: 5 5'], 'hello') },
    { name: '`Content-Length:` empty', status: 400, bytes: post(['Content-Length:'], 'hello') },
    {
      name: '`Content-Length` above what a number holds',
      status: 400,
      bytes: post([`Content-Length: ${'9'.repeat(30)}`], 'hello'),
    },
    { name: '`Content_Length: 5`', status: 400, bytes: post(['Content_Length: 5'], 'hello') },
    {
      name: 'TE.TE `chunked, chunked`',
      status: 400,
      bytes: post(['Transfer-Encoding: chunked, chunked'], '0\r\n\r\n'),
    },
    {
      name: 'TE.TE two lines',
      status: 400,
      bytes: post(['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'], '0\r\n\r\n'),
    },
    {
      name: 'TE.TE `chunked` and `identity`',
      status: 400,
      bytes: post(['Transfer-Encoding: chunked', 'Transfer-Encoding: identity'], '0\r\n\r\n'),
    },
    { name: 'TE.TE `,chunked`', status: 501, bytes: post(['Transfer-Encoding: ,chunked'], '0\r\n\r\n') },
    { name: 'TE.TE `xchunked`', status: 501, bytes: post(['Transfer-Encoding: xchunked'], '0\r\n\r\n') },
    { name: 'TE.TE `chunked;q=1`', status: 501, bytes: post(['Transfer-Encoding: chunked;q=1'], '0\r\n\r\n') },
    { name: 'TE.TE quoted', status: 501, bytes: post(['Transfer-Encoding: "chunked"'], '0\r\n\r\n') },
    { name: 'TE.TE vertical tab', status: 400, bytes: post(['Transfer-Encoding: \x0bchunked'], '0\r\n\r\n') },
    { name: 'TE.0 `identity`', status: 501, bytes: post(['Transfer-Encoding: identity'], smuggled) },
    { name: '`Transfer_Encoding: chunked`', status: 400, bytes: post(['Transfer_Encoding: chunked'], '0\r\n\r\n') },
    {
      name: '0.CL `Expect: y 100-continue`',
      status: 417,
      bytes: post(['Expect: y 100-continue', 'Content-Length: 5'], 'hello'),
    },
    {
      name: '`Expect` other than 100-continue',
      status: 417,
      bytes: post(['Expect: 200-ok', 'Content-Length: 5'], 'hello'),
    },
    {
      name: '`Expect` twice',
      status: 417,
      bytes: post(['Expect: 100-continue', 'Expect: 100-continue', 'Content-Length: 5'], 'hello'),
    },
    { name: '`X_Forwarded_For`', status: 400, bytes: get('X_Forwarded_For: 10.0.0.1') },
    { name: '`X.Forwarded.For`', status: 400, bytes: get('X.Forwarded.For: 10.0.0.1') },
    { name: '`X_User_Id`', status: 400, bytes: get('X_User_Id: root') },
    { name: '`X.User.Id`', status: 400, bytes: get('X.User.Id: root') },
    { name: '`x-user_id`', status: 400, bytes: get('x-user_id: root') },
    { name: '`X_Real_IP`', status: 400, bytes: get('X_Real_IP: 10.0.0.1') },
    { name: 'two `Authorization`', status: 400, bytes: get('Authorization: Bearer a', 'Authorization: Bearer b') },
    { name: '`TRACE`', status: 405, bytes: 'TRACE /x HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`CONNECT`', status: 405, bytes: 'CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n' },
    { name: '`CONNECT` with a path', status: 405, bytes: 'CONNECT /x HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`%2f` in path', status: 400, bytes: 'GET /a%2fb HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`%5c` in path', status: 400, bytes: 'GET /static/..%5c HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`%00` in path', status: 400, bytes: 'GET /a%00b HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`//admin`', status: 400, bytes: 'GET //admin HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`/admin%2f`', status: 400, bytes: 'GET /admin%2f HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`/%2e%2e/`', status: 400, bytes: 'GET /%2e%2e/x HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: '`/a/..;x=/b`', status: 400, bytes: 'GET /a/..;x=/b HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'a backslash in path', status: 400, bytes: 'GET /a\\b HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'overlong UTF-8 in path', status: 400, bytes: 'GET /%c0%af HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'a fragment in the target', status: 400, bytes: 'GET /x#y HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'raw bytes in path', status: 400, bytes: 'GET /\xff HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'a space in the target', status: 400, bytes: 'GET /x y HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'a lower-case method', status: 400, bytes: 'get /x HTTP/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'a lower-case version', status: 400, bytes: 'GET /x http/1.1\r\nHost: a.example\r\n\r\n' },
    { name: 'HTTP/0.9', status: 505, bytes: 'GET /x HTTP/0.9\r\nHost: a.example\r\n\r\n' },
    { name: 'HTTP/0.9 without a version', status: 505, bytes: 'GET /x\r\n\r\n' },
    { name: 'HTTP/2.0', status: 505, bytes: 'GET /x HTTP/2.0\r\nHost: a.example\r\n\r\n' },
    { name: 'HTTP/1.2', status: 400, bytes: 'GET /x HTTP/1.2\r\nHost: a.example\r\n\r\n' },
    { name: 'HTTP/11.1', status: 400, bytes: 'GET /x HTTP/11.1\r\nHost: a.example\r\n\r\n' },
    { name: 'the preface of HTTP/2', status: 400, bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' },
    { name: '2,000 headers', status: 431, bytes: get(...Array.from({ length: 2_000 }, (_, index) => `X-${index}: a`)) },
    { name: '101 headers', status: 431, bytes: get(...Array.from({ length: 101 }, (_, index) => `X-${index}: a`)) },
    { name: '32 KB header', status: 431, bytes: get(`X-Long: ${'a'.repeat(32_768)}`) },
    {
      name: '17 KB of headers',
      status: 431,
      bytes: get(...Array.from({ length: 17 }, (_, index) => `X-${index}: ${'a'.repeat(1_000)}`)),
    },
    { name: 'URI 16 KB', status: 414, bytes: `GET /${'a'.repeat(16_384)} HTTP/1.1\r\nHost: a.example\r\n\r\n` },
    { name: 'a query of 16 KB', status: 414, bytes: `GET /?${'a'.repeat(16_384)} HTTP/1.1\r\nHost: a.example\r\n\r\n` },
    { name: 'TLS where HTTP is spoken', status: 400, bytes: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' },
  ]

  for (const { name, status, bytes } of rows)
    it(`${name} → ${status}`, async () => {
      const client = await connectRaw(gateway.port)
      client.send(bytes)
      const [answer] = await client.read()
      const received = await reachedUpstream()
      client.socket.destroy()
      expect(answer?.status).toBe(status)
      expect(received).toBe('')
      expect(field(answer!, 'x-request-id')).toMatch(/^[\w-]{8,}$/)
    })

  it('each of them leaves exactly one line in the access log', async () => {
    for (const { name, bytes } of rows) {
      const before = gateway.log().length
      const answer = await ask(gateway.port, bytes)
      await gateway.settled()
      const lines = gateway.log().slice(before)
      expect(
        lines.map((line) => [line['status'], line['id']]),
        name,
      ).toEqual([[answer.status, field(answer, 'x-request-id')]])
    }
  })
})

describe('after faulty framing the connection is closed, so that nothing is read behind it', () => {
  const rows: [string, string][] = [
    ['CL+TE', post(['Content-Length: 6', 'Transfer-Encoding: chunked'], `0\r\n\r\n${smuggled}`)],
    [
      'TE on 1.0',
      `POST /x HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    ['`gzip, chunked`', post(['Transfer-Encoding: gzip, chunked'], `0\r\n\r\n${smuggled}`)],
    ['dup `Host`', `GET /x HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n${smuggled}`],
    ['`Content_Length`', post(['Content_Length: 5'], smuggled)],
    ['`Expect: y 100-continue`', post(['Expect: y 100-continue', 'Content-Length: 5'], `hello${smuggled}`)],
    ['HTTP/2.0', `GET /x HTTP/2.0\r\nHost: a.example\r\n\r\n${smuggled}`],
  ]
  for (const [name, bytes] of rows)
    it(name, async () => {
      const client = await connectRaw(gateway.port)
      client.send(bytes)
      await client.closed
      expect(client.answers()).toHaveLength(1)
      expect(await reachedUpstream()).toBe('')
    })
})

describe('a bad chunk behind a head that was passed on', () => {
  const rows: [string, string][] = [
    ['chunk size `0x5`', '0x5\r\nhello\r\n0\r\n\r\n'],
    ['chunk size overflow', 'ffffffffffffffffff\r\nhello\r\n0\r\n\r\n'],
    ['chunk size negative', '-5\r\nhello\r\n0\r\n\r\n'],
    ['chunk size empty', '\r\nhello\r\n0\r\n\r\n'],
    ['chunk size bare-LF', '5\nhello\n0\n\n'],
    ['chunk longer than its size', '5\r\nhello!\r\n0\r\n\r\n'],
    ['chunk-ext with LF ("TERM.EXT")', '5;a\nhello\r\n0\r\n\r\n'],
    ['chunk-ext without end', `5;${'a'.repeat(40_000)}\r\nhello\r\n0\r\n\r\n`],
    ['trailer field with NUL', '0\r\nX-A: \0\r\n\r\n'],
  ]
  for (const [name, chunks] of rows)
    it(`${name} → 400, and the connection to the upstream is destroyed, never pooled`, async () => {
      const client = await connectRaw(gateway.port)
      const logged = gateway.log().length
      client.send(post(['Transfer-Encoding: chunked'], '3\r\nabc\r\n'))
      // The head and a good chunk are upstream before the bad one comes.
      while (!origin.received().includes('abc')) await new Promise((resolve) => setTimeout(resolve, 2))
      client.send(chunks)
      await client.closed
      expect(client.answers().map(({ status }) => status)).toEqual([400])
      await gateway.settled()
      expect(origin.requests).toEqual([])
      const connection = lastUsed
      await origin.closed(connection)
      await ask(gateway.port, smuggled)
      expect(origin.requests[0]?.connection).not.toBe(connection)
      expect(
        gateway
          .log()
          .slice(logged)
          .map((line) => line['status']),
      ).toEqual([400, 200])
    })

  it('breaks the answer off when it has begun, without a second answer inside it', async () => {
    const early = await startHostileOrigin(() => {}, {
      onHead: (socket) => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun'),
    })
    const other = await startTestGateway(plainTable(early.url))
    const client = await connectRaw(other.port)
    client.send(post(['Transfer-Encoding: chunked'], '3\r\nabc\r\n'))
    await client.readUntil('begun')
    client.send('bad\n\n')
    await client.closed
    expect(client.text().match(/HTTP\/1\.1/g)).toHaveLength(1)
    await other.settled()
    expect(other.log().map((line) => line['status'])).toEqual([200])
    await other.stop()
    await early.close()
  })
})

const plainTable = (url: string) => ({
  name: 'plain',
  upstreams: { origin: { servers: [url] } },
  sites: [{ hosts: ['a.example'], routes: [{ path: '/*', proxy: { to: 'origin' } }] }],
})

describe('what is passed on is passed on clean', () => {
  it('drops trailer fields of a request', async () => {
    const answer = await ask(
      gateway.port,
      post(
        ['Transfer-Encoding: chunked', 'Trailer: X-User-Id'],
        '5\r\nhello\r\n0\r\nX-User-Id: root\r\nX-Sum: 1\r\n\r\n',
      ),
    )
    expect(answer.status).toBe(200)
    expect(origin.requests[0]?.body.toString()).toMatch(/^(5\r\n)?hello(\r\n0\r\n\r\n)?$/)
    expect(origin.received()).not.toMatch(/root|x-sum|trailer/i)
  })

  it('drops trailer fields of an answer', async () => {
    const answer = await ask(gateway.port, 'GET /trailers HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n\r\n')
    expect(answer).toMatchObject({ status: 200, body: 'ok', whole: true })
    expect(answer.fields.map(([name]) => name.toLowerCase())).not.toContain('trailer')
  })

  it('drops chunk extensions', async () => {
    await ask(gateway.port, post(['Transfer-Encoding: chunked'], '5;a="b"\r\nhello\r\n0;x\r\n\r\n'))
    expect(origin.requests[0]?.body.toString()).toMatch(/^(5\r\n)?hello(\r\n0\r\n\r\n)?$/)
  })

  for (const method of ['GET', 'DELETE'])
    it(`passes the body of a ${method} on with its framing, and the next request is its own`, async () => {
      const client = await connectRaw(gateway.port)
      client.send(`${method} /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`)
      client.send('GET /y HTTP/1.1\r\nHost: a.example\r\n\r\n')
      const answers = await client.read(2)
      client.socket.destroy()
      expect(answers.map(({ body }) => body)).toEqual(['/x', '/y'])
      expect(origin.requests.map(({ path }) => path)).toEqual(['/x', '/y'])
      expect(origin.requests[0]?.body.toString()).toBe(smuggled)
    })

  it('throws the body of a request away that an answer of its own needs not', async () => {
    const client = await connectRaw(gateway.port)
    client.send(`GET /fixed HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`)
    client.send('GET /y HTTP/1.1\r\nHost: a.example\r\n\r\n')
    const answers = await client.read(2)
    client.socket.destroy()
    expect(answers.map(({ body }) => body)).toEqual(['fixed', '/y'])
    expect(origin.requests.map(({ path }) => path)).toEqual(['/y'])
  })

  it('`Connection: X-Real-IP, Authorization, X-Forwarded-For` names away the fields of the client, not ours', async () => {
    await ask(
      gateway.port,
      get(
        'Connection: X-Real-IP, Authorization, X-Forwarded-For, X-Request-Id, X-Secret, Host',
        'X-Real-IP: 10.0.0.1',
        'X-Forwarded-For: 10.0.0.1',
        'Authorization: Bearer named-away',
        'X-Secret: 1',
      ),
    )
    const head = origin.requests[0]?.head ?? ''
    expect(head).toMatch(/^x-real-ip: 127\.0\.0\.1$/im)
    expect(head).toMatch(/^x-forwarded-for: 127\.0\.0\.1$/im)
    expect(head).toMatch(/^x-request-id: /im)
    expect(head).toMatch(/^host: a\.example$/im)
    expect(head).not.toMatch(/10\.0\.0\.1|named-away|x-secret/i)
  })

  it('identity and forwarding fields of a client are not passed on, in any case', async () => {
    const names = [
      'X-Forwarded-For',
      'X-FORWARDED-HOST',
      'x-forwarded-port',
      'X-Forwarded-Anything',
      'Forwarded',
      'X-User-Id',
      'x-user-claims',
      'X-USER-ROLE',
      'X-Real-IP',
      'Via',
      'True-Client-IP',
      'CF-Connecting-IP',
      'X-Middleware-Subrequest',
      'X-Original-URL',
      'X-Rewrite-URL',
      'X-Daemun-Client',
      'Proxy-Authorization',
      'Proxy-Connection',
      'Keep-Alive',
      'TE',
    ]
    await ask(gateway.port, get(...names.map((name) => `${name}: spoofed`)))
    expect(origin.requests).toHaveLength(1)
    expect(origin.requests[0]?.head).not.toContain('spoofed')
  })

  it('`__proto__` and `constructor` as names are ordinary fields', async () => {
    const answer = await ask(gateway.port, get('__proto__: a', 'constructor: b', 'toString: c'))
    expect(answer.status).toBe(200)
    expect(origin.requests[0]?.head).toMatch(/^__proto__: a$/m)
    expect(origin.requests[0]?.head).toMatch(/^constructor: b$/m)
  })

  it('absolute-form that agrees with Host is sent as origin-form', async () => {
    await ask(gateway.port, 'GET HTTP://A.example/x?y HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n')
    expect(origin.requests[0]?.head).toMatch(/^GET \/x\?y HTTP\/1\.1\r\nhost: a\.example/i)
  })

  it('100 fields and a target of 8 KB pass', async () => {
    const fields = Array.from({ length: 99 }, (_, index) => `X-${index}: a`)
    expect((await ask(gateway.port, get(...fields))).status).toBe(200)
    const long = `/${'a'.repeat(limits.targetBytesMax - 1)}`
    expect((await ask(gateway.port, `GET ${long} HTTP/1.1\r\nHost: a.example\r\n\r\n`)).status).toBe(200)
    expect(origin.requests[1]?.path).toBe(long)
  })

  it('`Expect: 100-continue` is answered with 100 when the request is passed on', async () => {
    const client = await connectRaw(gateway.port)
    client.send(post(['Expect: 100-continue', 'Content-Length: 5'], ''))
    expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 100 /)
    client.send('hello')
    await client.read()
    client.socket.destroy()
    expect(origin.requests[0]?.body.toString()).toBe('hello')
    expect(origin.requests[0]?.head).not.toMatch(/expect/i)
  })

  it('`Expect: 100-continue` on HTTP/1.0 is not answered with 100 (RFC 9110 §10.1.1)', async () => {
    const client = await connectRaw(gateway.port)
    client.send('POST /x HTTP/1.0\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello')
    await client.closed
    expect(client.text()).toMatch(/^HTTP\/1\.1 200 /)
  })

  it('`Expect: 100-continue` with refused auth gets 401 without 100, then the connection is closed', async () => {
    const client = await connectRaw(gateway.port)
    client.send('POST /private/x HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n')
    await client.closed
    expect(client.text()).toMatch(/^HTTP\/1\.1 401 /)
    expect(field(client.answers()[0]!, 'connection')).toBe('close')
    expect(await reachedUpstream()).toBe('')
  })
})

describe('one connection, many requests', () => {
  it('10,000 pipelined requests are answered in order, then the connection is closed', async () => {
    const client = await connectRaw(gateway.port)
    const count = limits.requestsPerConnectionMax
    for (let from = 0; from < count; from += 500) {
      const some = Array.from({ length: 500 }, (_, index) => `GET /${from + index} HTTP/1.1\r\nHost: a.example\r\n\r\n`)
      client.send(some.join(''))
    }
    client.send('GET /one-too-many HTTP/1.1\r\nHost: a.example\r\n\r\n')
    await client.closed
    const bodies = client.text().match(/(?<=\r\n\r\n)\/[a-z0-9-]+/g)
    expect(bodies).toEqual(Array.from({ length: count }, (_, index) => `/${index}`))
    expect(origin.received()).not.toContain('one-too-many')
  })

  it('are with the upstream one at a time, so that one client cannot take all its connections', async () => {
    const client = await connectRaw(gateway.port)
    const opened = origin.connections.length
    client.send(Array.from({ length: 300 }, (_, index) => `GET /${index} HTTP/1.1\r\nHost: a.example\r\n\r\n`).join(''))
    await client.readUntil('\r\n\r\n/299')
    client.socket.destroy()
    expect(origin.connections.length - opened).toBeLessThanOrEqual(1)
  })

  it('nothing behind a request that closes the connection is passed on', async () => {
    const client = await connectRaw(gateway.port)
    client.send(
      `POST /private/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /behind HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n`,
    )
    await client.closed
    expect(client.answers().map(({ status }) => status)).toEqual([401])
    expect(await reachedUpstream()).toBe('')
  })

  it('bytes that are no request wait for the answers before them', async () => {
    const client = await connectRaw(gateway.port)
    client.send('GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n\r\nnonsense\r\n\r\n')
    await client.closed
    expect(client.answers().map(({ status, body }) => (status === 200 ? body : status))).toEqual(['/1', '/2', 400])
  })

  it('an upgrade behind an unanswered request harms nobody else', async () => {
    const slow = await startHostileOrigin((socket, request) => void setTimeout(() => ok(socket, request), 50))
    const other = await startTestGateway(plainTable(slow.url))
    const client = await connectRaw(other.port)
    client.send(
      'GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    )
    await client.closed
    expect((await ask(other.port, 'GET /3 HTTP/1.1\r\nHost: a.example\r\n\r\n')).body).toBe('/3')
    await other.settled()
    expect(other.output()).not.toContain('internal error')
    await other.stop()
    await slow.close()
  })

  it.each([
    ['a request', 'POST /private/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    [
      'two requests',
      `POST /private/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${get()}`,
    ],
    ['CONNECT', 'CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n'],
  ])('an upgrade behind %s that closes the connection harms nobody', async (_, before) => {
    const client = await connectRaw(gateway.port)
    client.send(before)
    await client.read()
    // The parser still reads what comes.
    client.send(`${get()}${get('Connection: Upgrade', 'Upgrade: websocket')}`)
    await client.closed
    expect(client.answers()).toHaveLength(1)
    expect((await ask(gateway.port, 'GET /3 HTTP/1.1\r\nHost: a.example\r\n\r\n')).body).toBe('/3')
  })

  it('an upgrade behind an answer that can no longer be sent harms nobody', async () => {
    const fixed = 'GET /fixed HTTP/1.1\r\nHost: a.example\r\n\r\n'
    for (let n = 0; n < 10; n++) {
      const { socket } = await connectRaw(gateway.port)
      socket.write(fixed + get('Connection: Upgrade', 'Upgrade: websocket'))
      // Both are read by the gateway when the client is gone already.
      socket.end()
      await once(socket, 'finish')
      socket.resetAndDestroy()
    }
    expect((await ask(gateway.port, fixed)).body).toBe('fixed')
    await gateway.settled()
  })

  it('a FIN behind the request does not cost the answer (half-close)', async () => {
    const slow = await startHostileOrigin((socket, request) => void setTimeout(() => ok(socket, request), 50))
    const other = await startTestGateway(plainTable(slow.url))
    const client = await connectRaw(other.port, { allowHalfOpen: true })
    client.socket.end('GET /half HTTP/1.1\r\nHost: a.example\r\n\r\n')
    await client.closed
    expect(client.answers()).toMatchObject([{ status: 200, body: '/half', whole: true }])
    await other.settled()
    expect(other.log()).toMatchObject([{ status: 200 }])
    await other.stop()
    await slow.close()
  })
})
