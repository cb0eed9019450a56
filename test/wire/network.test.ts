import { connect as connectHttp2 } from 'node:http2'
import { connect as connectTls } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { authority, createCertificateFolder, issue } from '../support/certificates.ts'
import { noFaults, startFaultProxy } from '../support/fault-proxy.ts'
import type { FaultProxy } from '../support/fault-proxy.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startHostileOrigin } from '../support/hostile-origin.ts'
import type { HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw, field } from '../support/raw-client.ts'

/** A bad network on both sides of the gateway. */
let origin: HostileOrigin
let gateway: TestGateway
/** Between the gateway and its upstream. */
let behind: FaultProxy
/** Between clients and the gateway, without TLS and with it. */
let before: FaultProxy
let beforeTls: FaultProxy
const certificates = createCertificateFolder()

const text = Array.from({ length: 3_000 }, (_, line) => `line ${line}\n`).join('')
const answers: Record<string, string> = {
  '/short': `HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Origin: yes\r\n\r\nnine more`,
  '/chunked': `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnine\r\n5\r\n more\r\n0\r\n\r\n`,
  '/long': `HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
}

beforeAll(async () => {
  certificates.put('a.example', issue(['a.example']))
  origin = await startHostileOrigin((socket, { path, body }) => {
    const reply = path === '/body' ? `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n` : (answers[path] ?? '')
    socket.write(reply)
    if (path === '/body') socket.write(body)
  })
  behind = await startFaultProxy(origin.url)
  gateway = await startTestGateway(
    {
      name: 'wire',
      upstreams: { origin: { servers: [behind.url] } },
      sites: [
        {
          hosts: ['a.example'],
          routes: [
            { path: '/*', proxy: { to: 'origin', readTimeoutMs: 2_000, retry: false } },
            { path: '/soon/*', proxy: { to: 'origin', strip: '/soon', readTimeoutMs: 300, retry: false } },
            { path: '/again/*', proxy: { to: 'origin', strip: '/again' } },
          ],
        },
      ],
    },
    { https: { host: '127.0.0.1', port: 0, certificates: certificates.path, development: false } },
  )
  before = await startFaultProxy(`http://127.0.0.1:${gateway.port}`)
  beforeTls = await startFaultProxy(`http://127.0.0.1:${gateway.httpsPort}`)
})
afterEach(async () => {
  for (const proxy of [behind, before, beforeTls])
    for (const faults of [proxy.toServer, proxy.toClient]) Object.assign(faults, noFaults())
  behind.refuses = false
  behind.reset()
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
})
afterAll(async () => {
  await Promise.all([behind, before, beforeTls].map((proxy) => proxy.close()))
  await gateway.stop()
  await origin.close()
  certificates.clear()
})

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a.example\r\n\r\n`
const post = (body: string): string =>
  `POST /body HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${body.length}\r\n\r\n${body}`

describe('slow and sliced networks change nothing', () => {
  it.each([1, 5])('slices of %i bytes on both sides, both ways', async (sliceBytes) => {
    for (const proxy of [before, behind])
      for (const faults of [proxy.toServer, proxy.toClient]) faults.sliceBytes = sliceBytes
    const [short, chunked, body] = await Promise.all([
      ask(before.port, get('/short')),
      ask(before.port, get('/chunked')),
      ask(before.port, post('what was sent')),
    ])
    expect(short).toMatchObject({ status: 200, body: 'nine more', whole: true })
    expect(field(short, 'x-origin')).toBe('yes')
    expect(chunked).toMatchObject({ status: 200, body: 'nine more', whole: true })
    expect(body).toMatchObject({ status: 200, body: 'what was sent', whole: true })
  })

  it('slices under TLS and HTTP/2', async () => {
    for (const faults of [beforeTls.toServer, beforeTls.toClient]) faults.sliceBytes = 100
    behind.toClient.sliceBytes = 5
    const session = connectHttp2(`https://a.example:${beforeTls.port}`, {
      createConnection: () =>
        connectTls({
          port: beforeTls.port,
          host: '127.0.0.1',
          servername: 'a.example',
          ca: authority,
          ALPNProtocols: ['h2'],
        }),
    })
    const read = async (path: string): Promise<string> => {
      const chunks: Buffer[] = []
      for await (const chunk of session.request({ ':path': path })) chunks.push(chunk as Buffer)
      return Buffer.concat(chunks).toString()
    }
    expect(await Promise.all([read('/short'), read('/chunked')])).toEqual(['nine more', 'nine more'])
    session.destroy()
  })

  it('latency and jitter on both sides', async () => {
    for (const proxy of [before, behind])
      for (const faults of [proxy.toServer, proxy.toClient]) Object.assign(faults, { latencyMs: 20, jitterMs: 20 })
    const replies = await Promise.all(Array.from({ length: 20 }, () => ask(before.port, get('/long'))))
    expect(replies.every(({ body, whole }) => whole && body === text)).toBe(true)
  })

  it('a narrow line to one client holds up nobody else', async () => {
    before.toClient.bytesPerSecond = 100_000
    const slow = ask(before.port, get('/long'))
    for (let n = 0; n < 20; n++) expect((await ask(gateway.port, get('/long'))).body).toBe(text)
    expect((await slow).body).toBe(text)
  })
})

describe('an upstream that breaks off after any byte', () => {
  it.each(['/short', '/chunked'])('%s: 502 before the head is whole, a cut answer behind it', async (path) => {
    const reply = answers[path] ?? ''
    const head = reply.indexOf('\r\n\r\n') + 4
    const points = Array.from({ length: reply.length - 1 }, (_, at) => at + 1).filter(
      (at) => at % 7 === 0 || Math.abs(at - head) < 5 || at > reply.length - 8,
    )
    for (const at of points) {
      behind.reset()
      behind.toClient.cutAfterBytes = at
      const client = await connectRaw(gateway.port)
      client.send(get(path))
      const [answer] = await client.read()
      if (at < head) expect(answer, String(at)).toMatchObject({ status: 502, whole: true })
      // Its end may be missing, never made up.
      else expect(answer?.whole, String(at)).toBe(false)
      client.socket.destroy()
    }
  })

  it('a request that is cut on its way is 502, and is sent once', async () => {
    behind.toServer.cutAfterBytes = 60
    origin.forget()
    expect((await ask(gateway.port, get('/short'))).status).toBe(502)
    expect(origin.requests).toEqual([])
  })
})

describe('an upstream behind a black hole', () => {
  it('is 504 at the limit when nothing comes back, and is asked again when it is lifted', async () => {
    behind.toClient.blackHole = true
    expect((await ask(gateway.port, get('/soon/short'))).status).toBe(504)
    behind.toClient.blackHole = false
    expect((await ask(gateway.port, get('/soon/short'))).body).toBe('nine more')
  })

  it('cuts the answer that it stops', async () => {
    behind.toClient.bytesPerSecond = 20_000
    const client = await connectRaw(gateway.port)
    client.send(get('/soon/long'))
    await client.readUntil('line 100\n')
    behind.toClient.blackHole = true
    await client.closed
    expect(client.answers()).toMatchObject([{ status: 200, whole: false }])
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ end: 'stalled' })
  })

  it('that refuses connections is 502 at once, and served again when it takes them', async () => {
    behind.reset()
    behind.refuses = true
    expect((await ask(gateway.port, get('/again/short'))).status).toBe(502)
    behind.refuses = false
    expect((await ask(gateway.port, get('/again/short'))).body).toBe('nine more')
  })
})

describe('an upstream that closes one way', () => {
  it('behind a whole answer: the connection is not used again, and the next request is served', async () => {
    expect((await ask(gateway.port, get('/short'))).body).toBe('nine more')
    behind.halfClose('client')
    for (let n = 0; n < 5; n++) expect((await ask(gateway.port, get('/again/short'))).body).toBe('nine more')
  })
})

describe('a client that vanishes', () => {
  it('behind a black hole costs nothing but its own connection, and is let go when it is reset', async () => {
    behind.toClient.bytesPerSecond = 20_000
    const client = await connectRaw(before.port)
    client.send(get('/long'))
    await client.readUntil('line 10\n')
    before.toClient.blackHole = true
    expect((await ask(gateway.port, get('/short'))).body).toBe('nine more')
    before.reset()
    await client.closed
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ path: '/long', end: 'client_gone' })
  })

  it('in the middle of an upload takes the upstream along, and no part of it looks whole', async () => {
    origin.forget()
    before.toServer.cutAfterBytes = 90
    const client = await connectRaw(before.port)
    client.send(post('x'.repeat(200)))
    await client.closed
    await gateway.settled()
    expect(origin.requests).toEqual([])
  })
})
