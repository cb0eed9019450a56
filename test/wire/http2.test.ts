import { once } from 'node:events'
import { connect, constants } from 'node:http2'
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from 'node:http2'
import { connect as connectTls } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { toRaw } from '#edge/node/http2.ts'
import { authority, createCertificateFolder, issue } from '../support/certificates.ts'
import { startTestGateway } from '../support/gateway.ts'
import { says, startHostileOrigin } from '../support/hostile-origin.ts'
import type { HostileOrigin } from '../support/hostile-origin.ts'
import type { TestGateway } from '../support/gateway.ts'
import { openHttp2, toBlock, toFrame, toGet } from '../support/http2-frames.ts'
import { startOrigin } from '../support/origin.ts'
import type { Origin } from '../support/origin.ts'

/** HTTP/2 on the port that ends TLS: the same requests, the same answers, the same bounds. */
let origin: Origin
let hints: HostileOrigin
let gateway: TestGateway
const certificates = createCertificateFolder()
const sessions: ClientHttp2Session[] = []

const start = (): Promise<TestGateway> =>
  startTestGateway(
    {
      name: 'wire',
      upstreams: { origin: { servers: [origin.url] }, hints: { servers: [hints.url] } },
      sites: [
        {
          hosts: ['a.example'],
          https: true,
          routes: [
            { path: '/*', proxy: { to: 'origin', websocket: true }, bodyBytesMax: 100_000_000 },
            { path: '/small/*', proxy: { to: 'origin', strip: '/small' }, bodyBytesMax: 1_000 },
            { path: '/hints', proxy: { to: 'hints' } },
            { path: '/fixed', respond: { status: 200, body: 'fixed' } },
            { path: '/docs/*', files: { root: 'docs' } },
            { path: '/packed/*', compress: true, proxy: { to: 'origin', strip: '/packed' } },
          ],
        },
      ],
    },
    { https: { host: '127.0.0.1', port: 0, certificates: certificates.path, development: false } },
  )

beforeAll(async () => {
  certificates.put('a.example', issue(['a.example']))
  origin = await startOrigin()
  hints = await startHostileOrigin(
    says(
      'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nKeep-Alive: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    ),
  )
  gateway = await start()
})
afterEach(async () => {
  for (const session of sessions.splice(0)) session.destroy()
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
  await hints.close()
  certificates.clear()
})

function open(port = gateway.httpsPort): ClientHttp2Session {
  const session = connect(`https://a.example:${port}`, {
    createConnection: () =>
      connectTls({ port, host: '127.0.0.1', servername: 'a.example', ca: authority, ALPNProtocols: ['h2'] }),
  })
  session.on('error', () => {})
  sessions.push(session)
  return session
}

interface Reply {
  status: number
  headers: Record<string, unknown>
  body: string
  /** How the stream was closed; undefined: with its end. */
  reset: number
}

function ask(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: Buffer | string): Promise<Reply> {
  const stream = session.request(headers, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  return read(stream)
}

async function read(stream: ClientHttp2Stream): Promise<Reply> {
  const reply: Reply = { status: 0, headers: {}, body: '', reset: 0 }
  const chunks: Buffer[] = []
  stream.on('error', () => {})
  stream.on('response', (headers) => {
    reply.status = Number(headers[':status'])
    reply.headers = headers
  })
  stream.on('data', (chunk: Buffer) => void chunks.push(chunk))
  if (!stream.destroyed) await new Promise((resolve) => stream.once('close', resolve))
  reply.body = Buffer.concat(chunks).toString()
  reply.reset = stream.rstCode ?? 0
  return reply
}

const post = (path: string, more: OutgoingHttpHeaders = {}): OutgoingHttpHeaders => ({
  ':method': 'POST',
  ':path': path,
  ...more,
})

const base = toGet('a.example', '/echo')

describe('requests', () => {
  it('reach the upstream as what they stand for', async () => {
    const { status, headers, body } = await ask(open(), {
      ':path': '/echo?x=1',
      cookie: ['a=1', 'b=2'],
      te: 'trailers',
      'x-own': 'kept',
    })
    const echo = JSON.parse(body) as { target: string; headers: string[] }
    const fields = Object.fromEntries(
      Array.from({ length: echo.headers.length / 2 }, (_, at) => [
        echo.headers[at * 2]?.toLowerCase(),
        echo.headers[at * 2 + 1],
      ]),
    )
    expect([status, headers['x-origin'], echo.target]).toEqual([200, 'echo', '/echo?x=1'])
    expect(fields).toMatchObject({
      host: `a.example:${gateway.httpsPort}`,
      'x-forwarded-proto': 'https',
      'x-own': 'kept',
      cookie: 'a=1; b=2',
    })
    expect(fields).not.toHaveProperty('te')
    expect(headers['strict-transport-security']).toContain('max-age')
    expect(headers).not.toHaveProperty('connection')
  })

  it('carry bodies with and without a length', async () => {
    const session = open()
    for (const more of [{}, { 'content-length': '7' }])
      expect(JSON.parse((await ask(session, post('/body', more), 'a=1&b=2')).body)).toMatchObject({ bytes: 7 })
    expect((await ask(session, post('/small/body'), Buffer.alloc(5_000))).status).toBe(413)
    expect((await ask(session, post('/fixed'), Buffer.alloc(500_000))).body).toBe('fixed')
    expect((await ask(session, { ':path': '/fixed' })).body).toBe('fixed')
  })

  it.each(['zstd', 'br', 'gzip'])('get texts compressed, by %s', async (coding) => {
    const stream = open().request({ ':path': '/packed/echo', 'accept-encoding': coding, 'x-long': 'y'.repeat(2_000) })
    const [headers] = (await once(stream, 'response')) as [Record<string, unknown>]
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk as Buffer)
    const unpack = { zstd: zstdDecompressSync, br: brotliDecompressSync, gzip: gunzipSync }[coding] ?? gunzipSync
    expect([headers['content-encoding'], headers['content-length']]).toEqual([coding, undefined])
    expect(unpack(Buffer.concat(chunks)).toString()).toContain('y'.repeat(2_000))
  })

  it('get files, heads and answers without content', async () => {
    const session = open()
    expect((await ask(session, { ':path': '/docs/serve.md' })).body).toContain('# Serve')
    expect(await ask(session, { ':method': 'HEAD', ':path': '/docs/serve.md' })).toMatchObject({
      status: 200,
      body: '',
    })
    expect(await ask(session, { ':path': '/answers/empty' })).toMatchObject({ status: 204, body: '' })
    expect(await ask(session, { ':path': '/answers/unmodified' })).toMatchObject({ status: 304, body: '' })
    const { headers } = await ask(session, { ':path': '/answers/cookies' })
    expect(headers['set-cookie']).toHaveLength(2)
    expect((await ask(session, { ':path': '/wire/large' })).body).toHaveLength(5_000_000)
  })

  it('get the interim answers of the upstream', async () => {
    const stream = open().request({ ':path': '/hints' })
    const interim: [string, unknown][][] = []
    stream.on('headers', (headers) => interim.push(Object.entries(headers)))
    expect(await read(stream)).toMatchObject({ status: 200, body: 'ok' })
    expect(interim).toEqual([
      [
        [':status', 103],
        ['link', '</a>, </b>'],
      ],
    ])
  })

  it('of many streams are served side by side', async () => {
    const session = open()
    const replies = await Promise.all(Array.from({ length: 90 }, () => ask(session, { ':path': '/echo' })))
    expect(replies.every(({ status }) => status === 200)).toBe(true)
  })

  it('an event arrives while the next is not sent', async () => {
    const stream = open().request({ ':path': '/wire/events?id=h2-events' })
    const [chunk] = (await once(stream, 'data')) as [Buffer]
    expect(chunk.toString()).toBe('data: 1\n\n')
    origin.moment('h2-events').reach()
    expect((await read(stream)).body).toBe('data: 2\n\n')
  })
})

describe('connections', () => {
  it('are counted with those of HTTP/1.1, and no longer when they are closed', async () => {
    const before = await gateway.metric('daemun_client_connections')
    const session = open()
    await ask(session, { ':path': '/fixed' })
    expect(await gateway.metric('daemun_client_connections')).toBe(before + 1)
    const closed = once(session, 'close')
    session.close()
    await closed
    while ((await gateway.metric('daemun_client_connections')) !== before) await new Promise(setImmediate)
  })
})

describe('what breaks off', () => {
  it.each(['/wire/cut', '/wire/cut-chunked'])('an answer that is cut (%s) resets the stream', async (path) => {
    const session = open()
    const reply = await ask(session, { ':path': path })
    expect(reply).toMatchObject({ status: 200, reset: constants.NGHTTP2_INTERNAL_ERROR })
    expect((await ask(session, { ':path': '/fixed' })).body).toBe('fixed')
  })

  it.each([
    ['CANCEL', constants.NGHTTP2_CANCEL],
    ['NO_ERROR', constants.NGHTTP2_NO_ERROR],
  ])('an upload that is reset with %s is broken off upstream', async (name, code) => {
    const fields = [...base.slice(1, 3), [':method', 'POST'], [':path', `/wire/upload?id=h2-${name}`]] as [
      string,
      string,
    ][]
    const socket = await openRaw()
    socket.write(Buffer.concat([toFrame(1, 4, 1, toBlock(fields)), toFrame(0, 0, 1, Buffer.alloc(10_000))]))
    await origin.moment(`h2-${name}`).reached
    socket.write(toFrame(3, 0, 1, Buffer.from([0, 0, 0, code])))
    await origin.moment(`h2-${name} broken off`).reached
    socket.destroy()
  })

  it('a client that leaves takes the upstream along', async () => {
    const stream = open().request({ ':path': '/wire/held?id=h2-held' })
    stream.on('error', () => {})
    await origin.moment('h2-held').reached
    stream.close(constants.NGHTTP2_CANCEL)
    await origin.moment('h2-held left').reached
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ path: '/wire/held', end: 'client_gone' })
  })
})

describe('uploads', () => {
  it('a large one arrives whole', async () => {
    const { body } = await ask(open(), post('/wire/upload?id=h2-large'), Buffer.alloc(20_000_000))
    expect(JSON.parse(body)).toMatchObject({ bytes: 20_000_000 })
  })

  it('are slowed down by an upstream that does not read', async () => {
    const session = open()
    const stream = session.request(post('/wire/silent'))
    stream.on('error', () => {})
    let sent = 0
    const send = (): void =>
      void stream.write(Buffer.alloc(65_536), (error) => {
        sent += 65_536
        if (!error && sent < 90_000_000) send()
      })
    send()
    let before = -1
    while (sent !== before) {
      before = sent
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    expect(sent).toBeLessThan(30_000_000)
    // Other streams of the connection go on.
    expect((await ask(session, post('/body'), Buffer.alloc(200_000))).status).toBe(200)
    stream.close(constants.NGHTTP2_CANCEL)
  })
})

describe('hostile clients', () => {
  const without = (name: string): [string, string][] => base.filter(([known]) => known !== name)
  const cases: [string, [string, string][]][] = [
    ['a connection field', [...base, ['connection', 'close']]],
    ['te: gzip', [...base, ['te', 'gzip']]],
    ['transfer-encoding', [...base, ['transfer-encoding', 'chunked']]],
    ['upgrade', [...base, ['upgrade', 'h2c']]],
    ['LF in the path', [...without(':path'), [':path', '/echo\nx: y']]],
    ['an upper-case name', [...base, ['X-A', 'b']]],
    ['two authorities', [...base, [':authority', 'b.example']]],
    ['an unknown pseudo-header', [...base, [':protocol', 'websocket']]],
    ['a pseudo-header behind a field', [...without(':path'), ['x-a', 'b'], [':path', '/echo']]],
    ['no path', without(':path')],
    ['an empty path', [...without(':path'), [':path', '']]],
    ['a path without a slash', [...without(':path'), [':path', 'echo']]],
    ['an absolute path', [...without(':path'), [':path', 'https://a.example/echo']]],
    ['no method', without(':method')],
    ['no authority and no Host', without(':authority')],
    ['another Host', [...base, ['host', 'b.example']]],
    ['the scheme http', [...without(':scheme'), [':scheme', 'http']]],
    ['an authority with a user', [...without(':authority'), [':authority', 'u@a.example']]],
    ['two content-lengths', [...base, ['content-length', '0'], ['content-length', '1']]],
    ['a content-length without content', [...base, ['content-length', '5']]],
    [
      'CONNECT',
      [
        [':method', 'CONNECT'],
        [':authority', 'a.example:443'],
      ],
    ],
    ['a spoofed identity', [...base, ['x_user_id', '1']]],
  ]
  it.each(cases)('%s: refused or reset', async (_, fields) => {
    const { kind, status } = await askRaw(fields)
    expect(kind === 'reset' || (status >= 400 && status < 500)).toBe(true)
  })

  it('a field that is none is dropped', async () => {
    for (const field of [
      ['x-a', 'b\r\nx-b: 1'],
      ['', 'empty'],
      ['x-a', 'b\u0000'],
    ] as [string, string][]) {
      const { status, text } = await askRaw([...base, field])
      expect(status).toBe(200)
      expect(text).not.toMatch(/x-[ab]|empty/)
    }
  })

  it('the frames of these cases are read when nothing is wrong with them', async () => {
    expect(await askRaw(base)).toMatchObject({ kind: 'head', status: 200 })
    expect(await askRaw([...without(':authority'), ['host', 'a.example']])).toMatchObject({ kind: 'head', status: 200 })
  })

  it('too many fields and too long ones are refused or reset', async () => {
    const many = Array.from({ length: 200 }, (_, at): [string, string] => [`x-${at}`, 'y'])
    expect((await askRaw([...base, ...many])).kind).toBe('reset')
    expect(await askRaw([...base, ['x-long', 'y'.repeat(16_200)], ['x-more', 'y'.repeat(120)]])).toMatchObject({
      status: 431,
    })
  })
})

describe('the message a stream stands for', () => {
  it('has one Host, one Cookie, and framing', () => {
    const pseudo = [':method', 'POST', ':scheme', 'https', ':authority', 'a', ':path', '/']
    expect(toRaw([...pseudo, 'cookie', 'a=1', 'x', 'y', 'cookie', 'b=2', 'host', 'A'], false, '::1')).toEqual({
      method: 'POST',
      target: '/',
      version: '1.1',
      headers: ['host', 'a', 'x', 'y', 'cookie', 'a=1; b=2', 'transfer-encoding', 'chunked'],
      peer: '::1',
      secure: true,
    })
  })
})

describe('a WebSocket', () => {
  it('is joined on the same port, over HTTP/1.1', async () => {
    const socket = new WebSocket(`wss://a.example:${gateway.httpsPort}/ws?id=wss`, {
      createConnection: () =>
        connectTls({ port: gateway.httpsPort, host: '127.0.0.1', servername: 'a.example', ca: authority }),
    })
    const [hello] = (await once(socket, 'message')) as [Buffer]
    expect(JSON.parse(hello.toString())).toMatchObject({ target: '/ws?id=wss' })
    socket.send('over TLS')
    const [echo] = (await once(socket, 'message')) as [Buffer]
    expect(echo.toString()).toBe('over TLS')
    socket.close()
    await origin.moment('wss').reached
  })
})

describe('a stop', () => {
  it('says GOAWAY, lets open streams end, and takes no new ones', async () => {
    const own = await start()
    const session = open(own.httpsPort)
    const idle = open(own.httpsPort)
    await ask(idle, { ':path': '/fixed' })
    const stream = session.request({ ':path': '/wire/stream?id=h2-stop' })
    await once(stream, 'data')
    const goodbye = once(session, 'goaway')
    const idleClosed = once(idle, 'close')
    const stopped = own.stop()
    expect((await goodbye)[0]).toBe(constants.NGHTTP2_NO_ERROR)
    await idleClosed
    origin.moment('h2-stop').reach()
    expect(await read(stream)).toMatchObject({ body: 'last\n', reset: 0 })
    await stopped
  })
})

interface RawReply {
  kind: 'head' | 'reset'
  status: number
  /** What came of the body. */
  text: string
}

const openRaw = (): Promise<TLSSocket> => openHttp2(gateway.httpsPort, 'a.example')

/** One request as raw frames (RFC 9113 §4.1), its fields as they are; what comes first: a head or a reset. */
async function askRaw(fields: [string, string][]): Promise<RawReply> {
  const socket = await openRaw()
  const block = toBlock(fields)
  const pieces = Array.from({ length: Math.ceil(block.length / 16_000) }, (_, at) =>
    block.subarray(at * 16_000, (at + 1) * 16_000),
  )
  for (const [at, piece] of pieces.entries()) {
    const last = at === pieces.length - 1 ? 4 : 0
    socket.write(toFrame(at === 0 ? 1 : 9, (at === 0 ? 1 : 0) | last, 1, piece))
  }
  const found = await readFrames(socket)
  socket.destroy()
  return found
}

async function readFrames(socket: TLSSocket): Promise<RawReply> {
  const reply: RawReply = { kind: 'reset', status: 0, text: '' }
  let bytes = Buffer.alloc(0)
  for await (const chunk of socket) {
    bytes = Buffer.concat([bytes, chunk as Buffer])
    while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
      const payload = bytes.subarray(9, 9 + bytes.readUIntBE(0, 3))
      const [type, flags = 0] = bytes.subarray(3, 5)
      bytes = bytes.subarray(9 + payload.length)
      if (type === 3 || type === 7) return reply
      if (type === 0) reply.text += payload.toString()
      // The status is the first field, with an index of its own or as a text behind that of :status.
      if (type === 1) {
        reply.kind = 'head'
        reply.status = indexed[payload[0] ?? 0] ?? readStatus(payload)
      }
      if ((type === 0 || type === 1) && (flags & 1) !== 0) return reply
    }
  }
  return reply
}

const indexed: Record<number, number> = { 0x88: 200, 0x8c: 400, 0x8d: 404 }
/** Digits in HPACK's code: 4, 0, 5, 3 and others of five bits are told apart well enough by what tests ask for. */
function readStatus(payload: Buffer): number {
  const length = (payload[1] ?? 0) & 0x7f
  const text = payload.subarray(2, 2 + length)
  if (((payload[1] ?? 0) & 0x80) === 0) return Number(text.toString())
  const bits = [...text].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  const digits: Record<string, string> = {
    '00000': '0',
    '00001': '1',
    '00010': '2',
    '011001': '3',
    '011010': '4',
    '011011': '5',
    '011100': '6',
    '011101': '7',
    '011110': '8',
    '011111': '9',
  }
  let out = ''
  for (let at = 0; at < bits.length && out.length < 3;) {
    const code = [5, 6].map((size) => bits.slice(at, at + size)).find((one) => digits[one] !== undefined)
    if (code === undefined) break
    out += digits[code]
    at += code.length
  }
  return Number(out)
}
