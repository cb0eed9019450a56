import { mkdirSync, mkdtempSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isHashed } from '#edge/actions/files.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { get } from '../support/get.ts'
import type { Got } from '../support/get.ts'

/** Files in their encodings, in parts, and for clients that have them already. */
const root = mkdtempSync(join(tmpdir(), 'daemun-forms-'))
const text = 'let answer = 42\n'.repeat(1_000)
const letters = 'abcdefghijklmnopqrstuvwxyz'
const large = Buffer.alloc(3_000_000, letters)
const modified = 1_700_000_000
let gateway: TestGateway

function write(name: string, content: string | Buffer, modifiedAt = modified): void {
  writeFileSync(join(root, name), content)
  utimesSync(join(root, name), modifiedAt, modifiedAt)
}

beforeAll(async () => {
  mkdirSync(join(root, 'Build'))
  write('index.html', 'home')
  write('letters.txt', letters)
  write('empty.txt', '')
  write('app.js', text)
  write('app.js.br', brotliCompressSync(text))
  write('app.js.gz', gzipSync(text))
  write('app.js.zst', zstdCompressSync(text))
  write('lib.js', text)
  write('stale.css', text)
  write('stale.css.br', brotliCompressSync('what it was before'), modified - 10)
  write('photo.png', Buffer.alloc(10_000))
  write('large.bin', large)
  write('large.json', large)
  write('large.json.br', brotliCompressSync(large))
  write('index-BxY7k2aQ.js', 'hashed')
  write('Build/game.wasm.br', brotliCompressSync('wasm'))
  write('Build/game.data.br', brotliCompressSync('data'))
  write('Build/game.framework.js.gz', gzipSync('framework'))
  write('Build/game.symbols.json.gz', gzipSync('{}'))
  write('Build/both.wasm.br', brotliCompressSync('both'))
  write('Build/both.wasm', 'both')
  write('Build/both.wasm.gz', gzipSync('both'))
  write('download.json.gz', gzipSync('{}'))
  write('module.wasm', 'wasm')
  gateway = await startTestGateway({
    name: 'forms',
    sites: [{ hosts: ['a.example'], routes: [{ path: '/*', files: { root } }] }],
  })
})
afterAll(async () => {
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
  await gateway.stop()
  rmSync(root, { recursive: true })
})

const ask = (path: string, headers?: Record<string, string>, method?: string): Promise<Got> =>
  get(gateway.port, `http://a.example${path}`, headers, method)

describe('encoded files', () => {
  it('are sent as the client likes them best, each with a tag of its own', async () => {
    const tags = new Set<string>()
    for (const [accept, coding, decode] of [
      ['gzip, br, zstd', 'br', brotliDecompressSync],
      ['gzip', 'gzip', gunzipSync],
      ['br;q=0, gzip;q=0.1', 'gzip', gunzipSync],
      ['identity', undefined, (body: Buffer) => body],
      ['identity;q=0', undefined, (body: Buffer) => body],
    ] as const) {
      const { status, headers, body } = await ask('/app.js', { 'accept-encoding': accept })
      expect([accept, status, headers['content-encoding'], headers['vary']]).toEqual([
        accept,
        200,
        coding,
        'Accept-Encoding',
      ])
      expect(decode(body).toString()).toBe(text)
      expect(headers['content-type']).toBe('text/javascript; charset=utf-8')
      expect(headers['content-length']).toBe(String(body.length))
      expect(headers['etag']).toMatch(/^"[^"]+"$/)
      tags.add(headers['etag'] ?? '')
    }
    expect(tags.size).toBe(3)
    expect((await ask('/app.js', { 'accept-encoding': 'zstd' })).headers['content-encoding']).toBe('zstd')
  })

  it('a text without one beside it is compressed once, in the background', async () => {
    const asked = (): Promise<Got> => ask('/lib.js', { 'accept-encoding': 'br' })
    const plain = await ask('/lib.js')
    expect(plain.headers['vary']).toBe('Accept-Encoding')
    await expect.poll(async () => (await asked()).headers['content-encoding']).toBe('br')
    const encoded = await asked()
    expect(brotliDecompressSync(encoded.body).toString()).toBe(text)
    expect(encoded.headers['etag']).not.toBe(plain.headers['etag'])
    await expect
      .poll(async () => (await ask('/lib.js', { 'accept-encoding': 'gzip' })).headers['content-encoding'])
      .toBe('gzip')
  })

  it('one that is older than its file is not sent', async () => {
    await ask('/stale.css')
    await expect
      .poll(async () => (await ask('/stale.css', { 'accept-encoding': 'br' })).headers['content-encoding'])
      .toBe('br')
    const { body } = await ask('/stale.css', { 'accept-encoding': 'br' })
    expect(brotliDecompressSync(body).toString()).toBe(text)
  })

  it('pictures and short texts stay as they are, for everybody', async () => {
    for (const path of ['/photo.png', '/letters.txt']) {
      const { headers } = await ask(path, { 'accept-encoding': 'br, gzip' })
      expect([path, headers['content-encoding'], headers['vary']]).toEqual([path, undefined, undefined])
    }
  })

  it('are streamed when they are large', async () => {
    const { headers, body } = await ask('/large.json', { 'accept-encoding': 'br' })
    expect(headers['content-encoding']).toBe('br')
    expect(brotliDecompressSync(body).equals(large)).toBe(true)
  })

  it('HEAD says what GET would', async () => {
    const accept = { 'accept-encoding': 'br' }
    const head = await ask('/app.js', accept, 'HEAD')
    const { date: _, ...told } = head.headers
    const { date: __, ...sent } = (await ask('/app.js', accept)).headers
    expect({ ...told, 'x-request-id': '' }).toEqual({ ...sent, 'x-request-id': '' })
    expect(head.body.length).toBe(0)
  })
})

describe('builds of Unity', () => {
  it.each([
    ['/Build/game.wasm.br', 'application/wasm', 'br'],
    ['/Build/game.data.br', 'application/octet-stream', 'br'],
    ['/Build/game.framework.js.gz', 'text/javascript; charset=utf-8', 'gzip'],
    ['/Build/game.symbols.json.gz', 'application/json; charset=utf-8', 'gzip'],
  ])('%s is %s in %s, also for who did not ask for that', async (path, type, coding) => {
    for (const accept of ['gzip, br', 'identity', 'deflate']) {
      const { status, headers } = await ask(path, { 'accept-encoding': accept })
      expect([status, headers['content-type'], headers['content-encoding']]).toEqual([200, type, coding])
    }
    expect((await ask(path)).headers['content-encoding']).toBe(coding)
  })

  it('another form beside it is for who does not take the one that is named', async () => {
    const facts = []
    for (const accept of ['gzip, br', 'gzip', 'identity']) {
      const { headers } = await ask('/Build/both.wasm.br', { 'accept-encoding': accept })
      facts.push([headers['content-encoding'], headers['content-type'], headers['vary']])
    }
    expect(facts).toEqual([
      ['br', 'application/wasm', 'Accept-Encoding'],
      ['gzip', 'application/wasm', 'Accept-Encoding'],
      [undefined, 'application/wasm', 'Accept-Encoding'],
    ])
  })

  it('elsewhere an encoded file is a file like any other', async () => {
    const { headers } = await ask('/download.json.gz', { 'accept-encoding': 'gzip' })
    expect([headers['content-encoding'], headers['content-type']]).toEqual([undefined, 'application/gzip'])
    expect((await ask('/module.wasm')).headers['content-type']).toBe('application/wasm')
  })
})

describe('clients that have the file', () => {
  it('If-Modified-Since is answered to the second', async () => {
    const at = (seconds: number): Record<string, string> => ({
      'if-modified-since': new Date((modified + seconds) * 1_000).toUTCString(),
    })
    expect((await ask('/letters.txt', at(0))).status).toBe(304)
    expect((await ask('/letters.txt', at(5))).status).toBe(304)
    expect((await ask('/letters.txt', at(-1))).status).toBe(200)
    expect((await ask('/letters.txt', { 'if-modified-since': 'yesterday' })).status).toBe(200)
  })

  it('If-None-Match counts alone where it is there', async () => {
    const date = new Date(modified * 1_000).toUTCString()
    expect((await ask('/letters.txt', { 'if-none-match': '"other"', 'if-modified-since': date })).status).toBe(200)
    const tag = (await ask('/letters.txt')).headers['etag'] ?? ''
    const again = await ask('/letters.txt', { 'if-none-match': tag, 'if-modified-since': new Date(0).toUTCString() })
    expect([again.status, again.headers['etag'], again.body.length]).toEqual([304, tag, 0])
  })

  it('a 304 says what the answer depends on', async () => {
    const accept = { 'accept-encoding': 'br' }
    const tag = (await ask('/app.js', accept)).headers['etag'] ?? ''
    const again = await ask('/app.js', { ...accept, 'if-none-match': tag })
    expect([again.status, again.headers['vary']]).toEqual([304, 'Accept-Encoding'])
    expect((await ask('/app.js', { 'accept-encoding': 'gzip', 'if-none-match': tag })).status).toBe(200)
  })
})

describe('parts of files', () => {
  it.each([
    ['bytes=0-4', 'abcde', 'bytes 0-4/26'],
    ['bytes=20-', 'uvwxyz', 'bytes 20-25/26'],
    ['bytes=-3', 'xyz', 'bytes 23-25/26'],
    ['bytes=24-100', 'yz', 'bytes 24-25/26'],
  ])('%s', async (range, part, told) => {
    const { status, headers, body } = await ask('/letters.txt', { range })
    expect([status, headers['content-range'], headers['content-length'], body.toString()]).toEqual([
      206,
      told,
      String(part.length),
      part,
    ])
  })

  it('a part of a large file is read from the disk', async () => {
    const { status, body } = await ask('/large.bin', { range: 'bytes=2000000-2000025' })
    expect([status, body.toString()]).toEqual([206, large.subarray(2_000_000, 2_000_026).toString()])
  })

  it('what lies behind the end is 416, with the length', async () => {
    const { status, headers, body } = await ask('/letters.txt', { range: 'bytes=26-' })
    expect([status, headers['content-range']]).toEqual([416, 'bytes */26'])
    expect(JSON.parse(body.toString())).toMatchObject({ code: 'range_not_satisfiable' })
    expect((await ask('/empty.txt', { range: 'bytes=0-' })).status).toBe(416)
    expect((await ask('/empty.txt', { range: 'bytes=-1' })).status).toBe(200)
  })

  it.each(['bytes=0-1,4-5', `bytes=${'0-,'.repeat(999)}0-`, 'bytes=5-1', 'chapters=1', 'bytes=x'])(
    '%.20s… gets the whole file',
    async (range) => {
      const { status, headers, body } = await ask('/letters.txt', { range })
      expect([status, headers['accept-ranges'], body.toString()]).toEqual([200, 'bytes', letters])
    },
  )

  it('If-Range: only for who has exactly this file', async () => {
    const tag = (await ask('/letters.txt')).headers['etag'] ?? ''
    const range = 'bytes=0-0'
    expect((await ask('/letters.txt', { range, 'if-range': tag })).status).toBe(206)
    const date = new Date(modified * 1_000).toUTCString()
    for (const other of [`W/${tag}`, '"other"', date])
      expect((await ask('/letters.txt', { range, 'if-range': other })).status).toBe(200)
    expect((await ask('/letters.txt', { range: 'bytes=99-', 'if-range': '"other"' })).status).toBe(200)
  })

  it('a part is one of the encoded form where that is sent', async () => {
    const accept = { 'accept-encoding': 'br' }
    const whole = (await ask('/app.js', accept)).body
    const { headers, body } = await ask('/app.js', { ...accept, range: 'bytes=3-9' })
    expect([headers['content-encoding'], body.equals(whole.subarray(3, 10))]).toEqual(['br', true])
  })

  it('HEAD has no parts, and who has the file gets none', async () => {
    expect((await ask('/letters.txt', { range: 'bytes=0-0' }, 'HEAD')).status).toBe(200)
    const tag = (await ask('/letters.txt')).headers['etag'] ?? ''
    expect((await ask('/letters.txt', { range: 'bytes=99-', 'if-none-match': tag })).status).toBe(304)
  })
})

it('a large file that is replaced by a shorter one is sent as it is now', async () => {
  write('shrinking.bin', large)
  expect((await ask('/shrinking.bin')).body.length).toBe(3_000_000)
  truncateSync(join(root, 'shrinking.bin'), 2_000_000)
  expect((await ask('/shrinking.bin')).body.length).toBe(2_000_000)
})

it('a hash in the name makes a file immutable, nothing that only looks like one', async () => {
  expect((await ask('/index-BxY7k2aQ.js')).headers['cache-control']).toBe('public, max-age=31536000, immutable')
  const hashed = [
    '/app.3f9a1c2b.js',
    '/assets/index-BxY7k2aQ.js',
    '/main.3f9a1c2b4d5e6f70.chunk.css',
    '/a-3f9a1c2b.woff2',
    '/Build/3f9a1c2b4d5e6f703f9a1c2b4d5e6f70.data.br',
    '/assets/index-Bx_7k-aQ.js.map',
  ]
  expect(hashed.filter((name) => !isHashed(name))).toEqual([])
  const plain = [
    '/index.html',
    '/index-BxY7k2aQ.html',
    '/jquery-3.7.1.min.js',
    '/photo-20240115.jpg',
    '/list-MyWidget.js',
    '/lib.Canvas2D.js',
    '/bundle-version2.js',
    '/deadbeef',
    '/game.wasm.br',
    '/manifest.webmanifest',
  ]
  expect(plain.filter(isHashed)).toEqual([])
})
