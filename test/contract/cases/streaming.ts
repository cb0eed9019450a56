import { expect } from 'vitest'
import { gunzipSync } from 'node:zlib'
import { gzipped } from '../../support/origin.ts'
import { ask, askEcho, fieldOf, nextId } from '../suite.ts'
import type { Case, ContractResponse } from '../suite.ts'

const host = 'shop.example'

async function readChunk(chunks: AsyncIterator<Uint8Array>): Promise<string> {
  const { value, done } = await chunks.next()
  return done ? 'the end' : Buffer.from(value).toString()
}

/** Reads on until the answer ends or breaks off. */
async function readAll({ body }: ContractResponse): Promise<{ text: string; whole: boolean }> {
  let text = ''
  try {
    for await (const chunk of body) text += Buffer.from(chunk).toString()
    return { text, whole: true }
  } catch {
    return { text, whole: false }
  }
}

async function* chunksOf(size: number, count: number): AsyncGenerator<Uint8Array> {
  for (let sent = 0; sent < count; sent++) yield Buffer.alloc(size, 'x')
}

export const streaming: Case[] = [
  ...['/wire/stream', '/wire/events'].map((path): Case => ({
    name: `passes on the first chunk of ${path} before the last is sent`,
    async check({ target, origin }) {
      const id = nextId()
      const answer = await target.fetch({ host, target: `${path}?id=${id}` })
      const chunks = answer.body[Symbol.asyncIterator]()
      expect(await readChunk(chunks)).toMatch(/^(first|data: 1)\n/)
      origin.moment(id).reach()
      expect(await readChunk(chunks)).toMatch(/^(last|data: 2)\n/)
      expect(await readChunk(chunks)).toBe('the end')
    },
  })),
  {
    name: 'passes on the first chunk of an upload before the last is sent',
    async check(world) {
      const id = nextId()
      async function* body(): AsyncGenerator<Uint8Array> {
        yield Buffer.from('first')
        await world.origin.moment(id).reached
        yield Buffer.from('last')
      }
      const answer = await ask(world, { host, target: `/wire/upload?id=${id}`, method: 'POST', body: body() })
      expect(answer.json()).toEqual({ bytes: 9, length: null })
    },
  },
  {
    name: 'passes on large bodies both ways',
    async check(world) {
      const up = await ask(world, { host, target: '/wire/upload', method: 'PUT', body: chunksOf(65_536, 60) })
      expect(up.json()).toMatchObject({ bytes: 65_536 * 60 })
      const down = await ask(world, { host, target: '/wire/large' })
      expect(down.text.length).toBe(5_000_000)
    },
  },
  {
    name: 'passes on a body with GET',
    async check(world) {
      const echo = await askEcho(world, { host, target: '/echo', body: 'a question' })
      expect([echo.method, echo.body]).toEqual(['GET', 'a question'])
    },
  },
  {
    name: "tells the origin a body's length when it is known",
    async check(world) {
      const answer = await ask(world, { host, target: '/wire/upload', method: 'POST', body: 'seven b' })
      expect(answer.json()).toEqual({ bytes: 7, length: '7' })
    },
  },
  {
    name: "tells the client an answer's length when it is known",
    async check(world) {
      const answer = await ask(world, { host, target: '/echo' })
      expect(answer.field('content-length')).toBe(String(answer.text.length))
      expect((await ask(world, { host, target: '/answers/cookies', method: 'HEAD' })).field('content-length')).toBe(
        '11',
      )
    },
  },
  {
    name: 'passes on answers without a body',
    async check(world) {
      const empty = await ask(world, { host, target: '/answers/empty' })
      expect([empty.status, empty.text]).toEqual([204, ''])
      const unmodified = await ask(world, { host, target: '/answers/unmodified' })
      expect([unmodified.status, unmodified.text, unmodified.field('etag')]).toEqual([304, '', '"1"'])
    },
  },
  {
    name: 'passes on every status as it came',
    async check(world) {
      for (const status of [201, 206, 400, 401, 404, 409, 422, 429, 500, 503]) {
        const answer = await ask(world, { host, target: `/status/${status}` })
        expect([answer.status, answer.text]).toEqual([status, 'as asked'])
      }
    },
  },
  {
    name: 'leaves an encoded answer as it came, its length and validator included',
    async check({ target }) {
      const answer = await target.fetch({ host, target: '/answers/gzip', headers: [['Accept-Encoding', 'gzip']] })
      const chunks: Uint8Array[] = []
      for await (const chunk of answer.body) chunks.push(chunk)
      const bytes = Buffer.concat(chunks)
      expect(fieldOf(answer.headers, 'content-encoding')).toBe('gzip')
      expect(fieldOf(answer.headers, 'etag')).toBe('"z"')
      expect(gunzipSync(bytes).toString()).toBe('a text that was encoded by the origin')
      expect(bytes.equals(gzipped)).toBe(true)
    },
  },
  {
    name: 'tells the origin which encodings the client takes',
    async check(world) {
      const echo = await askEcho(world, { host, target: '/echo', headers: [['Accept-Encoding', 'identity']] })
      expect(echo.field('accept-encoding')).toBe('identity')
    },
  },
  {
    name: 'answers 413 to a body that says it is too large',
    async check(world) {
      const answer = await ask(world, { host, target: '/body/declared', method: 'POST', body: Buffer.alloc(1_001) })
      expect([answer.status, answer.json()]).toMatchObject([
        413,
        { code: 'body_too_large', route: 'shop /body/*', limit: 'bodyBytesMax', value: 1_000 },
      ])
      expect((await ask(world, { host, target: '/body/fits', method: 'POST', body: Buffer.alloc(1_000) })).status).toBe(
        200,
      )
    },
  },
  {
    name: 'answers 413 to a body that turns out too large on its way',
    async check(world) {
      const answer = await ask(world, { host, target: '/body/chunked', method: 'POST', body: chunksOf(400, 3) })
      expect([answer.status, answer.json()]).toMatchObject([413, { limit: 'bodyBytesMax', value: 1_000 }])
      expect((await askEcho(world, { host, target: '/body/fits', method: 'POST', body: chunksOf(500, 2) })).bytes).toBe(
        1_000,
      )
    },
  },
  {
    name: 'answers 502 when the upstream is down',
    async check(world) {
      const answer = await ask(world, { host, target: '/dead' })
      expect([answer.status, answer.json()]).toMatchObject([502, { code: 'upstream_unreachable', route: 'shop /dead' }])
    },
  },
  {
    name: 'answers 502 when the upstream hangs up without an answer',
    async check(world) {
      const answer = await ask(world, { host, target: '/wire/reset', method: 'POST', body: 'x' })
      expect([answer.status, answer.json()]).toMatchObject([502, { code: 'upstream_unreachable' }])
    },
  },
  {
    name: "answers 502 when the upstream's answer is not HTTP",
    async check(world) {
      const answer = await ask(world, { host, target: '/wire/garbage' })
      expect([answer.status, answer.json()]).toMatchObject([502, { code: 'upstream_malformed' }])
    },
  },
  {
    name: 'answers 504 when the upstream gives no answer in time',
    async check(world) {
      const answer = await ask(world, { host, target: '/wire/silent' })
      expect([answer.status, answer.json()]).toMatchObject([
        504,
        { code: 'upstream_timeout', route: 'shop /wire/silent', limit: 'readTimeoutMs', value: 250 },
      ])
    },
  },
  {
    name: 'breaks off what the upstream has broken off, with a length',
    async check({ target }) {
      const read = await readAll(await target.fetch({ host, target: '/wire/cut' }))
      expect(read).toEqual({ text: 'ten bytes.', whole: false })
    },
  },
  {
    name: 'breaks off what the upstream has broken off, without a length',
    async check({ target }) {
      const read = await readAll(await target.fetch({ host, target: '/wire/cut-chunked' }))
      expect(read).toEqual({ text: 'ten bytes.', whole: false })
    },
  },
  {
    name: 'breaks off an answer that stalls',
    async check({ target }) {
      const read = await readAll(await target.fetch({ host, target: '/wire/stall' }))
      expect(read).toEqual({ text: 'first\n', whole: false })
    },
  },
  {
    name: 'leaves the upstream when the client leaves before the answer',
    async check({ target, origin }) {
      const id = nextId()
      const leaving = new AbortController()
      const asked = target
        .fetch({ host, target: `/wire/held?id=${id}`, signal: leaving.signal })
        .then(readAll, () => undefined)
      await origin.moment(id).reached
      leaving.abort()
      await asked
      await origin.moment(`${id} left`).reached
    },
  },
  {
    name: 'leaves the upstream when the client leaves in the middle of the answer',
    async check({ target, origin }) {
      const id = nextId()
      const leaving = new AbortController()
      const answer = await target.fetch({ host, target: `/wire/stream?id=${id}`, signal: leaving.signal })
      await readChunk(answer.body[Symbol.asyncIterator]())
      leaving.abort()
      await origin.moment(`${id} left`).reached
    },
  },
]
