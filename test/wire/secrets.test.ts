import { SignJWT } from 'jose'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, startHostileOrigin } from '../support/hostile-origin.ts'
import type { HostileOrigin } from '../support/hostile-origin.ts'
import { ask, connectRaw } from '../support/raw-client.ts'

/** Planted secrets, sent wherever a client may send them, are in nothing that the gateway itself writes. */
const secret = 'b7Qx0pLr5mZk2Vd9Wc4Ht8Ns1Jf6Ya3E'
let origin: HostileOrigin
let gateway: TestGateway

beforeAll(async () => {
  origin = await startHostileOrigin((socket, request) => {
    if (request.path.startsWith('/garbage')) socket.write('NONSENSE\r\n\r\n')
    else if (request.path.startsWith('/cut')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel')
    else if (request.path.startsWith('/closes')) socket.end()
    else if (!request.path.startsWith('/silent')) ok(socket, { ...request, path: 'ok' })
  })
  gateway = await startTestGateway({
    name: 'wire',
    upstreams: { origin: { servers: [origin.url] }, nobody: { servers: ['http://127.0.0.1:1'] } },
    keys: { main: { secret, algorithms: ['HS256'] } },
    sites: [
      {
        hosts: ['a.example'],
        routes: [
          { path: '/*', proxy: { to: 'origin', readTimeoutMs: 100 } },
          { path: '/bearer', auth: { jwt: 'main' }, proxy: { to: 'origin' } },
          { path: '/cookie', auth: { jwt: 'main', from: { cookie: 'session' } }, proxy: { to: 'origin' } },
          { path: '/query', auth: { jwt: 'main', from: { query: 'token' } }, proxy: { to: 'origin', websocket: true } },
          { path: '/claims', auth: { jwt: 'main', claims: { role: 'admin' } }, proxy: { to: 'origin' } },
          {
            path: '/limited',
            limit: { by: { header: 'authorization' }, requests: 1, per: '1 h' },
            proxy: { to: 'origin' },
          },
          { path: '/nobody', proxy: { to: 'nobody' } },
          { path: '/fixed', methods: ['GET'], respond: { status: 200, body: 'fixed' } },
          { path: '/moved', redirect: { to: '/fixed' } },
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

it('a planted token is in no log line, error body or metric, after refusals and successes', async () => {
  const sign = (claims: Record<string, unknown>, expires: string, key = secret): Promise<string> =>
    new SignJWT({ sub: 'ada', ...claims })
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuedAt()
      .setExpirationTime(expires)
      .sign(new TextEncoder().encode(key))
  const tokens = [
    await sign({ nonce: 'good' }, '1h'),
    await sign({ nonce: 'expired' }, '-1h'),
    await sign({ nonce: 'forged' }, '1h', 'another-key-0123456789-abcdefghijk'),
    'opaque-Zq8sWx0plantedKr5mVd9canary7Ht4Ns1Jf6Ya3EbUc',
    'eyJhbGciOiJub25lIn0.eyJzdWIiOiJwbGFudGVkLWNhbmFyeSJ9.',
  ]
  const paths = [
    '/bearer /cookie /query /claims /limited /limited /nobody /fixed /moved /files/none',
    '/garbage /cut /closes /plain /none//x /none%2f',
  ].flatMap((some) => some.split(' '))
  const bodies: string[] = []
  for (const token of tokens)
    for (const path of paths) {
      const fields = `Host: a.example\r\nAuthorization: Bearer ${token}\r\nCookie: session=${token}\r\n`
      const target = `${path}?token=${token}&access_token=${token}&x=${token}`
      for (const bytes of [
        `GET ${target} HTTP/1.1\r\n${fields}\r\n`,
        `DELETE ${target} HTTP/1.1\r\n${fields}Content-Length: 9000000\r\n\r\n`,
        `GET ${target} HTTP/1.1\r\n${fields}X_User_Id: ${token}\r\n\r\n`,
        `GET ${target} HTTP/1.1\r\n${fields}Transfer-Encoding: ${token}\r\n\r\n`,
        `GET ${target} HTTP/1.1\r\n${fields}Expect: ${token}\r\n\r\n`,
        `GET ${target} HTTP/1.1\r\n${fields}Bad Field: ${token}\r\n\r\n`,
        `GET ${target} HTTP/1.1\r\nAuthorization: Basic ${token}\r\nHost: nobody.example\r\n\r\n`,
      ]) {
        const answer = await ask(gateway.port, bytes).catch(() => undefined)
        if (answer && !answer.fields.some(([name, value]) => name === 'Location' && value !== '/fixed'))
          bodies.push(answer.body, ...answer.fields.flat())
      }
    }
  bodies.push((await ask(gateway.port, `GET /silent?token=${tokens[0]} HTTP/1.1\r\nHost: a.example\r\n\r\n`)).body)
  // Some leave in the middle.
  for (const token of tokens) {
    const client = await connectRaw(gateway.port)
    client.send(`GET /silent?token=${token} HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer ${token}\r\n\r\n`)
    setTimeout(() => client.socket.resetAndDestroy(), 20)
    await client.closed
  }
  await gateway.settled()

  expect(gateway.log().length).toBeGreaterThan(500)
  const written = [...gateway.output().split('\n'), ...(await gateway.metrics()).split('\n'), ...bodies]
  // Nor is a token's signature there by itself.
  const planted = [secret, ...tokens, ...tokens.map((token) => token.split('.')[2] ?? '')].filter((text) => text !== '')
  expect(written.filter((line) => planted.some((text) => line.includes(text)))).toEqual([])
  expect(gateway.output()).toContain('[redacted]')
})
