import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { startFaultProxy } from './fault-proxy.ts'
import type { FaultProxy } from './fault-proxy.ts'
import { connectRaw } from './raw-client.ts'
import type { RawClient } from './raw-client.ts'

let server: Server
let proxy: FaultProxy
/** The server's side of the connections, with what was heard on each. */
let served: { socket: Socket; heard: Buffer[]; ended: boolean; closed: Promise<string> }[]
const clients: RawClient[] = []

beforeEach(async () => {
  served = []
  server = createServer({ allowHalfOpen: true }, (socket) => {
    let how = 'end'
    const closed = new Promise<string>((resolve) => socket.once('close', () => resolve(how)))
    const entry = { socket, heard: [] as Buffer[], ended: false, closed }
    served.push(entry)
    socket.on('error', (error: NodeJS.ErrnoException) => (how = error.code ?? error.name))
    socket.on('data', (bytes: Buffer) => entry.heard.push(bytes))
    socket.on('end', () => (entry.ended = true))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  proxy = await startFaultProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy()
  await proxy.close()
  server.close()
})

async function open(): Promise<{ client: RawClient; at: number }> {
  const client = await connectRaw(proxy.port, { allowHalfOpen: true })
  clients.push(client)
  const at = served.length
  client.send('hello')
  await until(() => heard(at) === 'hello')
  return { client, at }
}

const heard = (at: number): string => Buffer.concat(served[at]?.heard ?? []).toString()

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 2))
}

it('passes bytes and ends on both ways', async () => {
  const { client, at } = await open()
  served[at]?.socket.write('and hello')
  expect(await client.readUntil('and hello')).toBe('and hello')
  client.socket.end('bye')
  await until(() => served[at]?.ended === true)
  expect(heard(at)).toBe('hellobye')
  served[at]?.socket.end('and bye')
  expect(await client.closed).toBe('end')
  expect(client.text()).toBe('and helloand bye')
  await until(() => proxy.open() === 0)
})

it('delays with latency and jitter, in order, without a bound on what is under way', async () => {
  const { client, at } = await open()
  Object.assign(proxy.toServer, { latencyMs: 100, jitterMs: 50 })
  const from = performance.now()
  const words = Array.from({ length: 20 }, (_, index) => `word ${index};`)
  for (const word of words) {
    client.send(word)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  await until(() => heard(at) === `hello${words.join('')}`)
  const took = performance.now() - from
  expect(took).toBeGreaterThan(100)
  // One after the other they would take 2,000 ms at the least.
  expect(took).toBeLessThan(2_000)
})

it('lets no more bytes through than the bandwidth has', async () => {
  const { client, at } = await open()
  proxy.toClient.bytesPerSecond = 100_000
  const from = performance.now()
  served[at]?.socket.write(Buffer.alloc(40_000, 'x'))
  await until(() => client.text().length === 40_000)
  // What a tenth of a second has may come at once.
  expect(performance.now() - from).toBeGreaterThan(250)
})

it('slices into writes of n bytes', async () => {
  const { client, at } = await open()
  proxy.toServer.sliceBytes = 2
  client.send('abcdefg')
  await until(() => heard(at) === 'helloabcdefg')
  const slices = served[at]?.heard.slice(1).map(String)
  expect(slices?.every(({ length }) => length <= 2)).toBe(true)
})

it('cuts after n bytes: both sides are reset, and no byte more has passed', async () => {
  const { client, at } = await open()
  proxy.toClient.cutAfterBytes = 10
  served[at]?.socket.write('123456')
  await client.readUntil('123456')
  served[at]?.socket.write('789abcdef')
  expect(await client.closed).toBe('ECONNRESET')
  expect(client.text()).toBe('123456789a')
  expect(await served[at]?.closed).toBe('ECONNRESET')
})

it('resets both sides when it is told to', async () => {
  const { client, at } = await open()
  proxy.reset()
  expect(await client.closed).toBe('ECONNRESET')
  expect(await served[at]?.closed).toBe('ECONNRESET')
})

it('closes one direction and leaves the other open', async () => {
  const { client, at } = await open()
  proxy.halfClose('server')
  await until(() => served[at]?.ended === true)
  served[at]?.socket.write('still here')
  expect(await client.readUntil('still here')).toBe('still here')
})

it('is a black hole for bytes and ends until it is lifted', async () => {
  const { client, at } = await open()
  proxy.toServer.blackHole = true
  client.socket.end('lost?')
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(heard(at)).toBe('hello')
  expect(served[at]?.ended).toBe(false)
  proxy.toServer.blackHole = false
  await until(() => served[at]?.ended === true)
  expect(heard(at)).toBe('hellolost?')
})

it('tells nobody of a reset through a black hole', async () => {
  const { client, at } = await open()
  proxy.toServer.blackHole = true
  client.socket.resetAndDestroy()
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(served[at]?.socket.destroyed).toBe(false)
})

it('refuses new connections before the server hears of them', async () => {
  proxy.refuses = true
  // On loopback the reset may be faster than the word that the connection is there.
  const how = await connectRaw(proxy.port).then(
    ({ closed }) => closed,
    (error: NodeJS.ErrnoException) => error.code,
  )
  expect(how).toBe('ECONNRESET')
  expect(served).toEqual([])
})

it('tells one side that the other has broken off', async () => {
  const { client, at } = await open()
  client.socket.resetAndDestroy()
  expect(await served[at]?.closed).toBe('ECONNRESET')
})
