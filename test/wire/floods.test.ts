import { once } from 'node:events'
import { connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHttp2Connections } from '#edge/node/http2.ts'
import { createTlsListener } from '#edge/node/tls.ts'
import { limits } from '#edge/limits.ts'
import { authority, createCertificateFolder, issue } from '../support/certificates.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { frameTypes, openHttp2, toBlock, toFrame, toGet } from '../support/http2-frames.ts'
import { startOrigin } from '../support/origin.ts'
import type { Origin } from '../support/origin.ts'

let origin: Origin
let gateway: TestGateway
const certificates = createCertificateFolder()
const own = issue(['a.example'])

beforeAll(async () => {
  certificates.put('a.example', own)
  origin = await startOrigin()
  gateway = await startTestGateway(
    {
      name: 'wire',
      upstreams: { origin: { servers: [origin.url] } },
      sites: [
        {
          hosts: ['a.example'],
          routes: [
            { path: '/*', proxy: { to: 'origin' }, bodyBytesMax: 100_000_000 },
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

const { data, headers, priority, reset, settings, ping, windowUpdate, continuation } = frameTypes
const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
const nothing = Buffer.alloc(0)
const get = toBlock(toGet('a.example', '/wire/held?id=flood'))
const post = toBlock([[':method', 'POST'], ...toGet('a.example', '/wire/silent').slice(1)])
const fixed = toBlock(toGet('a.example', '/fixed'))
const ask = (n: number): Buffer => toFrame(headers, 5, n * 2 + 1, get)

interface Flood {
  first?: Buffer
  /** The frames of round `n`, counted from 0. */
  frames: (n: number) => Buffer
  /** Rounds after which it must be over. */
  rounds: number
}

const floods: Record<string, Flood> = {
  'rapid reset (CVE-2023-44487)': {
    frames: (n) => Buffer.concat([toFrame(headers, 5, n * 2 + 1, fixed), toFrame(reset, 0, n * 2 + 1, uint32(8))]),
    rounds: 4_000,
  },
  'MadeYouReset (CVE-2025-8671), by a window of 0': {
    frames: (n) => Buffer.concat([ask(n), toFrame(windowUpdate, 0, n * 2 + 1, uint32(0))]),
    rounds: 2_000,
  },
  'MadeYouReset, by too large a window': {
    frames: (n) => Buffer.concat([ask(n), toFrame(windowUpdate, 0, n * 2 + 1, uint32(0x7fffffff))]),
    rounds: 2_000,
  },
  'MadeYouReset, by DATA behind the end': {
    frames: (n) => Buffer.concat([ask(n), toFrame(data, 0, n * 2 + 1, Buffer.from('x'))]),
    rounds: 2_000,
  },
  'more streams than are allowed': { frames: ask, rounds: 2_000 },
  'CONTINUATION without end': {
    first: toFrame(headers, 1, 1, get),
    frames: () => toFrame(continuation, 0, 1, toBlock([['x-a', 'b']])),
    rounds: 2_000,
  },
  'empty CONTINUATION': {
    first: toFrame(headers, 1, 1, get),
    frames: () => toFrame(continuation, 0, 1, nothing),
    rounds: 2_000,
  },
  PING: { frames: () => toFrame(ping, 0, 0, Buffer.alloc(8)), rounds: 20_000 },
  'PING that acknowledges nothing': { frames: () => toFrame(ping, 1, 0, Buffer.alloc(8)), rounds: 2_000 },
  SETTINGS: { frames: () => toFrame(settings, 0, 0, nothing), rounds: 20_000 },
  'SETTINGS that acknowledge nothing': { frames: () => toFrame(settings, 1, 0, nothing), rounds: 2_000 },
  'empty DATA': { first: toFrame(headers, 4, 1, post), frames: () => toFrame(data, 0, 1, nothing), rounds: 2_000 },
  'PRIORITY churn': {
    frames: (n) => toFrame(priority, 0, (n % 1_000) * 2 + 1, Buffer.from([0, 0, 0, 0, 16])),
    rounds: 40_000,
  },
  'frames of no known type': { frames: () => toFrame(0xbb, 0, 0, nothing), rounds: 40_000 },
}

/** What only looking at a connection finds (`progressLookMs`). */
const slowFloods: Record<string, Flood> = {
  'DATA of padding': {
    first: toFrame(headers, 4, 1, post),
    frames: () => toFrame(data, 8, 1, Buffer.concat([Buffer.from([250]), Buffer.alloc(250)])),
    rounds: 1_000_000,
  },
  WINDOW_UPDATE: { frames: () => toFrame(windowUpdate, 0, 0, uint32(1)), rounds: 10_000_000 },
}

/** Sends until the connection is closed; true when it was. */
async function runFlood({ first = nothing, frames, rounds }: Flood): Promise<boolean> {
  const socket: TLSSocket = await openHttp2(gateway.httpsPort, 'a.example')
  const closed = new Promise<void>((resolve) => {
    socket.once('close', resolve)
    socket.once('end', resolve)
  })
  const isOver = (): boolean => socket.destroyed || socket.readableEnded
  socket.resume().write(first)
  for (let n = 0; n < rounds && !isOver(); n += 100) {
    const batch = Array.from({ length: 100 }, (_, at) => frames(n + at))
    if (!socket.write(Buffer.concat(batch)))
      await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed])
    await new Promise(setImmediate)
  }
  // What was sent last may not have been read yet.
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 3_000).unref())])
  const over = isOver()
  socket.destroy()
  return over
}

/** A neighbour with a connection of its own; how many of its requests were answered. */
async function countNeighbour(running: Promise<unknown>): Promise<{ asked: number; answered: number }> {
  const session = connect(`https://a.example:${gateway.httpsPort}`, {
    createConnection: () =>
      connectTls({
        port: gateway.httpsPort,
        host: '127.0.0.1',
        servername: 'a.example',
        ca: authority,
        ALPNProtocols: ['h2'],
      }),
  })
  const count = { asked: 0, answered: 0 }
  const state = { over: false }
  void running.then(() => (state.over = true))
  while (!state.over) {
    count.asked++
    const stream = session.request({ ':path': '/fixed' })
    const [fields] = (await once(stream, 'response')) as [{ ':status'?: number }]
    stream.resume()
    await once(stream, 'close')
    if (fields[':status'] === 200) count.answered++
  }
  session.destroy()
  return count
}

describe('floods of frames end the connection, and nobody else suffers', () => {
  it.each(Object.entries(floods))('%s', async (_, flood) => {
    const running = runFlood(flood)
    const { asked, answered } = await countNeighbour(running)
    expect(await running).toBe(true)
    expect(answered).toBe(asked)
    await gateway.settled()
  })

  it('frames that carry nothing, of whatever kind', async () => {
    const running = Promise.all(Object.values(slowFloods).map(runFlood))
    const { asked, answered } = await countNeighbour(running)
    expect(await running).toEqual(Object.values(slowFloods).map(() => true))
    expect(answered).toBe(asked)
    await gateway.settled()
  })

  it('an HPACK bomb: fields that grow a thousandfold are not unpacked', async () => {
    const socket = await openHttp2(gateway.httpsPort, 'a.example')
    const large = Buffer.concat([Buffer.from([0x40]), toBlock([['x', 'y'.repeat(3_900)]]).subarray(1)])
    const block = Buffer.concat([get, large, Buffer.alloc(10_000, 0xbe)])
    const before = process.memoryUsage().rss
    for (let n = 0; n < 20; n++) socket.write(toFrame(headers, 5, n * 2 + 1, block))
    const [answer] = (await once(socket, 'data')) as [Buffer]
    expect(answer.length).toBeGreaterThan(0)
    await gateway.settled()
    expect(process.memoryUsage().rss - before).toBeLessThan(100_000_000)
    socket.destroy()
  })

  it('leave a client alone that takes a large answer in small steps, and one that sends a large body', async () => {
    const session = connect(`https://a.example:${gateway.httpsPort}`, {
      settings: { initialWindowSize: 4_096 },
      createConnection: () =>
        connectTls({
          port: gateway.httpsPort,
          host: '127.0.0.1',
          servername: 'a.example',
          ca: authority,
          ALPNProtocols: ['h2'],
        }),
    })
    const read = async (path: string, body?: Buffer): Promise<number> => {
      const stream = session.request({ ':path': path, ':method': body ? 'POST' : 'GET' }, { endStream: !body })
      if (body) stream.end(body)
      let bytes = 0
      for await (const chunk of stream) bytes += (chunk as Buffer).length
      return bytes
    }
    const from = performance.now()
    // Longer than it takes to look at the connection.
    while (performance.now() - from < 2_500) {
      expect(await read('/wire/large')).toBe(5_000_000)
      expect(await read('/wire/upload?id=flood-upload', Buffer.alloc(5_000_000))).toBeGreaterThan(0)
    }
    session.destroy()
  })
})

describe('a window of 0', () => {
  it('holds an answer back for a while, then costs its stream', async () => {
    let time = 0
    const connections = createHttp2Connections(
      (_, { response }) => {
        response.writeHead(200, [])
        response.write(Buffer.alloc(200_000))
      },
      () => time,
    )
    const listener = createTlsListener({
      contextFor: () => ({ cert: own.certificate, key: own.key }),
      http1: (socket) => socket.destroy(),
      http2: connections.open,
    })
    listener.server.listen(0, '127.0.0.1')
    await once(listener.server, 'listening')
    const { port } = listener.server.address() as AddressInfo
    const socket = await openHttp2(port, 'a.example')
    // SETTINGS_INITIAL_WINDOW_SIZE
    socket.write(toFrame(settings, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])))
    socket.write(toFrame(headers, 5, 1, fixed))
    const frames: Buffer[] = []
    socket.on('data', (bytes: Buffer) => frames.push(bytes))
    await until(() => Buffer.concat(frames).length > 60)
    // Seen once, and once again when its time is over.
    await new Promise((resolve) => setTimeout(resolve, limits.progressLookMs + 200))
    time += limits.clientStallMs
    // RST_STREAM of stream 1: INTERNAL_ERROR
    await until(() => Buffer.concat(frames).includes(toFrame(reset, 0, 1, uint32(2))))
    socket.destroy()
    connections.destroy()
    connections.close()
    listener.server.close()
  })
})

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 5))
}
