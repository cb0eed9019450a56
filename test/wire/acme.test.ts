import { spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { readFile, realpath } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import { connect, createServer as createTcpServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { compileTables } from '#edge/compile.ts'
import { createAcmeClient, toCertificateId } from '#edge/node/acme-client.ts'
import { createAcmeFiles } from '#edge/node/acme-files.ts'
import type { AcmeFiles } from '#edge/node/acme-files.ts'
import { createAcme } from '#edge/node/acme.ts'
import type { Acme } from '#edge/node/acme.ts'
import { openCertificates } from '#edge/node/certificates.ts'
import type { Certificates } from '#edge/node/certificates.ts'
import { issueCertificate } from '#edge/node/issue-certificate.ts'
import { publishFolder } from '#edge/node/publish-folder.ts'
import type { Table } from '#edge/table.ts'
import { createCertificateFolder } from '../support/certificates.ts'
import { createFolder, serveCli } from '../support/cli.ts'
import type { Served } from '../support/cli.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { findFreePort } from '../support/free-port.ts'
import { hasFaketime, hasPebble, startPebble } from '../support/pebble.ts'
import type { Meddle, Pebble } from '../support/pebble.ts'

/** Certificates ordered from a real ACME server, by a gateway that answers its challenges. */
const folder = createCertificateFolder()
const main = fileURLToPath(new URL('../../edge/cli/main.ts', import.meta.url))
/** Machines are busy. */
const patient = { timeout: 30_000 }
vi.setConfig({ testTimeout: 40_000 })
let pebble: Pebble
let httpPort = 0
const running: TestGateway[] = []

beforeAll(async () => {
  if (!hasPebble) return
  httpPort = await findFreePort()
  pebble = await startPebble({ httpPort })
})
afterEach(async () => {
  for (const gateway of running.splice(0)) {
    expect(gateway.output()).not.toContain('internal error')
    await gateway.stop()
  }
  pebble?.meddle(undefined)
})
afterAll(async () => {
  await pebble?.stop()
  folder.clear()
})

const toTable = (hosts: string[], directory: string, caFile?: string): Table => ({
  name: 'acme',
  tls: { acme: { email: 'admin@shop.example', directory, ...(caFile !== undefined && { caFile }) } },
  sites: [{ hosts, https: true, routes: [{ path: '/*', respond: { status: 200, body: 'row' } }] }],
})

async function start(table: Table): Promise<TestGateway> {
  const gateway = await startTestGateway(table, {
    http: { host: '127.0.0.1', port: httpPort },
    https: { host: '127.0.0.1', port: 0, certificates: folder.path, development: false },
  })
  running.push(gateway)
  return gateway
}

async function shake(
  gateway: TestGateway,
  servername: string,
  ca?: string,
): Promise<{ subject: string; isTrusted: boolean }> {
  const socket = connectTls({
    port: gateway.httpsPort,
    host: '127.0.0.1',
    servername,
    ...(ca === undefined ? { rejectUnauthorized: false } : { ca }),
  })
  await once(socket, 'secureConnect')
  const subject = String(socket.getPeerCertificate().subject?.CN)
  socket.destroy()
  return { subject, isTrusted: socket.authorized }
}

const untilSaid = (gateway: TestGateway, text: string | RegExp): Promise<void> =>
  expect.poll(() => gateway.output(), patient).toMatch(text)

describe.skipIf(!hasPebble)(`with pebble${hasPebble ? '' : ' (skipped: needs pebble)'}`, () => {
  it('a certificate is there soon after the start, which does not wait for it', async () => {
    const gateway = await start(toTable(['a.example', 'www.a.example'], pebble.directory, pebble.caFile))
    const standIn = await shake(gateway, 'a.example')
    expect(standIn.subject).toBe('Daemun stand-in, self-signed')
    await untilSaid(gateway, /certificate for a\.example, www\.a\.example: issued, good until/)
    for (const host of ['a.example', 'www.a.example']) {
      const shown = await shake(gateway, host, await pebble.root())
      expect(shown.isTrusted).toBe(true)
    }
    expect(await gateway.metric('daemun_acme_orders_total{certificate="a.example",result="issued"}')).toBe(1)
    expect(await gateway.metric('daemun_certificate_expiring{host="www.a.example"}')).toBe(0)

    const keys = readdirSync(folder.path, { recursive: true, encoding: 'utf8' }).filter((name) =>
      /privkey\.pem$|accounts.*\.pem$/.test(name),
    )
    expect(keys.length).toBeGreaterThanOrEqual(2)
    for (const key of keys) {
      expect(statSync(join(folder.path, key)).mode & 0o777).toBe(0o600)
      const lines = readFileSync(join(folder.path, key), 'utf8').split('\n')
      for (const line of lines.filter((one) => one.length > 40)) expect(gateway.output()).not.toContain(line)
    }
    expect(readdirSync(join(folder.path, 'acme', '.well-known', 'acme-challenge'))).toEqual([])
  })

  it('another start finds it, and orders nothing', async () => {
    const gateway = await start(toTable(['a.example', 'www.a.example'], pebble.directory, pebble.caFile))
    expect((await shake(gateway, 'a.example', await pebble.root())).isTrusted).toBe(true)
    await gateway.stop()
    running.pop()
    expect(gateway.output()).not.toContain('issued')
  })

  it('two processes with one folder order once, and either answers what the other is asked', async () => {
    const own = createCertificateFolder()
    const table = toTable(['pair.example'], pebble.front, pebble.caFile)
    const tables = createFolder({ 'pair.ts': `export default ${JSON.stringify(table)}\n` })
    const serve = (): Promise<Served> =>
      serveCli(['--https', ':0', 'pair.ts'], {
        folder: tables.path,
        env: { DAEMUN_CERTIFICATES: own.path, NODE_ENV: 'production' },
      })
    const orders = (): number => pebble.asked.filter((one) => one.startsWith('POST /order-plz')).length
    const before = orders()
    const starting = [serve(), serve()] as const
    // The authority asks the second, whichever of them has ordered, and may ask before it listens.
    const asked = createTcpServer(async (socket) => {
      const upstream = connect((await starting[1]).port, '127.0.0.1')
      for (const one of [socket, upstream]) one.on('error', () => {})
      socket.pipe(upstream).pipe(socket)
    })
    await new Promise<void>((resolve) => asked.listen(httpPort, '127.0.0.1', resolve))
    const both = await Promise.all(starting)
    for (const { adminUrl } of both)
      await expect
        .poll(async () => (await fetch(`${adminUrl}/metrics`)).text(), patient)
        .toContain('daemun_certificate_expiring{host="pair.example"} 0')
    expect(orders() - before).toBe(1)
    for (const served of both) expect(await served.stop()).toBe(0)
    asked.close()
    tables.remove()
    own.clear()
  })

  it('a gateway that stops in the middle of an order ends', async () => {
    pebble.meddle(() => true)
    const gateway = await start(toTable(['middle.example'], pebble.front, pebble.caFile))
    await expect.poll(() => pebble.asked.includes('GET /dir'), patient).toBe(true)
    await gateway.stop()
    running.pop()
  })
})

describe('challenges', () => {
  const token = 'abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE'
  const challenge = (path = token): string => `/.well-known/acme-challenge/${path}`
  let origin: Server
  let gateway: TestGateway
  const reached: string[] = []

  beforeAll(async () => {
    origin = createServer((request, response) => {
      reached.push(request.url ?? '')
      response.end('origin')
    }).listen(0, '127.0.0.1')
    await once(origin, 'listening')
    const routes = [{ path: '/*', proxy: { to: 'origin' } }]
    const acme = { email: 'admin@shop.example', directory: 'http://127.0.0.1:1/dir', hosts: ['ours.example'] }
    const { port } = origin.address() as AddressInfo
    gateway = await startTestGateway(
      {
        name: 'challenges',
        tls: { acme },
        upstreams: { origin: { servers: [`http://127.0.0.1:${port}`] } },
        sites: [
          { hosts: ['ours.example'], https: true, headers: 'strict', routes },
          { hosts: ['theirs.example'], routes },
        ],
      },
      { https: { host: '127.0.0.1', port: 0, certificates: folder.path, development: false } },
    )
    const challenges = join(folder.path, 'acme', '.well-known', 'acme-challenge')
    mkdirSync(challenges, { recursive: true })
    writeFileSync(join(challenges, token), `${token}.thumbprint`)
  })
  afterAll(async () => {
    await gateway.stop()
    origin.close()
  })

  async function ask(path: string, host = 'ours.example', method = 'GET'): Promise<string> {
    const socket = connect(gateway.port, '127.0.0.1')
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
    socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    await once(socket, 'close')
    return text
  }

  it('that are open are answered over plain http, by whichever process they come to', async () => {
    const answer = await ask(challenge())
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(answer).toContain('Content-Type: application/octet-stream\r\n')
    expect(answer.endsWith(`\r\n\r\n${token}.thumbprint`)).toBe(true)
  })

  it.each([
    ['no such token', challenge('abcdefghijklmnopqrstuvwxyz'), 404],
    ['no token', challenge(''), 404],
    ['what is no token', challenge('a'), 404],
    ['more behind it', `${challenge()}/more`, 404],
    ['a query', `${challenge('abcdefghijklmnopqrstuvwxyz')}?x=1`, 404],
    ['a way out', challenge('../../../accounts/lock'), 400],
    ['an escaped way out', challenge('..%2f..%2faccounts'), 400],
    ['a zero', challenge('abcdefghijklmnopqr%00'), 400],
  ])('with %s are refused by the gateway itself, with all its fields, and reach nobody', async (_, path, status) => {
    const before = gateway.log().length
    const answer = await ask(path)
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(answer).toMatch(/\r\nX-Request-Id: /)
    expect(answer).toMatch(/\r\nContent-Security-Policy: /)
    await expect.poll(() => gateway.log().length, patient).toBe(before + 1)
    expect(gateway.log().at(-1)).toMatchObject({ status, error: status === 404 ? 'not_found' : 'ambiguous_path' })
    expect(reached).toEqual([])
  })

  it('can only be read', async () => {
    expect(await ask(challenge(), 'ours.example', 'POST')).toMatch(/^HTTP\/1\.1 405 [^]*\r\nAllow: GET, HEAD\r\n/)
    expect(reached).toEqual([])
  })

  it('of hosts whose certificates come from elsewhere are for their rows, of unknown hosts for nobody', async () => {
    expect(await ask(challenge(), 'theirs.example')).toMatch(/\r\n\r\n(6\r\n)?origin/)
    expect(await ask(challenge(), 'nobody.example')).toMatch(/^HTTP\/1\.1 421 /)
    expect(await ask('/', 'ours.example')).toMatch(/^HTTP\/1\.1 308 /)
  })

  it('stop nobody from being served while the authority cannot be reached', async () => {
    await untilSaid(
      gateway,
      /not issued, unreachable: http:\/\/127\.0\.0\.1:1 \(ECONNREFUSED\); tried again in [23] min/,
    )
    expect((await shake(gateway, 'ours.example')).subject).toBe('Daemun stand-in, self-signed')
  })
})

describe('a table that orders without --https', () => {
  it('is told so, and its rows answer', async () => {
    const gateway = await startTestGateway(toTable(['a.example'], 'http://127.0.0.1:1/dir'))
    expect(gateway.output()).toContain("tls.acme of 'acme' orders nothing: there is no --https")
    await gateway.stop()
  })
})

describe.skipIf(!hasPebble)(`an order${hasPebble ? '' : ' (skipped: needs pebble)'}`, () => {
  const own = createCertificateFolder()
  const reports: string[] = []
  const opened: { certificates: Certificates; acme: Acme }[] = []
  let responder: Server
  let answers = true
  let ahead = 0
  let found: AcmeFiles[] = []
  /** Who hangs need not do so for half a minute; who answers has time. */
  const timeoutMs = (): number => (expect.getState().currentTestName?.includes('hangs') ? 3_000 : 30_000)

  beforeAll(async () => {
    responder = createServer(async (request, response) => {
      const token = request.url?.split('/').at(-1) ?? ''
      for (const files of answers ? found : []) {
        const text = await files.find(token)
        if (text !== undefined) return response.end(text)
      }
      return response.writeHead(404).end()
    })
    responder.listen(httpPort, '127.0.0.1')
    await once(responder, 'listening')
  })
  afterEach(async () => {
    for (const { certificates, acme } of opened.splice(0)) {
      await acme.stop()
      certificates.close()
    }
    answers = true
    ahead = 0
    found = []
    reports.length = 0
  })
  afterAll(() => {
    responder?.close()
    own.clear()
  })

  /** The clock can be set ahead: 90 days in a moment. */
  async function openOwn(host: string, { directory = pebble.front, folder: path = own.path } = {}) {
    const table = toTable([host], directory, pebble.caFile)
    const compiled = await compileTables([{ table }], { environment: {}, development: false })
    const report = (line: string): void => void reports.push(line)
    const now = (): number => Date.now() + ahead
    const certificates = await openCertificates({ compiled, directory: path, development: false, report, now })
    const files = createAcmeFiles(path)
    const monotonic = (): number => performance.now() + ahead
    const acme = createAcme({
      compiled,
      directory: path,
      certificates,
      files,
      report,
      now,
      monotonic,
      random: () => 0,
      createClient: (options) => createAcmeClient({ ...options, timeoutMs: timeoutMs() }),
    })
    found.push(files)
    opened.push({ certificates, acme })
    const shown = (): string | undefined => certificates.filesOf(host)?.certificate
    const metric = (name: string): unknown => acme.gauges().find((gauge) => gauge.name === name)?.value
    return { acme, certificates, shown, metric }
  }

  it('follows another one when two thirds of its life are over, and tells the authority which', async () => {
    const { acme, shown } = await openOwn('renewed.example')
    await acme.step()
    const first = shown()
    const life = new X509Certificate(first ?? '')
    const lifeMs = life.validToDate.getTime() - life.validFromDate.getTime()
    ahead = lifeMs * 0.6
    await acme.step()
    expect(shown()).toBe(first)
    ahead = lifeMs * 0.67
    await acme.step()
    expect(shown()).not.toBe(first)
    expect(reports.filter((line) => line.includes('issued, good until'))).toHaveLength(2)
  })

  it('comes earlier when the authority says so', async () => {
    pebble.offerRenewalInfo(() => ({ start: new Date(Date.now() - 2_000), end: new Date(Date.now() - 1_000) }))
    const { acme, shown } = await openOwn('revoked.example')
    await acme.step()
    const first = shown()
    const id = toCertificateId(first ?? '')
    ahead = 100 * 86_400_000
    await acme.step()
    pebble.offerRenewalInfo(undefined)
    expect(pebble.asked).toContain(`GET /renewal-info/${id}`)
    expect(shown()).not.toBe(first)
  })

  it('survives an authority that refuses every second nonce', async () => {
    const port = pebble.front
    const bad = await startPebble({ httpPort, badNonces: 50 })
    const { acme, shown } = await openOwn('nonces.example', { directory: bad.directory })
    await acme.step()
    expect(port).not.toBe(bad.front)
    expect(shown()).toContain('BEGIN CERTIFICATE')
    await bad.stop()
  })

  it('that is refused for now is made again when the authority said so, and not before', async () => {
    let limited = true
    pebble.meddle((incoming, outgoing) => {
      if (!limited || incoming.method !== 'POST') return false
      const problem = { type: 'urn:ietf:params:acme:error:rateLimited', detail: 'too many\r\ncertificates already' }
      outgoing.writeHead(429, { 'retry-after': '7200', 'content-type': 'application/problem+json' })
      outgoing.end(JSON.stringify(problem))
      return true
    })
    const { acme, shown, metric } = await openOwn('limited.example')
    await acme.step()
    expect(reports.at(-1)).toMatch(
      /^certificate for limited\.example: not issued, rateLimited: too many certificates already; tried again in 2 h, a self-signed one/,
    )
    limited = false
    const posts = (): number => pebble.asked.filter((one) => one.startsWith('POST')).length
    const before = posts()
    ahead = 7_190_000
    await acme.step()
    expect(posts()).toBe(before)
    expect(metric('daemun_acme_failures_in_a_row')).toEqual([{ labels: { certificate: 'limited.example' }, value: 1 }])
    ahead = 7_210_000
    await acme.step()
    expect(shown()).toContain('BEGIN CERTIFICATE')
    expect(metric('daemun_acme_failures_in_a_row')).toEqual([{ labels: { certificate: 'limited.example' }, value: 0 }])
  })

  it.each<[string, Meddle, RegExp]>([
    ['is gone', (incoming) => Boolean(incoming.socket.destroy()), /unreachable: https:\/\/127\.0\.0\.1:\d+ \(/],
    ['answers 500', (_, outgoing) => Boolean(outgoing.writeHead(500).end('oops')), /status 500/],
    ['answers with a page', (_, outgoing) => Boolean(outgoing.end('<html>')), /malformed: the authority sends no JSON/],
    ['hangs', () => true, /unreachable: \S+ \(TimeoutError\); tried/],
    [
      'hangs in the middle of an answer',
      (_, outgoing) => Boolean(outgoing.writeHead(200, { 'content-length': 10 }).write('{')),
      /unreachable: \S+ \(\w+\); tried/,
    ],
    ['answers without end', (_, outgoing) => Boolean(outgoing.end('x'.repeat(1_000_000))), /unreachable/],
  ])('of an authority that %s fails, keeps what there is, and succeeds when it is back', async (what, meddle, said) => {
    const host = `${what.replace(/\W/g, '')}.example`
    const { acme, shown } = await openOwn(host)
    await acme.step()
    const first = shown()
    pebble.meddle(meddle)
    const { validTo } = new X509Certificate(first ?? '')
    ahead = (Date.parse(validTo) - Date.now()) * 0.7
    await acme.step()
    expect(shown()).toBe(first)
    expect(reports.at(-1)).toMatch(said)
    expect(reports.at(-1)).toMatch(/tried again in \d+ (min|h), the one there is is good until 20/)
    expect(reports.some((line) => line.startsWith('ALARM'))).toBe(true)
    pebble.meddle(undefined)
    ahead += 86_400_000
    await acme.step()
    expect(shown()).not.toBe(first)
  })

  it('whose challenge nobody answers says why, and the account is used again', async () => {
    answers = false
    const { acme, shown } = await openOwn('unanswered.example')
    await acme.step()
    expect(reports.at(-1)).toMatch(
      /not issued, (unauthorized|connection|incorrectResponse): unanswered\.example: .*tried again in 2 min/,
    )
    expect(shown()).toBeUndefined()
    answers = true
    ahead = 300_000
    await acme.step()
    expect(shown()).toContain('BEGIN CERTIFICATE')
  })

  it('that cannot be saved is shown from memory, and saved when it can be', async () => {
    const path = join(own.path, 'full')
    mkdirSync(path)
    const { acme, shown, metric } = await openOwn('full.example', { folder: path })
    writeFileSync(join(path, 'issued'), 'no folder')
    await acme.step()
    expect(shown()).toContain('BEGIN CERTIFICATE')
    expect(reports.at(-1)).toMatch(
      /issued\/full\.example: the certificate is shown, but cannot be saved \(E\w+\); tried/,
    )
    expect(metric('daemun_acme_unsaved')).toEqual([expect.objectContaining({ value: 1 })])
    ahead = 30_000
    await acme.step()
    rmSync(join(path, 'issued'))
    ahead = 120_000
    const posts = pebble.asked.length
    await acme.step()
    expect(pebble.asked.slice(posts).filter((one) => one.startsWith('POST'))).toEqual([])
    expect(readdirSync(join(path, 'issued'))).toHaveLength(2)
    expect(metric('daemun_acme_unsaved')).toEqual([expect.objectContaining({ value: 0 })])
    expect(reports.at(-1)).toMatch(/the certificate is saved$/)
  })

  it('is made once, when two find out at the same time that it is due', async () => {
    const [one, other] = [await openOwn('twice.example'), await openOwn('twice.example')]
    await Promise.all([one.acme.step(), other.acme.step()])
    const orders = (): number => reports.filter((line) => line.includes('issued, good until')).length
    expect(orders()).toBe(1)
    ahead = 11_000
    await Promise.all([one.acme.step(), other.acme.step()])
    expect(orders()).toBe(1)
    expect(one.shown()).toBe(other.shown())
    expect(one.shown()).toContain('BEGIN CERTIFICATE')
  })
})

describe('a folder that is published', () => {
  const parent = createCertificateFolder()
  afterAll(() => parent.clear())
  const read = (): string[] => ['a', 'b'].map((file) => readFileSync(join(parent.path, 'pair', file), 'utf8'))
  const pair = (text: string) => ({ a: { text, mode: 0o600 }, b: { text, mode: 0o600 } })

  it('has all of its files or those from before, also when the disk is full half way', async () => {
    await publishFolder(parent.path, 'pair', pair('old'))
    // What cannot be written is the second file: the first one has been.
    await expect(publishFolder(parent.path, 'pair', { ...pair('new'), 'x/y': { text: '', mode: 0 } })).rejects.toThrow()
    expect(read()).toEqual(['old', 'old'])
    expect(readdirSync(parent.path)).toHaveLength(2)
    await publishFolder(parent.path, 'pair', pair('new'))
    expect(read()).toEqual(['new', 'new'])
  })

  it('is never seen half old, half new', async () => {
    const writing = new AbortController()
    const seen = new Set<string>()
    const reading = (async () => {
      while (!writing.signal.aborted) {
        const real = await realpath(join(parent.path, 'pair'))
        seen.add((await Promise.all(['a', 'b'].map((file) => readFile(join(real, file), 'utf8')))).join())
      }
    })()
    for (let n = 0; n < 20; n++) await publishFolder(parent.path, 'pair', pair(String(n)))
    writing.abort()
    await reading
    for (const one of seen) expect(one).toMatch(/^(\w+),\1$/)
  })
})

const canJump = hasPebble && hasFaketime
it.skipIf(!canJump)(
  `a gateway two months later orders another certificate by itself${canJump ? '' : ' (skipped: needs pebble and faketime)'}`,
  { timeout: 60_000 },
  async () => {
    const own = createCertificateFolder()
    const life = { notBefore: new Date(), notAfter: new Date(Date.now() + 90 * 86_400_000) }
    const files = createAcmeFiles(own.path)
    const directory = pebble.directory
    await files.save(
      'later.example',
      issueCertificate({ commonName: 'x', names: ['later.example'], ...life }),
      directory,
    )
    const before = realpathSync(join(own.path, 'issued', 'later.example'))
    const later = await findFreePort()
    const table = createFolder({
      'later.ts': `export default ${JSON.stringify(toTable(['later.example'], directory, pebble.caFile))}\n`,
    })
    const serve = async (when: string, said: RegExp): Promise<void> => {
      const args = ['--http', `127.0.0.1:${httpPort}`, '--https', `127.0.0.1:${later}`, '--admin', ':0', 'later.ts']
      const child = spawn('faketime', ['-f', when, process.execPath, main, 'serve', ...args], {
        cwd: table.path,
        env: { PATH: process.env['PATH'], DAEMUN_CERTIFICATES: own.path },
        stdio: ['ignore', 'ignore', 'pipe'],
        // It passes no signals on: they go to its group.
        detached: true,
      })
      const closed = once(child.stderr, 'close')
      let text = ''
      child.stderr.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      try {
        await expect.poll(() => text, patient).toMatch(said)
      } finally {
        process.kill(-(child.pid ?? 0), 'SIGTERM')
        await closed
      }
    }
    await serve('+50d', /certificates from/)
    expect(realpathSync(join(own.path, 'issued', 'later.example'))).toBe(before)
    await serve('+61d', /certificate for later\.example: issued/)
    expect(realpathSync(join(own.path, 'issued', 'later.example'))).not.toBe(before)
    table.remove()
    own.clear()
  },
)
