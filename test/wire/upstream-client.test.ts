import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { Readable } from 'node:stream'
import { createServer as createTlsServer, getCACertificates, setDefaultCACertificates } from 'node:tls'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { limits } from '#edge/limits.ts'
import { AnswerParser } from '#edge/node/answer-parser.ts'
import { openUndiciClient } from '#edge/node/undici-client.ts'
import type { UpstreamClient, UpstreamRequest } from '#edge/node/upstream-client.ts'
import { openConnection } from '#edge/node/upstream-connection.ts'
import type { ServerAddress } from '#edge/node/upstream-connection.ts'
import { goodAnswers, mutatedAnswer } from '../support/answer-bytes.ts'
import { authority, issue } from '../support/certificates.ts'

/** The gateway's own client of upstreams, beside undici and by itself. */
const answers: string[] = []
let url: URL
/** What came on each connection. */
const requests: string[] = []

/** Answers `GET /<number>` with the bytes of that number and closes; everything else with 200. */
const server = createServer({ allowHalfOpen: true }, (socket) => {
  const connection = requests.push('') - 1
  socket.on('error', () => {})
  socket.on('end', () => socket.end())
  socket.on('data', (chunk) => {
    requests[connection] += chunk.toString('latin1')
    const [, number] = /^GET \/(\d+) [^]*\r\n\r\n$/.exec(requests[connection] ?? '') ?? []
    if (number !== undefined) socket.end(answers[Number(number)] ?? '', 'latin1')
    else if (requests[connection]?.endsWith('\r\n\r\n')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  })
})

beforeAll(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
afterAll(() => void server.close())

interface Verdict {
  end: 'whole' | 'error'
  status: number
  fields: string[]
  interim: [number, string[]][]
  body: string
  code: string
}

const nothingYet = (): Verdict => ({ end: 'error', status: 0, fields: [], interim: [], body: '', code: '' })

/** undici keeps some blanks behind a value, which are none of it (RFC 9110 §5.5). */
const trimmed = (fields: string[]): string[] => fields.map((text) => text.replace(/[ \t]+$/, ''))

const plain = { method: 'GET', contentLength: null, body: null, readTimeoutMs: 5_000, upgrade: false } as const
const address = (): ServerAddress => ({ url, connectTimeoutMs: 5_000, lookup: undefined })

/** One request, and what came of it. */
function ask(client: UpstreamClient, path: string, request: Partial<UpstreamRequest> = {}): Promise<Verdict> {
  return new Promise((resolve) => {
    const verdict = nothingYet()
    client.dispatch(
      { ...plain, path, headers: ['Host', 'a'], ...request },
      {
        onRequestStart: () => {},
        onResponseStart: (_controller, status, fields) => {
          if (status < 200) verdict.interim.push([status, trimmed(fields)])
          else Object.assign(verdict, { status, fields: trimmed(fields) })
        },
        onResponseData: (_controller, chunk) => void (verdict.body += chunk.toString('latin1')),
        onResponseEnd: () => resolve({ ...verdict, end: 'whole' }),
        onResponseError: (error) => resolve({ ...verdict, code: 'code' in error ? String(error.code) : error.name }),
        onRequestUpgrade: (_status, _fields, socket) => void socket.destroy(),
      },
    )
  })
}

async function askOnce(open: (address: ServerAddress) => UpstreamClient, path: string): Promise<Verdict> {
  const client = open(address())
  const verdict = await ask(client, path)
  client.destroy()
  return verdict
}

const seed = 20_261_121

describe('beside undici', () => {
  /**
   * Where the two may differ. Ours refuses other transfer codings than chunked, which undici reads to the connection's
   * end, and any of them from HTTP/1.0; control characters in a reason and bytes before a status line; empty or
   * nameless chunk extensions; and Transfer-Encoding in a trailer. It takes a length with blanks behind it, which undici compares as text.
   */
  function mayDiffer(ours: Verdict, theirs: Verdict, bytes: string): boolean {
    if (ours.end === 'whole' && theirs.end === 'error') return /content-length:[ \t]*\d+[ \t]+\r\n/i.test(bytes)
    if (ours.end === 'whole') return /transfer-encoding:[ \t]*chunked[ \t]+\r\n/i.test(bytes)
    return (
      /transfer-encoding:(?![ \t]*chunked\r\n)/i.test(bytes) ||
      /HTTP\/1\.0[^]*transfer-encoding/i.test(bytes) ||
      /(^|\r\n\r\n)[\r\n]/.test(bytes) ||
      /HTTP\/1\.[01] \d{3}[^\r\n]*[^\t\r\x20-\x7e\x80-\xff]/.test(bytes) ||
      /HTTP\/1\.[01] \d{3}[^\r\n]*\r(?!\n)/.test(bytes) ||
      /HTTP\/1\.[01] (\d{3}[^\r\n ]|0)/.test(bytes) ||
      /\n[0-9a-f]+;([^\r\n]*;)?[;=\r]/i.test(bytes) ||
      /transfer-encoding: chunked[^]*\r\ntransfer-encoding/i.test(bytes)
    )
  }

  it('2,500 mutated answers are read alike, or refused by ours for a stated reason', async () => {
    answers.push(...goodAnswers.map(([, bytes]) => bytes), ...fc.sample(mutatedAnswer, { numRuns: 2_500, seed }))
    const ends = { whole: 0, error: 0 }
    for (let from = 0; from < answers.length; from += 100)
      await Promise.all(
        answers.slice(from, from + 100).map(async (bytes, index) => {
          const path = `/${from + index}`
          const [ours, theirs] = await Promise.all([askOnce(openConnection, path), askOnce(openUndiciClient, path)])
          ends[ours.end]++
          const differs =
            ours.end !== theirs.end || (ours.end === 'whole' && JSON.stringify(ours) !== JSON.stringify(theirs))
          if (differs) expect(mayDiffer(ours, theirs, bytes), JSON.stringify({ bytes, ours, theirs })).toBe(true)
        }),
      )
    // Neither kind is a rarity, or the comparison would say nothing.
    expect(Math.min(ends.whole, ends.error)).toBeGreaterThan(400)
  }, 60_000)
})

/** Reads the pieces one after the other, then the end. */
function parse(pieces: Buffer[]): Verdict {
  const verdict = nothingYet()
  let ended = false
  const parser = new AnswerParser({
    onHead: (status, fields) => {
      if (status < 200) verdict.interim.push([status, fields])
      else Object.assign(verdict, { status, fields })
    },
    onBody: (bytes) => void (verdict.body += bytes.toString('latin1')),
    onEnd: () => void (ended = true),
  })
  parser.begin('GET')
  try {
    for (const piece of pieces) parser.read(piece)
    parser.end()
  } catch (error) {
    verdict.code = (error as NodeJS.ErrnoException).code ?? String(error)
  }
  return { ...verdict, end: ended ? 'whole' : 'error' }
}

describe('however the bytes are cut', () => {
  const cut = (bytes: Buffer, at: number): Buffer[] => [bytes.subarray(0, at), bytes.subarray(at)]
  const singly = (bytes: Buffer): Buffer[] => [...bytes].map((byte) => Buffer.from([byte]))

  it.each(goodAnswers)('%s: the same answer', (_name, text) => {
    const bytes = Buffer.from(text, 'latin1')
    const whole = parse([bytes])
    expect(whole.end).toBe('whole')
    for (let at = 1; at < bytes.length; at++) expect(parse(cut(bytes, at)), `cut at ${at}`).toEqual(whole)
    expect(parse(singly(bytes))).toEqual(whole)
  })

  it('300 mutated answers get the same verdict', () => {
    for (const text of fc.sample(mutatedAnswer, { numRuns: 300, seed: seed + 1 })) {
      const bytes = Buffer.from(text, 'latin1')
      const whole = parse([bytes])
      for (let at = 1; at < bytes.length; at++) expect(parse(cut(bytes, at)), text).toEqual(whole)
      expect(parse(singly(bytes)), text).toEqual(whole)
    }
  })

  it('a head of the size that is allowed is read byte by byte, and one byte more is refused', () => {
    const head = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: \r\n\r\n'
    const fill = 'a'.repeat(limits.upstreamHeaderBytesMax - head.length)
    const long = head.replace('Long: ', `Long: ${fill}`)
    expect(parse(singly(Buffer.from(long)))).toMatchObject({ end: 'whole', status: 200 })
    const longer = Buffer.from(long.replace('Long: ', 'Long: a'))
    expect(parse([longer])).toMatchObject({ end: 'error', code: 'head_too_large' })
    expect(parse(singly(longer))).toMatchObject({ end: 'error', code: 'head_too_large' })
  })
})

describe('bounds', () => {
  const rows: [string, string, string][] = [
    ['fields', `HTTP/1.1 200 OK\r\n${'A: b\r\n'.repeat(limits.upstreamHeaderCountMax + 1)}\r\n`, 'malformed'],
    ['digits of a length', 'HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n', 'malformed'],
    ["digits of a chunk's size", 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000001\r\n', 'malformed'],
    [
      "a chunk's extension",
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;${'a'.repeat(300)}\r\n`,
      'malformed',
    ],
    [
      'the trailer',
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n${'X-A: b\r\n'.repeat(10_000)}\r\n`,
      'head_too_large',
    ],
  ]
  it.each(rows)('%s', (_name, bytes, code) => {
    expect(parse([Buffer.from(bytes)])).toMatchObject({ end: 'error', code })
  })
})

describe('what is sent', () => {
  /** What the server got, on a connection of its own. */
  async function sent(request: Partial<UpstreamRequest>): Promise<string> {
    const at = requests.length
    const client = openConnection(address())
    await ask(client, '/x', request)
    client.destroy()
    return requests[at] ?? ''
  }

  it('a request without a body', async () => {
    expect(await sent({ headers: ['Host', 'a.example', 'X-Raw', '\xe4'] })).toBe(
      'GET /x HTTP/1.1\r\nHost: a.example\r\nX-Raw: \xe4\r\n\r\n',
    )
  })

  it('a POST without a body says so', async () => {
    expect(await sent({ method: 'POST' })).toBe('POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
  })

  it('a body in chunks', async () => {
    expect(await sent({ method: 'PUT', body: Readable.from([Buffer.from('hello'), Buffer.from('!')]) })).toBe(
      'PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n',
    )
  })

  it.each([
    ['a line end in a value', { headers: ['Host', 'a', 'X-A', 'b\r\nX-B: c'] }],
    ['a character that would become one (U+010A)', { headers: ['Host', 'a', 'X-A', 'b\u010aX-B: c'] }],
    ['a line end in a name', { headers: ['Host', 'a', 'X-A: b\r\nX-B', 'c'] }],
    ['a blank in the target', { path: '/x HTTP/1.1\r\nX-B: c\r\n\r\nGET /y' }],
    ['a method that is none', { method: 'GET /y HTTP/1.1\r\n\r\nGET' }],
    ['a body that has failed', { body: Readable.from([]).destroy(), contentLength: 5 }],
  ])('%s: nothing is sent', async (_name, request) => {
    const at = requests.length
    const client = openConnection(address())
    expect(await ask(client, '/x', request)).toMatchObject({ end: 'error', code: 'unsendable' })
    expect(client.isUsable()).toBe(false)
    expect(requests.slice(at).join('')).toBe('')
  })

  it.each([
    ['shorter', 6],
    ['longer', 4],
  ])('a body %s than was said breaks the connection off', async (_name, contentLength) => {
    const client = openConnection(address())
    const body = Readable.from([Buffer.from('hello')])
    expect(await ask(client, '/x', { method: 'POST', body, contentLength })).toMatchObject({
      end: 'error',
      code: 'unsendable',
    })
    expect(client.isUsable()).toBe(false)
  })
})

describe('whether a connection is used again', () => {
  const rows: [string, string, boolean][] = [
    ['HTTP/1.1', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', true],
    ['chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n', true],
    ['no body', 'HTTP/1.1 304 Not Modified\r\n\r\n', true],
    ['HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok', false],
    ['HTTP/1.0 with keep-alive', 'HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok', true],
    ['Connection: close', 'HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok', false],
    [
      'a server that keeps it for 1 s',
      'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok',
      false,
    ],
    ['a server that keeps it for 5 s', 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok', true],
    ['no more requests', 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=0\r\nContent-Length: 2\r\n\r\nok', false],
    ['a byte behind the body', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!', false],
    ['a byte behind no body', 'HTTP/1.1 304 Not Modified\r\n\r\n!', false],
    ['a byte behind the last chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n!', false],
  ]
  for (const [name, bytes, expected] of rows)
    it(`${name}: ${expected ? 'yes' : 'no'}`, async () => {
      const origin = createServer((socket) => socket.once('data', () => socket.write(bytes, 'latin1')))
      origin.listen(0, '127.0.0.1')
      await once(origin, 'listening')
      const { port } = origin.address() as AddressInfo
      const client = openConnection({ ...address(), url: new URL(`http://127.0.0.1:${port}`) })
      expect((await ask(client, '/')).end).toBe('whole')
      expect(client.isUsable()).toBe(expected)
      client.destroy()
      origin.close()
    })
})

describe('over TLS', () => {
  const before = getCACertificates()
  const { certificate, key } = issue(['localhost'])
  let resumed: boolean[] = []
  const secure = createTlsServer({ cert: certificate, key }, (socket) => {
    resumed.push(socket.isSessionReused())
    socket.on('error', () => {})
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
  })
  const stray: Socket[] = []
  secure.on('connection', (socket: Socket) => stray.push(socket))
  const to = (host: string): ServerAddress => ({
    ...address(),
    url: new URL(`https://${host}:${(secure.address() as AddressInfo).port}`),
  })
  beforeAll(async () => {
    secure.listen(0, 'localhost')
    await once(secure, 'listening')
  })
  afterAll(() => {
    setDefaultCACertificates(before)
    for (const socket of stray) socket.destroy()
    secure.close()
  })

  it('a server that nobody vouches for gets no request', async () => {
    resumed = []
    expect(await ask(openConnection(to('localhost')), '/')).toMatchObject({ end: 'error', status: 0 })
    expect(resumed.length).toBeLessThanOrEqual(1)
  })

  it('a server is asked by its name, and the next handshake is a short one', async () => {
    setDefaultCACertificates([...before, authority])
    resumed = []
    const named = to('localhost')
    expect(await ask(openConnection(named), '/')).toMatchObject({ end: 'whole', status: 200, body: 'ok' })
    expect(await ask(openConnection(named), '/')).toMatchObject({ end: 'whole', status: 200, body: 'ok' })
    expect(resumed).toEqual([false, true])
  })

  it('a certificate for another name is refused', async () => {
    const { address: ip } = secure.address() as AddressInfo
    const other = to(ip.includes(':') ? `[${ip}]` : ip)
    expect(await ask(openConnection(other), '/')).toMatchObject({ end: 'error', code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  })
})
