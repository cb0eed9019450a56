import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createCertificateFolder, issue } from '../support/certificates.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, startHostileOrigin } from '../support/hostile-origin.ts'
import type { HostileOrigin } from '../support/hostile-origin.ts'
import { frameTypes, openHttp2, toBlock, toFrame, toGet } from '../support/http2-frames.ts'

/** Frames of HTTP/2 with bytes changed, lost, doubled and out of order: nothing ambiguous is passed on, nothing breaks. */
let origin: HostileOrigin
let gateway: TestGateway
const certificates = createCertificateFolder()

beforeAll(async () => {
  certificates.put('a.example', issue(['a.example']))
  origin = await startHostileOrigin(ok)
  gateway = await startTestGateway(
    {
      name: 'wire',
      upstreams: { origin: { servers: [origin.url] } },
      sites: [
        {
          hosts: ['a.example', 'b'],
          routes: [
            { path: '/*', proxy: { to: 'origin', readTimeoutMs: 300 } },
            { path: '/files/*', files: { root: 'test/wire' } },
            { path: '/fixed', respond: { status: 200, body: 'fixed' } },
          ],
        },
      ],
    },
    { https: { host: '127.0.0.1', port: 0, certificates: certificates.path, development: false } },
  )
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
  certificates.clear()
})

const { data, headers, priority, reset, settings, pushPromise, ping, goaway, windowUpdate, continuation } = frameTypes
const [, scheme, host, path] = toGet('a.example', '/a') as [string, string][]
const fields = fc.array(
  fc.oneof(
    fc.constantFrom<[string, string]>(
      [':method', 'POST'],
      [':authority', 'b'],
      [':path', '*'],
      [':path', '/files/x'],
      [':protocol', 'websocket'],
      [':status', '200'],
      ['host', 'b'],
      ['content-length', '3'],
      ['content-length', '5, 5'],
      ['transfer-encoding', 'chunked'],
      ['connection', 'close'],
      ['te', 'trailers'],
      ['expect', '100-continue'],
      ['cookie', 'a=1'],
      ['x_user_id', '1'],
      ['__proto__', 'x'],
    ),
    fc.tuple(fc.string({ unit: 'binary', maxLength: 8 }), fc.string({ unit: 'binary', maxLength: 12 })),
  ),
  { maxLength: 3 },
)
const head = fc.tuple(fc.constantFrom('GET', 'POST', 'CONNECT'), fields, fc.boolean()).map(([method, more, first]) => {
  const own: [string, string][] = [[':method', method], scheme, host, path] as [string, string][]
  return toBlock(first ? [...more, ...own] : [...own, ...more])
})
const payload = fc.oneof(
  { weight: 3, arbitrary: head },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) },
  { weight: 1, arbitrary: fc.constantFrom(0, 4, 5, 6, 8, 16_384).map((size) => Buffer.alloc(size)) },
)
const types = [headers, headers, headers, data, data, priority, reset, settings, pushPromise, ping, goaway]
const frame = fc
  .tuple(
    fc.constantFrom(...types, windowUpdate, continuation, 0xff),
    fc.constantFrom(0, 1, 4, 5, 8, 0x20, 0x2d, 0xff),
    fc.constantFrom(0, 1, 1, 3, 5, 2, 7, 0x7fffffff),
    payload,
  )
  .map((parts) => toFrame(...parts))
const good = fc.constantFrom(1, 3, 5).chain((stream) => head.map((block) => toFrame(headers, 5, stream, block)))
const change = fc.tuple(
  fc.constantFrom('lose', 'replace', 'double', 'keep'),
  fc.nat(4_000),
  fc.integer({ min: 1, max: 9 }),
)

/** Some frames, mostly requests, in which bytes may have been changed. */
const bytes = fc
  .tuple(
    fc.array(fc.oneof({ weight: 3, arbitrary: good }, { weight: 1, arbitrary: frame }), { minLength: 1, maxLength: 8 }),
    fc.array(change, { maxLength: 2 }),
  )
  .map(([frames, changes]) => {
    let all = Buffer.concat(frames)
    for (const [kind, where, length] of changes) {
      const at = where % (all.length + 1)
      const [front, back] = [all.subarray(0, at), all.subarray(at)]
      if (kind === 'lose') all = Buffer.concat([front, back.subarray(length)])
      else if (kind === 'double') all = Buffer.concat([front, back.subarray(0, length), back])
      else if (kind === 'replace') all = Buffer.concat([front, Buffer.from([length * 27]), back.subarray(1)])
    }
    return all
  })

/** A campaign runs more of them, from seeds of its own. */
const { DAEMUN_MUTATIONS: count = '300', DAEMUN_MUTATION_SEED: seedText = '20261121' } = process.env
const atOnce = 50

it('of mutated frames, the upstream sees only such requests as one reader reads like the other', async () => {
  const cases = fc.sample(bytes, { numRuns: Number(count), seed: Number(seedText) })
  for (let from = 0; from < cases.length; from += atOnce)
    await Promise.all(
      cases.slice(from, from + atOnce).map(async (frames, index) => {
        const socket = await openHttp2(gateway.httpsPort, 'a.example')
        socket.resume().write(frames)
        if (index % 3 === 0) socket.end()
        const closed = new Promise((resolve) => socket.once('close', resolve))
        await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 20))])
        socket.destroy()
      }),
    )
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
  const ids = gateway.log().map((line) => line['id'])
  expect(new Set(ids).size).toBe(ids.length)
  expect(ids.length).toBeGreaterThan(cases.length / 12)
  // Some were passed on, and what was is clean.
  expect(origin.requests.length).toBeGreaterThan(0)
  const clean = /^[A-Z]+ \/[!-~]* HTTP\/1\.1\r\nhost: (a\.example|b)(:\d+)?(\r\n[!#$%&'*+.^`|~\w-]+: [^\r\n\0]*)*$/i
  for (const { head: seen } of origin.requests) {
    expect(seen).toMatch(clean)
    expect(seen.match(/^(host|content-length|transfer-encoding):/gim)?.length).toBeLessThanOrEqual(2)
    expect(seen).not.toMatch(
      /^(expect|te|trailer|content[_.]length|transfer[_.]encoding|x[_.](user|real|forwarded)[_.-][^:]*|):/im,
    )
  }
}, 60_000)
