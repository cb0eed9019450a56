import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Server, ServerResponse } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { createCertificateFolder, issue } from '../support/certificates.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { connectRaw } from '../support/raw-client.ts'
import type { RawClient } from '../support/raw-client.ts'

/** A stop while all kinds of requests are open: each ends as it should, and nothing is cut that would have ended. */
const certificates = createCertificateFolder()
const held: ServerResponse[] = []
const streams: ServerResponse[] = []
let origin: Server
let uploaded = 0

beforeAll(async () => {
  certificates.put('drain.example', issue(['drain.example']))
  origin = createServer((request, response) => {
    if (request.url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n')
      return void streams.push(response)
    }
    if (request.method !== 'POST') return void held.push(response)
    request.on('data', (chunk: Buffer) => (uploaded += chunk.length))
    request.on('end', () => response.end(`${uploaded}`))
  })
  new WebSocketServer({ server: origin }).on('error', () => {})
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
})
afterAll(() => {
  origin.closeAllConnections()
  origin.close()
  certificates.clear()
})

const start = (drainMs: number): Promise<TestGateway> =>
  startTestGateway(
    {
      name: 'wire',
      upstreams: { origin: { servers: [`http://127.0.0.1:${(origin.address() as AddressInfo).port}`] } },
      sites: [
        {
          hosts: ['drain.example'],
          routes: [
            { path: '/quick', respond: { status: 200, body: 'quick' } },
            { path: '/*', proxy: { to: 'origin', websocket: true } },
          ],
        },
      ],
    },
    { drainMs, https: { host: '127.0.0.1', port: 0, certificates: certificates.path, development: false } },
  )

async function send(gateway: TestGateway, path: string, rest = '\r\n'): Promise<RawClient> {
  const client = await connectRaw(gateway.port)
  client.send(`${path} HTTP/1.1\r\nHost: drain.example\r\n${rest}`)
  return client
}

async function openSocket(gateway: TestGateway): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${gateway.port}/ws`, { headers: { Host: 'drain.example' } })
  await once(socket, 'open')
  return socket
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 5))
}

describe('a stop', () => {
  it('lets 100 requests, 20 streams and an upload end, answers who asks once more, and says goodbye to 20 WebSockets', async () => {
    const gateway = await start(20_000)
    const requests = await Promise.all(Array.from({ length: 100 }, () => send(gateway, 'GET /held')))
    const events = await Promise.all(Array.from({ length: 20 }, () => send(gateway, 'GET /events')))
    await Promise.all(events.map((client) => client.readUntil('data: 1')))
    const upload = await send(gateway, 'POST /upload', 'Content-Length: 10\r\n\r\n12345')
    const sockets = await Promise.all(Array.from({ length: 20 }, () => openSocket(gateway)))
    const codes = Promise.all(sockets.map(async (socket) => (await once(socket, 'close'))[0] as number))
    const idle = await send(gateway, 'GET /quick')
    await idle.read(1)
    await until(() => held.length === 100 && uploaded === 5)

    const stopped = gateway.stop()
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(503)
    // It does not know yet: its request is answered, and told that it was the last.
    idle.send('GET /quick HTTP/1.1\r\nHost: drain.example\r\n\r\n')
    const [, last] = await idle.read(2)
    expect(last?.status).toBe(200)
    expect(last?.fields).toContainEqual(['Connection', 'close'])
    expect(await idle.closed).toBe('end')
    upload.send('67890')
    for (const response of held.splice(0)) response.end('whole')
    for (const stream of streams.splice(0)) stream.end('data: last\n\n')
    expect(await upload.read(1)).toMatchObject([{ status: 200, body: '10', whole: true }])
    for (const client of requests) {
      expect(await client.read(1)).toMatchObject([{ status: 200, body: 'whole', whole: true }])
      expect(await client.closed).toBe('end')
    }
    for (const client of events) {
      expect(await client.read(1)).toMatchObject([{ status: 200, body: 'data: 1\n\ndata: last\n\n', whole: true }])
      expect(await client.closed).toBe('end')
    }
    expect(await codes).toEqual(sockets.map(() => 1_001))
    await stopped
  })

  it('cuts streams that do not end, visibly and without a reset, when the time is over', async () => {
    const gateway = await start(700)
    const events = await Promise.all(Array.from({ length: 20 }, () => send(gateway, 'GET /events')))
    await Promise.all(events.map((client) => client.readUntil('data: 1')))
    await gateway.stop()
    for (const client of events) {
      expect(await client.closed).toBe('end')
      expect(client.answers()).toMatchObject([{ status: 200, whole: false }])
    }
  })

  it('is announced to HTTP/2 connections, whose streams end', async () => {
    const gateway = await start(20_000)
    const session = connectHttp2(`https://127.0.0.1:${gateway.httpsPort}`, {
      servername: 'drain.example',
      rejectUnauthorized: false,
    })
    const stream = session.request({ ':path': '/held', ':authority': 'drain.example' })
    await until(() => held.length === 1)
    const last: number[] = []
    session.on('goaway', (_code: number, lastStream: number) => last.push(lastStream))
    const closed = once(session, 'close')
    const stopped = gateway.stop()
    await until(() => last.length > 0)
    expect(last[0]).toBe(2 ** 31 - 1)
    held.pop()?.end('whole')
    let body = ''
    for await (const chunk of stream) body += String(chunk)
    expect(body).toBe('whole')
    await closed
    await stopped
  })
})
