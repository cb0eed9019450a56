import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import {
  brotliDecompressSync,
  constants,
  createBrotliDecompress,
  createGunzip,
  createZstdDecompress,
  gunzipSync,
  gzipSync,
  zstdDecompressSync,
} from 'node:zlib'
import { request } from 'node:http'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { get } from '../support/get.ts'
import type { Got } from '../support/get.ts'

/** Answers of upstreams that are compressed on their way. */
type Behaviour = (response: ServerResponse, asked: IncomingMessage) => void
const behaviours = new Map<string, Behaviour>()
const text = 'all work and no play '.repeat(500)
let gateway: TestGateway
let made = 0

const origin = createServer((asked, response) => {
  // Nobody's test depends on that the origin is not cut off.
  response.on('error', () => {})
  behaviours.get((asked.url ?? '').replace(/^\/plain/, ''))?.(response, asked)
})

function behaving(behaviour: Behaviour): string {
  const path = `/case-${made++}`
  behaviours.set(path, behaviour)
  return path
}

const sending = (fields: Record<string, string>, body: string | Buffer = text, status = 200): string =>
  behaving((response) => {
    response.writeHead(status, fields)
    response.end(body)
  })

beforeAll(async () => {
  origin.listen(0, '127.0.0.1')
  await once(origin, 'listening')
  const url = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`
  gateway = await startTestGateway({
    name: 'compression',
    upstreams: { origin: { servers: [url] } },
    sites: [
      {
        hosts: ['a.example'],
        compress: true,
        routes: [
          { path: '/*', proxy: { to: 'origin' } },
          { path: '/plain/*', compress: false, proxy: { to: 'origin' } },
          { path: '/kept/*', proxy: { to: 'origin', strip: '/kept' }, cache: { control: 'no-transform' } },
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
  origin.close()
})

const ask = (
  path: string,
  headers: Record<string, string> = { 'accept-encoding': 'br' },
  method?: string,
): Promise<Got> => get(gateway.port, `http://a.example${path}`, headers, method)

const json = { 'Content-Type': 'application/json', ETag: '"1"' }

describe('a text of an upstream', () => {
  it.each([
    ['br', 'br', brotliDecompressSync],
    ['gzip', 'gzip', gunzipSync],
    ['zstd', 'zstd', zstdDecompressSync],
    ['gzip, deflate, br, zstd', 'zstd', zstdDecompressSync],
    ['br;q=0.4, gzip;q=0.8', 'gzip', gunzipSync],
  ])('is sent to who takes %s in %s, and is the same', async (accept, coding, decode) => {
    const path = sending({ ...json, 'Content-Length': String(text.length), 'Accept-Ranges': 'bytes', Vary: 'Origin' })
    const { status, headers, body } = await ask(path, { 'accept-encoding': accept })
    expect(status).toBe(200)
    expect(headers).toMatchObject({ 'content-encoding': coding, etag: 'W/"1"', vary: 'Origin, Accept-Encoding' })
    expect([headers['content-length'], headers['accept-ranges']]).toEqual([undefined, undefined])
    expect(decode(body).toString()).toBe(text)
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ status: 200, bytes: body.length })
  })

  it('of any status and without a length too', async () => {
    const path = behaving((response) => {
      response.writeHead(404, { 'Content-Type': 'text/html' })
      response.write(text)
      response.end(text)
    })
    const { status, headers, body } = await ask(path)
    expect([status, headers['content-encoding'], brotliDecompressSync(body).toString()]).toEqual([
      404,
      'br',
      text + text,
    ])
  })

  it.each([
    ['who takes none', {}, {}],
    ['who refuses them', {}, { 'accept-encoding': 'identity, *;q=0' }],
  ])('stays as it is for %s, and says that others get another', async (_, fields, headers) => {
    const answer = await ask(sending({ ...json, ...fields }), headers)
    expect(answer.headers).toMatchObject({ vary: 'Accept-Encoding', etag: '"1"' })
    expect([answer.headers['content-encoding'], answer.body.toString()]).toEqual([undefined, text])
  })

  it('HEAD has no content to compress', async () => {
    const path = sending({ ...json, 'Content-Length': String(text.length) })
    const { headers } = await ask(path, { 'accept-encoding': 'br' }, 'HEAD')
    expect(headers).toMatchObject({ 'content-length': String(text.length), etag: '"1"', vary: 'Accept-Encoding' })
    expect(headers['content-encoding']).toBeUndefined()
  })
})

describe('what is never compressed', () => {
  it.each<[string, Record<string, string>, (string | Buffer)?, number?]>([
    ['events', { 'Content-Type': 'text/event-stream' }],
    ['a picture', { 'Content-Type': 'image/png' }],
    ['what has no type', {}],
    ['what is encoded already', { ...json, 'Content-Encoding': 'gzip' }, gzipSync(text)],
    ['a part', { ...json, 'Content-Range': 'bytes 0-9/10500' }, text.slice(0, 10), 206],
    ['what must not be transformed', { ...json, 'Cache-Control': 'public, No-Transform' }],
    ['a short text', { ...json, 'Content-Length': '1023' }, 'x'.repeat(1_023)],
  ])('%s', async (_, fields, body, status) => {
    const answer = await ask(sending(fields, body, status), { 'accept-encoding': 'br' })
    expect(answer.headers['content-encoding']).toBe(fields['Content-Encoding'])
    expect([answer.headers['etag'], answer.headers['vary']]).toEqual([fields['ETag'], undefined])
    expect(answer.body.equals(Buffer.from(body ?? text))).toBe(true)
  })

  it('what the client or the row wants kept', async () => {
    const path = sending(json)
    expect((await ask(path, { 'accept-encoding': 'br', 'cache-control': 'no-transform' })).body.toString()).toBe(text)
    expect((await ask(`/kept${path}`)).body.toString()).toBe(text)
  })

  it('an answer on a row that does not say so', async () => {
    const { headers, body } = await ask(`/plain${sending(json)}`)
    expect([headers['vary'], headers['etag'], body.toString()]).toEqual([undefined, '"1"', text])
  })

  it('204 and 304', async () => {
    for (const status of [204, 304]) {
      const path = behaving((response) => response.writeHead(status, { ETag: '"1"' }).end())
      const answer = await ask(path)
      expect([answer.status, answer.headers['content-encoding'], answer.headers['etag']]).toEqual([
        status,
        undefined,
        '"1"',
      ])
    }
  })
})

describe('a compressed stream', () => {
  it.each([
    ['br', createBrotliDecompress],
    ['gzip', createGunzip],
    ['zstd', createZstdDecompress],
  ])('in %s: what the upstream has sent arrives while the rest is not sent', async (coding, createDecoder) => {
    let stream: ServerResponse | undefined
    const path = behaving((response) => {
      stream = response
      response.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
      response.write('{"line":1}\n')
    })
    const asked = request({
      port: gateway.port,
      path,
      headers: { host: 'a.example', 'accept-encoding': coding },
    }).end()
    const [answer] = (await once(asked, 'response')) as [IncomingMessage]
    expect(answer.headers['content-encoding']).toBe(coding)
    const decoder = answer.pipe(createDecoder({ flush: coding === 'gzip' ? constants.Z_SYNC_FLUSH : undefined }))
    for (let line = 1; line <= 20; line++) {
      const [chunk] = (await once(decoder, 'data')) as [Buffer]
      expect(chunk.toString()).toBe(`{"line":${line}}\n`)
      if (line < 20) stream?.write(`{"line":${line + 1}}\n`)
    }
    stream?.end()
    await once(decoder, 'end')
  })

  it('is no faster than its client: the upstream waits', async () => {
    let written = 0
    const line = Buffer.alloc(65_536)
    for (let at = 0; at < line.length; at++) line[at] = 33 + ((at * at * 7 + at) % 90)
    const path = behaving((response) => {
      response.writeHead(200, { 'Content-Type': 'text/plain' })
      const write = (): void => {
        while (!response.destroyed && written < 2_000) {
          written++
          // Different each time, so that it stays large.
          if (!response.write(Buffer.from(line.map((byte) => 33 + ((byte * Math.random() * 89) | 0)))))
            return void response.once('drain', write)
        }
      }
      write()
    })
    const socket = connect(gateway.port, '127.0.0.1')
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: gzip\r\n\r\n`)
    await once(socket, 'data')
    socket.pause()
    let before = -1
    while (before !== written) {
      before = written
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    expect(written).toBeLessThan(1_000)
    socket.destroy()
  })

  it('that the upstream breaks off is broken off, with what had come', async () => {
    const path = behaving((response) => {
      response.writeHead(200, { 'Content-Type': 'text/plain' })
      response.write('what had come', () => response.destroy())
    })
    const asked = request({ port: gateway.port, path, headers: { host: 'a.example', 'accept-encoding': 'gzip' } }).end()
    const [answer] = (await once(asked, 'response')) as [IncomingMessage]
    const chunks: Buffer[] = []
    answer.on('data', (chunk: Buffer) => chunks.push(chunk))
    const [error] = (await once(answer, 'error')) as [NodeJS.ErrnoException]
    expect(error.code).toBe('ECONNRESET')
    expect(gunzipSync(Buffer.concat(chunks), { finishFlush: constants.Z_SYNC_FLUSH }).toString()).toBe('what had come')
    await gateway.settled()
    expect(gateway.log().at(-1)).toMatchObject({ end: 'upstream_cut' })
  })

  it('that the client leaves takes the upstream along', async () => {
    const left = Promise.withResolvers<void>()
    const path = behaving((response) => {
      response.writeHead(200, { 'Content-Type': 'text/plain' })
      response.write(text)
      response.once('close', left.resolve)
    })
    const socket = connect(gateway.port, '127.0.0.1')
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: zstd\r\n\r\n`)
    await once(socket, 'data')
    socket.destroy()
    await left.promise
  })
})
