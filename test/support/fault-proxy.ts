import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

/** What happens to the bytes of one direction; a test may change it while they flow. */
interface Faults {
  /** Each byte arrives this much later; no bound on how many are under way. Default 0. */
  latencyMs: number
  /** Up to this much later still, by chance, and never out of order. Default 0. */
  jitterMs: number
  /** No more than this. Default: no bound. */
  bytesPerSecond: number
  /** Every write has at most so many bytes and goes out on its own. Default: as they came. */
  sliceBytes: number
  /** After so many bytes of a connection both sides are reset. Default: never. */
  cutAfterBytes: number
  /** Nothing arrives, neither bytes nor an end, and nobody is told; what waits arrives when it is lifted. */
  blackHole: boolean
}

/** A TCP proxy in front of a server of a test, which treats its connections as a bad network would. */
export interface FaultProxy {
  port: number
  /** 'http://127.0.0.1:…' */
  url: string
  /** From clients to the server. */
  readonly toServer: Faults
  /** From the server to clients. */
  readonly toClient: Faults
  /** New connections are reset as soon as they are there, and the server hears nothing of them. Default false. */
  refuses: boolean
  /** Connections that are open. */
  open(): number
  /** Connections there ever were. */
  opened(): number
  /** Breaks all connections off: both sides get a reset. */
  reset(): void
  /** Says to one side of all connections that nothing more will come; the other direction stays open. */
  halfClose(side: 'client' | 'server'): void
  close(): Promise<void>
}

/** Passes everything on as it is. */
export const noFaults = (): Faults => ({
  latencyMs: 0,
  jitterMs: 0,
  bytesPerSecond: Infinity,
  sliceBytes: Infinity,
  cutAfterBytes: Infinity,
  blackHole: false,
})

export async function startFaultProxy(serverUrl: string): Promise<FaultProxy> {
  const { hostname, port: serverPort } = new URL(serverUrl)
  const pairs = new Set<{ client: Socket; server: Socket }>()
  let opened = 0

  const listener = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    opened++
    client.on('error', () => {})
    if (proxy.refuses) return void client.resetAndDestroy()
    const server = connect({ host: hostname, port: Number(serverPort), allowHalfOpen: true, noDelay: true })
    server.on('error', () => {})
    const pair = { client, server }
    pairs.add(pair)
    pump(client, server, proxy.toServer)
    pump(server, client, proxy.toClient)
    const leave = (): void => void (client.closed && server.closed && pairs.delete(pair))
    client.once('close', leave)
    server.once('close', leave)
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo

  const proxy: FaultProxy = {
    port,
    url: `http://127.0.0.1:${port}`,
    toServer: noFaults(),
    toClient: noFaults(),
    refuses: false,
    open: () => pairs.size,
    opened: () => opened,
    reset: () => {
      for (const { client, server } of pairs) resetBoth(client, server)
    },
    halfClose: (side) => {
      for (const pair of pairs) pair[side].end()
    },
    close: async () => {
      for (const { client, server } of pairs) resetBoth(client, server)
      listener.close()
      await once(listener, 'close')
    },
  }
  return proxy
}

function resetBoth(client: Socket, server: Socket): void {
  client.resetAndDestroy()
  server.resetAndDestroy()
}

/** Bytes under way in one direction of one connection; above it the sender has to wait. */
const underWayMax = 1_048_576
const lookMs = 2

function pump(from: Socket, to: Socket, faults: Faults): void {
  const underWay: { bytes: Buffer; at: number }[] = []
  let size = 0
  let passed = 0
  let freeAt = 0
  let last = 0
  let ended = false
  let timer: NodeJS.Timeout | undefined

  from.on('data', (bytes: Buffer) => {
    // Behind what came before it, whatever chance says.
    last = Math.max(last, performance.now() + faults.latencyMs + Math.random() * faults.jitterMs)
    underWay.push({ bytes, at: last })
    size += bytes.length
    send()
  })
  from.once('end', () => {
    ended = true
    send()
  })
  // Whoever breaks off is told on, unless nothing gets through.
  from.once('close', () => {
    clearTimeout(timer)
    if (from.errored && !faults.blackHole) to.resetAndDestroy()
    else if (!ended && !faults.blackHole) to.destroy()
    else if (ended) send()
  })
  to.on('drain', send)

  function send(): void {
    clearTimeout(timer)
    while (!to.destroyed && !faults.blackHole) {
      const first = underWay[0]
      if (!first) break
      const now = performance.now()
      if (now < Math.max(first.at, freeAt) || to.writableNeedDrain) break
      const bytes = first.bytes.subarray(0, Math.min(faults.sliceBytes, Math.max(1, faults.bytesPerSecond / 100)))
      freeAt = Math.max(freeAt, now - 100) + (bytes.length * 1_000) / faults.bytesPerSecond
      const left = faults.cutAfterBytes - passed
      passed += bytes.length
      size -= bytes.length
      if (bytes.length < first.bytes.length) first.bytes = first.bytes.subarray(bytes.length)
      else underWay.shift()
      if (bytes.length < left) to.write(bytes)
      else return void to.write(bytes.subarray(0, left), () => resetBoth(from, to))
      // One slice, one packet: the kernel must not join it with the next.
      if (faults.sliceBytes !== Infinity) freeAt = Math.max(freeAt, now + lookMs)
    }
    if (to.destroyed) return
    if (underWay.length === 0 && ended && !faults.blackHole) return void to.end()
    if (size > underWayMax || faults.blackHole) from.pause()
    else if (from.isPaused()) from.resume()
    if (underWay.length > 0 || faults.blackHole) timer = setTimeout(send, lookMs).unref()
  }
  send()
}
