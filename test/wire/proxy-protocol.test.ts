import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { readNetwork } from '#edge/address.ts'
import type { Network } from '#edge/address.ts'
import { readProxyHeader } from '#edge/node/proxy-header.ts'
import { authority, createCertificateFolder, issue } from '../support/certificates.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startOrigin } from '../support/origin.ts'
import type { Origin } from '../support/origin.ts'
import { ask, connectRaw } from '../support/raw-client.ts'

/** The PROXY protocol in front of both ports: whose connection it is, and what no client can make of it. */
let origin: Origin
let gateway: TestGateway
const certificates = createCertificateFolder()
const hops = (...texts: string[]): Network[] => texts.map((text) => readNetwork(text) as Network)

beforeAll(async () => {
  certificates.put('a.example', issue(['a.example']))
  origin = await startOrigin()
  const table = {
    name: 'wire',
    upstreams: { origin: { servers: [origin.url] } },
    sites: [
      {
        hosts: ['a.example'],
        routes: [
          { path: '/*', proxy: { to: 'origin' } },
          {
            path: '/limited',
            limit: { by: 'address' as const, requests: 2, per: '1 h' },
            proxy: { to: 'origin', path: '/echo' },
          },
        ],
      },
    ],
  }
  gateway = await startTestGateway(table, {
    trustedHops: hops('127.0.0.1'),
    http: { host: '127.0.0.1', port: 0, proxyProtocol: true },
    https: {
      host: '127.0.0.1',
      port: 0,
      proxyProtocol: true,
      certificates: certificates.path,
      development: false,
    },
  })
})
afterEach(async () => {
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
  certificates.clear()
})

const get = (path = '/echo', fields = ''): string => `GET ${path} HTTP/1.1\r\nHost: a.example\r\n${fields}\r\n`

const version1 = (client = '203.0.113.7'): string =>
  client.includes(':')
    ? `PROXY TCP6 ${client} 2001:db8::1 40000 443\r\n`
    : `PROXY TCP4 ${client} 192.0.2.1 40000 443\r\n`

interface Binary {
  command?: number
  family?: number
  addresses?: Buffer
  tail?: Buffer
  length?: number
}

const fourBytes = Buffer.from([203, 0, 113, 8, 192, 0, 2, 1, 0x9c, 0x40, 0x01, 0xbb])
const sixteenBytes = Buffer.concat([
  Buffer.from('20010db8000000000000000000000007', 'hex'),
  Buffer.from('20010db8000000000000000000000001', 'hex'),
  Buffer.from([0x9c, 0x40, 0x01, 0xbb]),
])
/** A type-length-value: PP2_TYPE_AUTHORITY. */
const tlv = Buffer.concat([Buffer.from([0x02, 0, 9]), Buffer.from('a.example')])

function version2({ command = 0x21, family = 0x11, addresses = fourBytes, tail = tlv, length }: Binary = {}): Buffer {
  const rest = Buffer.concat([addresses, tail])
  const head = Buffer.from('\r\n\r\n\0\r\nQUIT\n    ', 'latin1')
  head[12] = command
  head[13] = family
  head.writeUInt16BE(length ?? rest.length, 14)
  return Buffer.concat([head, rest])
}

const clientOf = (body: string): string => {
  const { headers } = JSON.parse(body) as { headers: string[] }
  return headers[headers.findIndex((name) => name.toLowerCase() === 'x-real-ip') + 1] ?? ''
}

const join = (...parts: (string | Buffer)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)))

describe('a header that names the client', () => {
  it.each([
    ['version 1, IPv4', version1(), '203.0.113.7'],
    ['version 1, IPv6', version1('2001:DB8:0::7'), '2001:db8::7'],
    ['version 1, an IPv4 address in its mapped form', version1('::ffff:203.0.113.7'), '203.0.113.7'],
    ['version 2, IPv4, with what follows the addresses', version2(), '203.0.113.8'],
    ['version 2, IPv6', version2({ family: 0x21, addresses: sixteenBytes }), '2001:db8::7'],
    ['version 2, nothing behind the addresses', version2({ tail: Buffer.alloc(0) }), '203.0.113.8'],
    ['version 2, up to the bound', version2({ tail: Buffer.alloc(2_048 - 28) }), '203.0.113.8'],
  ])('%s', async (_name, header, client) => {
    const answer = await ask(gateway.port, join(header, get()))
    expect([answer.status, clientOf(answer.body)]).toEqual([200, client])
    expect(gateway.log().at(-1)).toMatchObject({ client, path: '/echo', status: 200 })
  })

  it('may come a byte at a time, and the request behind it in the same packet', async () => {
    for (const header of [Buffer.from(version1()), version2()]) {
      const client = await connectRaw(gateway.port)
      client.socket.setNoDelay(true)
      for (const byte of header.subarray(0, -1)) {
        client.send(Buffer.from([byte]))
        await new Promise((resolve) => setImmediate(resolve))
      }
      client.send(join(header.subarray(-1), get(), get('/echo/2')))
      const answers = await client.read(2)
      expect(answers.map(({ status }) => status)).toEqual([200, 200])
      client.socket.destroy()
    }
  })

  it('is said once for all requests of the connection, with bodies that come later', async () => {
    const client = await connectRaw(gateway.port)
    client.send(version1('203.0.113.9'))
    client.send('POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nab')
    await new Promise((resolve) => setImmediate(resolve))
    client.send(`cd${get()}`)
    const answers = await client.read(2)
    expect(answers.map(({ body }) => clientOf(body))).toEqual(['203.0.113.9', '203.0.113.9'])
    client.socket.destroy()
  })

  it('names a client that cannot name another: X-Forwarded-For is read of hops only', async () => {
    const { body } = await ask(gateway.port, join(version1(), get('/echo', 'X-Forwarded-For: 198.51.100.1\r\n')))
    expect(clientOf(body)).toBe('203.0.113.7')
  })

  it('may name a hop, whose X-Forwarded-For goes on', async () => {
    const forwarded = get('/echo', 'X-Forwarded-For: 198.51.100.1\r\n')
    const { body } = await ask(gateway.port, join(version1('127.0.0.1'), forwarded))
    expect(clientOf(body)).toBe('198.51.100.1')
  })

  it('is what limits count by: a /64 of IPv6 is one client, in every spelling, and IPv4 another', async () => {
    const status = async (client: string): Promise<number> =>
      (await ask(gateway.port, join(version1(client), get('/limited')))).status
    expect(await status('2001:db8:0:1::1')).toBe(200)
    expect(await status('2001:0DB8:0000:0001:ffff:0:0:2')).toBe(200)
    expect(await status('2001:db8::1:0:0:0:3')).toBe(429)
    expect(await status('2001:db8:0:2::1')).toBe(200)
    expect(await status('198.51.100.7')).toBe(200)
    expect(await status('::ffff:198.51.100.7')).toBe(200)
    expect(await status('::ffff:c633:6407')).toBe(429)
  })
})

describe('a proxy that speaks for itself', () => {
  it.each([
    ['with an address', version2({ command: 0x20 })],
    ['with none', version2({ command: 0x20, family: 0, addresses: Buffer.alloc(0), tail: Buffer.alloc(0) })],
    ['with what nobody knows', version2({ command: 0x20, family: 0x31, addresses: Buffer.alloc(216) })],
  ])('is the one that is connected, %s', async (_name, header) => {
    const { body } = await ask(gateway.port, join(header, get()))
    expect(clientOf(body)).toBe('127.0.0.1')
  })

  it('may only look whether the port is open', async () => {
    const before = gateway.output()
    const client = await connectRaw(gateway.port)
    client.socket.end()
    expect(await client.closed).toBe('end')
    // As HAProxy does: reset before we have seen who it is.
    for (let i = 0; i < 20; i++) (await connectRaw(gateway.port)).socket.resetAndDestroy()
    expect((await ask(gateway.port, join(version1(), get()))).status).toBe(200)
    expect(gateway.output().slice(before.length).trim().split('\n')).toHaveLength(1)
  })
})

describe('anything else is closed without an answer, counted and logged', () => {
  const closes = async (bytes: string | Buffer, port = gateway.port): Promise<void> => {
    const series = 'daemun_proxy_header_faults_total{fault="proxy_malformed"}'
    const before = await gateway.metric(series)
    const client = await connectRaw(port)
    client.send(bytes)
    await client.closed
    expect(client.text()).toBe('')
    expect(await gateway.metric(series)).toBe(before + 1)
    expect(gateway.log().at(-1)).toMatchObject({ client: '127.0.0.1', status: 0, cause: 'proxy_malformed' })
  }

  it.each([
    ['a request without a header', get()],
    ['lower case', 'proxy TCP4 203.0.113.7 192.0.2.1 1 2\r\n'],
    ['another protocol', 'PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n'],
    ['a client that the proxy cannot name', 'PROXY UNKNOWN\r\n'],
    ['the same with addresses', 'PROXY UNKNOWN 203.0.113.7 192.0.2.1 1 2\r\n'],
    ['two spaces', 'PROXY TCP4  203.0.113.7 192.0.2.1 1 2\r\n'],
    ['no server', 'PROXY TCP4 203.0.113.7 1 2\r\n'],
    ['no ports', 'PROXY TCP4 203.0.113.7 192.0.2.1\r\n'],
    ['a port too many', 'PROXY TCP4 203.0.113.7 192.0.2.1 1 2 3\r\n'],
    ['a port too large', 'PROXY TCP4 203.0.113.7 192.0.2.1 1 65536\r\n'],
    ['a port with a zero in front', 'PROXY TCP4 203.0.113.7 192.0.2.1 01 2\r\n'],
    ['an address of the other family', 'PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n'],
    ['an address of the other family, the other way', 'PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n'],
    ['an address that is none', 'PROXY TCP4 203.0.113.256 192.0.2.1 1 2\r\n'],
    ['an address with a zero in front', 'PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\n'],
    ['a line feed only', `PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n${get()}`],
    ['a line that is too long', `PROXY TCP4 ${'1'.repeat(200)}`],
    ['a NUL', 'PROXY TCP4 203.0.113.7\0 192.0.2.1 1 2\r\n'],
    ['another version', version2({ command: 0x31 })],
    ['another command', version2({ command: 0x22 })],
    ['datagrams', version2({ family: 0x12 })],
    ['a socket of a file system', version2({ family: 0x31, addresses: Buffer.alloc(216) })],
    ['no family', version2({ family: 0, addresses: Buffer.alloc(0) })],
    ['an address that is cut short', version2({ addresses: fourBytes.subarray(0, 11), tail: Buffer.alloc(0) })],
    ['more than the bound', version2({ tail: Buffer.alloc(2_048 - 27) })],
    ['a length that promises more than the bound', version2({ length: 65_535 })],
    ['a signature that goes astray', Buffer.from('\r\n\r\n\0\r\nQUIX', 'latin1')],
    ['a second header', version1() + version1()],
  ])('%s', async (name, bytes) => {
    // The second one is where a request should be, and answered as such.
    if (name === 'a second header') expect((await ask(gateway.port, bytes)).status).toBe(400)
    else await closes(bytes)
  })

  it('a handshake without a header, on the port of TLS', async () => {
    const hello = Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])
    await closes(hello, gateway.httpsPort)
  })

  it('a header of which the end does not come', async () => {
    const own = await startTestGateway(
      { name: 'wire', sites: [{ hosts: ['a.example'], routes: [{ path: '/*', respond: { status: 204 } }] }] },
      {
        trustedHops: hops('127.0.0.1'),
        http: { host: '127.0.0.1', port: 0, proxyProtocol: true, headerTimeoutMs: 30 },
      },
    )
    const client = await connectRaw(own.port)
    client.send('PROXY TCP4 203.')
    await client.closed
    expect(own.log()).toMatchObject([{ client: '127.0.0.1', cause: 'proxy_timeout' }])
    expect(await own.metric('daemun_proxy_header_faults_total{fault="proxy_timeout"}')).toBe(1)
    await own.stop()
  })

  it('whoever is no declared hop, however good his header', async () => {
    const own = await startTestGateway(
      { name: 'wire', sites: [{ hosts: ['a.example'], routes: [{ path: '/*', respond: { status: 204 } }] }] },
      { trustedHops: hops('10.0.0.0/8'), http: { host: '127.0.0.1', port: 0, proxyProtocol: true } },
    )
    const client = await connectRaw(own.port)
    client.send(version1() + get())
    await client.closed
    expect(client.text()).toBe('')
    expect(own.log()).toMatchObject([{ client: '127.0.0.1', cause: 'proxy_untrusted' }])
    await own.stop()
  })
})

describe('in front of TLS', () => {
  async function shake(header: string | Buffer, ALPNProtocols: string[]): Promise<TLSSocket> {
    const plain: Socket = connect({ port: gateway.httpsPort, host: '127.0.0.1' })
    await once(plain, 'connect')
    plain.write(header, 'latin1')
    const socket = connectTls({ socket: plain, servername: 'a.example', ca: authority, ALPNProtocols })
    await once(socket, 'secureConnect')
    return socket
  }

  it.each([
    ['version 1', version1('203.0.113.20'), '203.0.113.20'],
    ['version 2', version2(), '203.0.113.8'],
  ])('%s names the client of HTTP/1.1', async (_name, header, client) => {
    const socket = await shake(header, ['http/1.1'])
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
    socket.write(get('/echo', 'Connection: close\r\n'))
    await once(socket, 'close')
    expect(text).toContain('HTTP/1.1 200 OK')
    expect(gateway.log().at(-1)).toMatchObject({ client, scheme: 'https', status: 200 })
  })

  it('names the client of HTTP/2', async () => {
    const socket = await shake(version1('2001:db8::20'), ['h2'])
    const session = connectHttp2('https://a.example', { createConnection: () => socket })
    const stream = session.request({ ':path': '/echo', ':authority': 'a.example' })
    let body = ''
    stream.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
    await once(stream, 'end')
    expect(clientOf(body)).toBe('2001:db8::20')
    expect(gateway.log().at(-1)).toMatchObject({ client: '2001:db8::20', scheme: 'https' })
    session.close()
    await once(session, 'close')
  })

  it('several handshakes at a time each keep their client', async () => {
    const clients = ['203.0.113.31', '203.0.113.32', '203.0.113.33']
    const sockets = await Promise.all(clients.map((client) => shake(version1(client), ['http/1.1'])))
    for (const socket of sockets.toReversed()) {
      socket.write(get('/echo', 'Connection: close\r\n'))
      socket.resume()
      await once(socket, 'close')
    }
    const seen = gateway.log().slice(-3)
    expect(seen.map(({ client }) => client)).toEqual(clients.toReversed())
  })
})

it('no bytes make the reader throw, and none are read beyond the header', () => {
  let seed = 7
  const random = (max: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0
    return seed % max
  }
  for (let round = 0; round < 5_000; round++) {
    const bytes = Buffer.concat([round % 2 === 0 ? version2() : Buffer.from(version1()), Buffer.from(get())])
    for (let edit = random(3); edit >= 0; edit--) bytes[random(60)] = random(256)
    const read = readProxyHeader(bytes.subarray(0, random(bytes.length + 1)))
    if (read.kind === 'header') expect(read.bytes).toBeLessThanOrEqual(bytes.length)
  }
})
