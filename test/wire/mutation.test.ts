import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, startHostileOrigin } from '../support/hostile-origin.ts'
import type { HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw } from '../support/raw-client.ts'
import type { Answer } from '../support/raw-client.ts'

/** Requests and answers with bytes added, lost and doubled: whatever comes of them, nothing ambiguous is passed on. */
let origin: HostileOrigin
let gateway: TestGateway
const answers = new Map<string, string>()

beforeAll(async () => {
  origin = await startHostileOrigin((socket, request) => {
    const bytes = answers.get(request.path)
    if (bytes === undefined) return ok(socket, request)
    // The path's number says how it is sent: in one piece or two, and with which end.
    const way = Number(request.path.slice(1)) % 4
    const middle = way === 0 ? bytes.length >> 1 : bytes.length
    socket.write(bytes.slice(0, middle), 'latin1')
    setImmediate(() => socket.write(bytes.slice(middle), 'latin1', () => way > 1 && socket.end()))
  })
  gateway = await startTestGateway({
    name: 'wire',
    upstreams: { origin: { servers: [origin.url] } },
    keys: { main: { secret: 'b7Qx0pLr5mZk2Vd9Wc4Ht8Ns1Jf6Ya3E', algorithms: ['HS256'] } },
    sites: [
      {
        hosts: ['a.example', 'b'],
        routes: [
          { path: '/*', proxy: { to: 'origin', websocket: true, readTimeoutMs: 300 } },
          { path: '/private', auth: { jwt: 'main' }, proxy: { to: 'origin' } },
          { path: '/files/*', files: { root: 'test/wire' } },
        ],
      },
    ],
  })
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
})

const fields = 'Host: a.example\r\n'
const handshake = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const requests = [
  `GET /a HTTP/1.1\r\n${fields}\r\n`,
  `POST /b HTTP/1.1\r\n${fields}Content-Length: 5\r\n\r\nhello`,
  `POST /c HTTP/1.1\r\n${fields}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  `GET /ws HTTP/1.1\r\n${fields}${handshake}\r\n`,
  `CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabc`,
  `POST /d HTTP/1.0\r\n${fields}Connection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello`,
  `POST /private HTTP/1.1\r\n${fields}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello`,
  `GET /files/x HTTP/1.1\r\n${fields}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
]
const replies = [
  'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
  'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello',
  'HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n',
  'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
  'HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nKeep-Alive: timeout=1\r\n\r\nhello',
]
const bit = fc.constantFrom(
  ...': , ; 0 5 f % %2f / .. _ chunked HTTP/1.0 HTTP/1.1'.split(' '),
  ...' |\t|\r\n|\n|\r|\0|\xff|\x7f|\x01|GET |\r\n\r\n|Content-Length: 3\r\n|Transfer-Encoding: chunked\r\n'.split('|'),
  ...'Host: b\r\n|Expect: 100-continue\r\n|Connection: close\r\n|Connection: content-length\r\n'.split('|'),
  handshake,
)
const change = fc.tuple(fc.constantFrom('insert', 'lose', 'replace', 'double'), fc.nat(400), fc.nat(6), bit)

/** One of these texts with one to four changes. */
const mutated = (texts: string[]): fc.Arbitrary<string> =>
  fc.tuple(fc.constantFrom(...texts), fc.array(change, { minLength: 1, maxLength: 4 })).map(([text, changes]) => {
    let bytes = text
    for (const [kind, where, length, added] of changes) {
      const at = where % (bytes.length + 1)
      const [front, back] = [bytes.slice(0, at), bytes.slice(at)]
      if (kind === 'insert') bytes = front + added + back
      else if (kind === 'lose') bytes = front + back.slice(length)
      else if (kind === 'replace') bytes = front + added + back.slice(1)
      else bytes = front + bytes.slice(Math.max(0, at - 3 * length))
    }
    return bytes
  })

const atOnce = 250

async function inBatches<T>(cases: T[], run: (one: T, index: number) => Promise<void>): Promise<void> {
  for (let from = 0; from < cases.length; from += atOnce)
    await Promise.all(cases.slice(from, from + atOnce).map((one, index) => run(one, from + index)))
}

/** Every request was accounted for once, and nothing of ours failed. */
async function expectAccounted(): Promise<void> {
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
  const ids = gateway.log().map((line) => line['id'])
  expect(new Set(ids).size).toBe(ids.length)
  expect((await ask(gateway.port, requests[0] ?? '')).status).toBe(200)
}

/** A campaign runs more of them, from seeds of its own. */
const { DAEMUN_MUTATIONS: count = '2000', DAEMUN_MUTATION_SEED: seedText = '20261121' } = process.env
const numRuns = Number(count)
const seed = Number(seedText)

it('of mutated requests, the upstream sees only such as one reader reads like the other', async () => {
  const cases = fc.sample(
    fc.array(mutated(requests), { minLength: 1, maxLength: 3 }).map((some) => some.join('')),
    { numRuns, seed },
  )
  await inBatches(cases, async (bytes, index) => {
    const client = await connectRaw(gateway.port)
    client.send(bytes)
    if (index % 5 === 0) client.socket.end()
    await Promise.race([client.closed, new Promise((resolve) => setTimeout(resolve, 20))])
    if (index % 7 === 0) client.socket.resetAndDestroy()
    // What the client reads is answers and nothing else.
    const got: Answer[] = client.answers()
    expect(
      got.every(({ status }) => status >= 200 && status < 600),
      JSON.stringify(bytes),
    ).toBe(true)
    client.socket.destroy()
  })
  await expectAccounted()
  const clean = /^[A-Z-]+ \/[!-~]* HTTP\/1\.1\r\nhost: (a\.example|b)(:\d+)?(\r\n[!#$%&'*+.^`|~\w-]+: [^\r\n\0]*)*$/i
  for (const { head } of origin.requests) {
    expect(head).toMatch(clean)
    expect(head.match(/^(host|content-length|transfer-encoding):/gim)?.length).toBeLessThanOrEqual(2)
    expect(head).not.toMatch(
      /^(expect|te|trailer|content[_.]length|transfer[_.]encoding|x[_.](user|real|forwarded)[_.-][^:]*):/im,
    )
  }
})

it('of mutated answers, the client reads answers and nothing else', async () => {
  const cases = fc.sample(mutated(replies), { numRuns: numRuns / 2, seed })
  for (const [index, bytes] of cases.entries()) answers.set(`/${index}`, bytes)
  await inBatches(cases, async (bytes, index) => {
    const client = await connectRaw(gateway.port)
    const upgrade = index % 3 === 0 ? handshake : ''
    client.send(`GET /${index} HTTP/1.1\r\n${fields}${upgrade}\r\n`)
    const [answer] = await client.read()
    client.socket.destroy()
    expect(answer?.status, JSON.stringify(bytes)).toBeGreaterThanOrEqual(200)
  })
  await expectAccounted()
}, 30_000)
