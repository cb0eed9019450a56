import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { compileTables } from '#edge/compile.ts'
import { openCertificates } from '#edge/node/certificates.ts'
import type { Certificates } from '#edge/node/certificates.ts'
import { readServerName } from '#edge/node/client-hello.ts'
import { createTlsListener } from '#edge/node/tls.ts'
import type { Table } from '#edge/table.ts'
import { authority, createCertificateFolder, issue } from '../support/certificates.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startOrigin } from '../support/origin.ts'
import type { Origin } from '../support/origin.ts'

/** The port that ends TLS: what it speaks, what it shows to whom, and what no client can do to it. */
let origin: Origin
let gateway: TestGateway
let table: Table
const certificates = createCertificateFolder()

beforeAll(async () => {
  certificates.put('a.example', issue(['a.example']))
  certificates.put('both', issue(['b.example', '*.wild.example']))
  origin = await startOrigin()
  table = toTable(origin.url)
  gateway = await startTestGateway(table, {
    https: { host: '127.0.0.1', port: 0, certificates: certificates.path, development: false },
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

function toTable(url = 'http://127.0.0.1:1'): Table {
  const routes = [{ path: '/*', proxy: { to: 'origin', websocket: true } }]
  return {
    name: 'wire',
    upstreams: { origin: { servers: [url] } },
    sites: [
      { hosts: ['a.example'], https: true, routes },
      { hosts: ['b.example', '*.wild.example'], routes },
      { hosts: ['bare.example'], routes },
    ],
  }
}

/** Resolves when the handshake is done, rejects when it is refused. */
async function shake(options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = connectTls({
    port: gateway.httpsPort,
    host: '127.0.0.1',
    servername: 'a.example',
    ca: authority,
    ...options,
  })
  await once(socket, 'secureConnect')
  socket.on('error', () => {})
  return socket
}

async function request(socket: Socket, path = '/echo', host = 'a.example', version = '1.1'): Promise<string> {
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.write(`GET ${path} HTTP/${version}\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
  await closed
  return text
}

const toSubject = (socket: TLSSocket): string => String(socket.getPeerCertificate().subject.CN)

describe('what is spoken', () => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('%s', async (version) => {
    const socket = await shake({ minVersion: version, maxVersion: version })
    expect(socket.getProtocol()).toBe(version)
    expect(await request(socket)).toMatch(/^HTTP\/1\.1 200 OK/)
  })

  it.each(['TLSv1', 'TLSv1.1'] as const)('not %s', async (version) => {
    await expect(shake({ minVersion: version, maxVersion: version, ciphers: 'DEFAULT:@SECLEVEL=0' })).rejects.toThrow(
      /protocol version|unsupported|alert/i,
    )
  })

  it.each(['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305'])(
    'the cipher %s',
    async (ciphers) => {
      const socket = await shake({ maxVersion: 'TLSv1.2', ciphers })
      expect(socket.getCipher().name).toBe(ciphers)
      socket.destroy()
    },
  )

  it.each(['ECDHE-ECDSA-AES128-SHA', 'ECDHE-ECDSA-AES256-SHA384', 'AES128-GCM-SHA256', 'AES256-SHA'])(
    'not the cipher %s',
    async (ciphers) => {
      await expect(shake({ maxVersion: 'TLSv1.2', ciphers: `${ciphers}:@SECLEVEL=0` })).rejects.toThrow()
    },
  )

  it.each([
    [['h2', 'http/1.1'], 'h2'],
    [['http/1.1'], 'http/1.1'],
    [['http/1.1', 'h2'], 'h2'],
    [undefined, false],
  ])('of the protocols %j, %s', async (ALPNProtocols, chosen) => {
    const socket = await shake({ ALPNProtocols })
    expect(socket.alpnProtocol).toBe(chosen)
    socket.destroy()
  })

  it('no other protocol', async () => {
    await expect(shake({ ALPNProtocols: ['spdy/3'] })).rejects.toThrow(/no application protocol/i)
  })
})

describe('HTTP/1.1 over TLS', () => {
  it('is answered to a client that has closed its side', async () => {
    const socket = await shake()
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
    socket.end('GET /echo HTTP/1.1\r\nHost: a.example\r\n\r\n')
    await once(socket, 'close')
    expect(text).toContain('HTTP/1.1 200 OK')
  })

  it('shows a cut answer to HTTP/1.0 as a reset', async () => {
    const socket = await shake()
    let code = ''
    socket.on('error', (error: NodeJS.ErrnoException) => (code = error.code ?? ''))
    await request(socket, '/wire/cut-chunked', 'a.example', '1.0')
    expect(code).toBe('ECONNRESET')
  })

  it('is what plain requests are sent to, on its port', async () => {
    const socket = connect(gateway.port, '127.0.0.1')
    expect(await request(socket, '/x?y=1', `a.example:${gateway.port}`)).toContain(
      `Location: https://a.example:${gateway.httpsPort}/x?y=1\r\n`,
    )
    // Somebody in front maps 80 to this port: he maps 443 too.
    const mapped = connect(gateway.port, '127.0.0.1')
    expect(await request(mapped, '/x', 'a.example')).toContain('Location: https://a.example/x\r\n')
  })
})

describe('certificates', () => {
  it.each([
    ['a.example', 'a.example'],
    ['A.EXAMPLE', 'a.example'],
    ['b.example', 'b.example'],
    ['x.wild.example', 'b.example'],
    ['bare.example', 'Daemun stand-in, self-signed'],
    ['nobody.example', 'Daemun stand-in, self-signed'],
    ['', 'Daemun stand-in, self-signed'],
  ])('for %s that of %s', async (servername, subject) => {
    const socket = await shake({ servername, rejectUnauthorized: false, checkServerIdentity: () => undefined })
    expect(toSubject(socket)).toBe(subject)
    socket.destroy()
  })

  it('are said and counted when they are missing', async () => {
    expect(gateway.output()).toContain('no certificate for bare.example: a self-signed one stands in')
    expect(await gateway.metric('daemun_certificate_days_left{host="a.example"}')).toBe(89)
    expect(await gateway.metric('daemun_certificate_days_left{host="bare.example"}')).toBe(0)
  })

  it('are swapped under open connections', async () => {
    const open = await shake()
    const before = open.getPeerCertificate().serialNumber
    certificates.put('a.example', issue(['a.example'], { to: 60 }))
    let now = before
    for (let tries = 0; tries < 100 && now === before; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      const socket = await shake()
      now = socket.getPeerCertificate().serialNumber
      socket.destroy()
    }
    expect(now).not.toBe(before)
    expect(gateway.output()).toContain('a.example: the new certificate is shown')
    expect(await request(open)).toMatch(/^HTTP\/1\.1 200 OK/)
  })
})

describe('certificate files', () => {
  const folder = createCertificateFolder()
  const reports: string[] = []
  let opened: Certificates | undefined
  afterEach(() => {
    opened?.close()
    folder.remove('a.example')
    reports.length = 0
  })
  afterAll(() => folder.clear())

  const openOwn = async (): Promise<Certificates> => {
    const compiled = await compileTables([{ table }], { environment: {}, development: false })
    opened = await openCertificates({
      compiled,
      directory: folder.path,
      development: false,
      report: (line) => void reports.push(line),
    })
    return opened
  }
  const failures = (one: Certificates): unknown =>
    one.gauges().find(({ name }) => name === 'daemun_certificate_failures_total')?.value

  const good = (): ReturnType<typeof issue> => issue(['a.example'])
  const bad: [string, () => Partial<ReturnType<typeof issue>>, string][] = [
    ['expired', () => issue(['a.example'], { from: -90, to: -1 }), 'it expired on 2'],
    ['not yet valid', () => issue(['a.example'], { from: 1 }), 'it is not valid before 2'],
    ['of another key', () => ({ ...good(), key: good().key }), 'privkey.pem is not the key of the certificate'],
    ['for another name', () => issue(['c.example']), 'it is for c.example'],
    ['cut', () => ({ certificate: good().certificate.slice(0, 200) }), 'fullchain.pem has no certificate'],
    ['garbage', () => ({ certificate: 'x' }), 'fullchain.pem has no certificate'],
    ['without a key', () => ({ ...good(), key: 'x' }), 'privkey.pem is no private key that can be read'],
    [
      'out of order',
      () => {
        const { certificate, key } = good()
        return { certificate: certificate + good().certificate, key }
      },
      'fullchain.pem is not in order',
    ],
  ]

  it.each(bad)('%s: not taken at the start', async (_, files, fault) => {
    folder.put('a.example', { ...good(), ...files() })
    const one = await openOwn()
    expect(reports[0]).toContain(`a.example: refused, ${fault}`)
    expect(failures(one)).toBe(1)
    expect(one.contextFor('a.example').cert).not.toContain('undefined')
    folder.put('a.example', good())
    await one.look()
    expect(reports.at(-1)).toMatch(/a\.example: the certificate is shown$/)
  })

  it.each(bad)('%s: the one from before is kept', async (_, files, fault) => {
    folder.put('a.example', good())
    const one = await openOwn()
    const before = one.contextFor('a.example')
    folder.put('a.example', files())
    await one.look()
    await one.look()
    expect(one.contextFor('a.example')).toBe(before)
    expect(reports.filter((line) => line.includes('refused'))).toHaveLength(1)
    expect(reports.at(-1)).toContain(fault)
    expect(reports.at(-1)).toContain('the certificate from before is kept')
    expect(failures(one)).toBe(1)
    folder.put('a.example', good())
    await one.look()
    expect(one.contextFor('a.example')).not.toBe(before)
  })

  it('a folder that goes away takes nothing along', async () => {
    folder.put('a.example', good())
    const one = await openOwn()
    const before = one.contextFor('a.example')
    folder.remove('a.example')
    await one.look()
    expect(one.contextFor('a.example')).toBe(before)
    folder.put('a.example', good())
  })
})

describe('sessions', () => {
  const resume = async (servername: string, session: Buffer, version: 'TLSv1.2' | 'TLSv1.3'): Promise<boolean> => {
    const socket = await shake({ servername, session, minVersion: version, maxVersion: version })
    const reused = socket.isSessionReused()
    socket.destroy()
    return reused
  }

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('of one site are taken up there and nowhere else (%s)', async (version) => {
    const socket = await shake({ minVersion: version, maxVersion: version })
    const session = version === 'TLSv1.2' ? socket.getSession() : ((await once(socket, 'session')) as [Buffer])[0]
    socket.destroy()
    if (!session) throw new Error('there is no session')
    expect(await resume('a.example', session, version)).toBe(true)
    expect(await resume('b.example', session, version)).toBe(false)
  })
})

describe('sessions of several processes', () => {
  const compiled = compileTables([{ table: toTable() }], { environment: {}, development: false })
  const folder = createCertificateFolder()
  let clock = Date.now()
  beforeAll(() => {
    folder.put('a.example', issue(['a.example']))
    folder.put('b.example', issue(['b.example']))
  })
  afterAll(() => folder.clear())

  async function openListener(directory: string): Promise<{ port: number; look(): Promise<void>; close(): void }> {
    const shown = await openCertificates({
      compiled: await compiled,
      directory,
      development: false,
      report: () => {},
      now: () => clock,
    })
    const { server } = createTlsListener({
      contextFor: shown.contextFor,
      http1: (socket) => void socket.resume(),
      http2: () => {},
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    return { port, look: shown.look, close: () => (shown.close(), server.close()) }
  }

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('are taken up by each other, for a day (%s)', async (version) => {
    const [one, other] = [await openListener(folder.path), await openListener(folder.path)]
    // What two made at the same time is settled when they look again.
    await one.look()
    await other.look()
    const options = { ALPNProtocols: ['http/1.1'], minVersion: version, maxVersion: version }
    const socket = await shake({ ...options, port: one.port })
    const session = version === 'TLSv1.2' ? socket.getSession() : ((await once(socket, 'session')) as [Buffer])[0]
    socket.destroy()
    const resumes = async (port: number, servername = 'a.example'): Promise<boolean> => {
      const next = await shake({ ...options, port, servername, ...(session && { session }) })
      const reused = next.isSessionReused()
      next.destroy()
      return reused
    }
    expect(await resumes(other.port)).toBe(true)
    expect(await resumes(other.port, 'b.example')).toBe(false)
    const before = readFileSync(join(folder.path, 'tickets'), 'utf8')
    expect(statSync(join(folder.path, 'tickets')).mode & 0o777).toBe(0o600)
    clock += 86_400_000
    await other.look()
    await one.look()
    expect(readFileSync(join(folder.path, 'tickets'), 'utf8')).not.toBe(before)
    expect(await resumes(other.port)).toBe(false)
    expect(await resumes(one.port)).toBe(false)
    one.close()
    other.close()
  })

  it('are their own where no secret can be kept', async () => {
    const alone = await openListener('/dev/null/nowhere')
    const socket = await shake({ port: alone.port, ALPNProtocols: ['http/1.1'], rejectUnauthorized: false })
    expect(socket.getProtocol()).toBe('TLSv1.3')
    socket.destroy()
    alone.close()
  })
})

describe('hostile clients', () => {
  it('who begin 1,000 handshakes and stop hold up nobody', async () => {
    const sockets = await Promise.all(
      Array.from({ length: 1_000 }, async (_, at) => {
        const socket = connect(gateway.httpsPort, '127.0.0.1').on('error', () => {})
        await once(socket, 'connect')
        if (at % 2 === 0) socket.write(Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]))
        return socket
      }),
    )
    const begun = performance.now()
    expect(await request(await shake())).toMatch(/^HTTP\/1\.1 200 OK/)
    expect(performance.now() - begun).toBeLessThan(5_000)
    expect(await gateway.metric('daemun_tls_handshakes')).toBeGreaterThanOrEqual(999)
    for (const socket of sockets) socket.destroy()
    while ((await gateway.metric('daemun_tls_handshakes')) > 0) await new Promise((resolve) => setTimeout(resolve, 5))
  })

  it('who do not finish a handshake in time are cut off', async () => {
    const { server, failures } = createTlsListener({
      contextFor: () => ({}),
      http1: () => {},
      http2: () => {},
      handshakeTimeoutMs: 100,
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    const silent = connect(port, '127.0.0.1')
    const drip = connect(port, '127.0.0.1').on('error', () => {})
    const timer = setInterval(() => drip.write(Buffer.from([22])), 20)
    await Promise.all([silent, drip].map((socket) => new Promise((resolve) => socket.resume().once('close', resolve))))
    clearInterval(timer)
    while (failures() < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    server.close()
  })

  it.each([
    ['plain HTTP', 'GET / HTTP/1.1\r\nHost: a.example\r\n\r\n'],
    ['noise', Buffer.from(Array.from({ length: 4_000 }, (_, at) => (at * 7_919) % 251))],
    [
      'a record that says it is longer',
      Buffer.from([22, 3, 1, 0xff, 0xff, ...Array.from({ length: 20_000 }, () => 1)]),
    ],
    [
      'a hello whose lengths lie',
      Buffer.from([22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3, ...Array.from({ length: 39 }, () => 255)]),
    ],
    ['an alert', Buffer.from([21, 3, 1, 0, 2, 2, 40])],
  ])('who send %s are closed', async (_, bytes) => {
    const socket = connect(gateway.httpsPort, '127.0.0.1').on('error', () => {})
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.resume().write(bytes)
    await closed
    expect(await request(await shake())).toMatch(/^HTTP\/1\.1 200 OK/)
  })

  it('who leave in the middle of a handshake leave nothing behind', async () => {
    for (let at = 0; at < 50; at++) {
      const socket = connectTls({ port: gateway.httpsPort, host: '127.0.0.1', servername: 'a.example' })
      socket.on('error', () => {})
      await once(socket, 'connect')
      if (at % 2 === 0) socket.destroy()
      else setTimeout(() => socket.destroy(), at % 5)
    }
    while ((await gateway.metric('daemun_tls_handshakes')) > 0) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await request(await shake())).toMatch(/^HTTP\/1\.1 200 OK/)
  })

  it('who renegotiate are refused', async () => {
    const socket = await shake({ maxVersion: 'TLSv1.2' })
    const error = await new Promise<Error | null>((resolve) => {
      socket.once('close', () => resolve(new Error('closed')))
      socket.renegotiate({}, resolve)
    })
    expect(error).not.toBeNull()
    socket.destroy()
  })
})

describe('the name in a hello', () => {
  it('is found however the bytes are cut, and no bytes make reading throw', async () => {
    const hello = await captureHello('shop.example')
    expect(readServerName(hello)).toEqual({ kind: 'name', name: 'shop.example' })
    for (let at = 0; at < hello.length; at++) expect(readServerName(hello.subarray(0, at))).toEqual({ kind: 'more' })
    for (let at = 0; at < 20_000; at++) {
      const mutated = Buffer.from(hello)
      for (let changes = 0; changes <= at % 4; changes++)
        mutated[(at * 31 + changes * 97) % mutated.length] = (at * 17 + changes) & 255
      expect(['name', 'none', 'more']).toContain(readServerName(mutated).kind)
    }
  })
})

async function captureHello(servername: string): Promise<Buffer> {
  const { createServer } = await import('node:net')
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const client = connectTls({ port, host: '127.0.0.1', servername }).on('error', () => {})
  const [socket] = (await once(server, 'connection')) as [Socket]
  let bytes = Buffer.alloc(0)
  while (bytes.length < 5 || bytes.length < 5 + bytes.readUInt16BE(3))
    bytes = Buffer.concat([bytes, ((await once(socket, 'data')) as [Buffer])[0]])
  client.destroy()
  socket.destroy()
  server.close()
  return bytes
}

const hasCurl = ((): boolean => {
  try {
    return execFileSync('curl', ['--version'], { encoding: 'utf8' }).includes('HTTP2')
  } catch {
    return false
  }
})()

it.skipIf(!hasCurl)(`curl is served over both${hasCurl ? '' : ' (skipped: needs curl with HTTP/2)'}`, async () => {
  const { spawn } = await import('node:child_process')
  for (const version of ['1.1', '2']) {
    const child = spawn('curl', [
      '-sk',
      `--http${version}`,
      '--resolve',
      `a.example:${gateway.httpsPort}:127.0.0.1`,
      '-w',
      '%{http_version} %{http_code}',
      '-o',
      '/dev/null',
      `https://a.example:${gateway.httpsPort}/echo`,
    ])
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    await once(child, 'close')
    expect(text).toBe(`${version} 200`)
  }
})
