import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import type { Done } from './beside.ts'
import { host } from './work.ts'

/** The load over TLS, a process of its own. Every answer must be 200 and as long as it is said to be. */
export interface TlsOrder {
  port: number
  seconds: number
  path: string
  bodyLength: number
  /**
   * A connection with a full handshake for each request; the same with a session that is resumed; requests on
   * connections that are kept; requests of HTTP/2, twenty at a time on each connection.
   */
  mode: 'full' | 'resumed' | 'kept' | 'HTTP/2'
  /** How many work at once. */
  lanes: number
  /** The key exchange that is offered; all that OpenSSL has when absent, the hybrid with ML-KEM first. */
  group?: 'X25519'
}

process.on('message', (order: TlsOrder) => {
  void runTlsLoad(order).then((report) => process.send?.(report))
})
process.on('disconnect', () => process.exit())

async function runTlsLoad(order: TlsOrder): Promise<Done> {
  const done: Done = { units: 0, failed: 0 }
  const endsAt = performance.now() + order.seconds * 1_000
  const session = order.mode === 'resumed' ? await getSession(order) : undefined
  const lane = { full: connectAndAsk, resumed: connectAndAsk, kept: askAgain, 'HTTP/2': askMany }[order.mode]
  const run = async (): Promise<void> => {
    while (performance.now() < endsAt)
      await lane(order, { done, endsAt, session }).catch(() => {
        done.failed++
      })
  }
  await Promise.all(Array.from({ length: order.lanes }, run))
  return done
}

interface Under {
  done: Done
  endsAt: number
  session: Buffer | undefined
}

const tlsOptions = ({ port, group }: TlsOrder) => ({
  port,
  host: '127.0.0.1',
  servername: host,
  rejectUnauthorized: false,
  ALPNProtocols: ['http/1.1'],
  ...(group && { ecdhCurve: group }),
})

const toRequest = (path: string, fields = ''): string => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`

async function getSession(order: TlsOrder): Promise<Buffer> {
  const { path } = order
  const socket = connect(tlsOptions(order))
  socket.end(toRequest(path, 'Connection: close\r\n'))
  const [session] = (await once(socket, 'session')) as [Buffer]
  socket.destroy()
  return session
}

async function connectAndAsk(order: TlsOrder, { done, session }: Under): Promise<void> {
  const { path, bodyLength } = order
  const socket = connect({ ...tlsOptions(order), ...(session && { session }) })
  socket.write(toRequest(path, 'Connection: close\r\n'))
  const wasReused = once(socket, 'secureConnect').then(() => socket.isSessionReused())
  await readAnswer(socket, bodyLength)
  socket.destroy()
  if ((await wasReused) !== (session !== undefined)) throw new Error('not the handshake that was wanted')
  done.units++
}

async function askAgain(order: TlsOrder, { done, endsAt }: Under): Promise<void> {
  const { path, bodyLength } = order
  const socket = connect(tlsOptions(order))
  try {
    while (performance.now() < endsAt) {
      socket.write(toRequest(path))
      const isLast = await readAnswer(socket, bodyLength)
      done.units++
      if (isLast) return
    }
  } finally {
    socket.destroy()
  }
}

/** Whether the peer closes the connection behind it. */
function readAnswer(socket: TLSSocket, bodyLength: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0)
    const leave = (end: () => void): void => {
      socket.off('data', read).off('error', fail).off('close', fail)
      end()
    }
    const read = (chunk: Buffer): void => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const head = received.indexOf('\r\n\r\n')
      if (head === -1 || received.length < head + 4 + bodyLength) return
      const text = received.toString('latin1', 0, head)
      const ok = text.startsWith('HTTP/1.1 200') && received.length === head + 4 + bodyLength
      leave(() => (ok ? resolve(/\r\nconnection: close/i.test(text)) : reject(new Error(text))))
    }
    const fail = (): void => leave(() => reject(new Error('the connection broke')))
    socket.on('data', read).on('error', fail).on('close', fail)
  })
}

async function askMany({ port, path, bodyLength }: TlsOrder, { done, endsAt }: Under): Promise<void> {
  const session = connectHttp2(`https://${host}:${port}`, {
    host: '127.0.0.1',
    servername: host,
    rejectUnauthorized: false,
  } as object)
  session.on('error', () => {})
  const lane = async (): Promise<void> => {
    while (performance.now() < endsAt && !session.closed) {
      const stream = session.request({ ':path': path, ':authority': host })
      let length = 0
      stream.on('data', (chunk: Buffer) => void (length += chunk.length))
      const [fields] = (await once(stream, 'response')) as [Record<string, unknown>]
      await once(stream, 'end')
      if (fields[':status'] === 200 && length === bodyLength) done.units++
      else done.failed++
    }
  }
  // A peer that has answered enough on one connection refuses what was asked meanwhile.
  await Promise.allSettled(Array.from({ length: 20 }, lane))
  session.destroy()
}
