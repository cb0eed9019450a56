import { once } from 'node:events'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { authority } from './certificates.ts'

/** Frames of HTTP/2 as a test writes them, well-formed or not (RFC 9113 §4.1). */
export const frameTypes = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

export function toFrame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** Fields in HPACK's plainest form: literals that nobody remembers (RFC 7541 §6.2.2). */
export const toBlock = (fields: [string, string][]): Buffer =>
  Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), toText(name), toText(value)]))

/** HPACK (RFC 7541 §5): a length in seven bits, and the bytes. */
function toText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes])
  const digits = [127]
  let left = bytes.length - 127
  for (; left >= 128; left >>= 7) digits.push((left & 127) | 128)
  return Buffer.concat([Buffer.from([...digits, left]), bytes])
}

/** A connection that has said the preface and its settings. */
export async function openHttp2(port: number, servername: string): Promise<TLSSocket> {
  const socket = connect({ port, host: '127.0.0.1', servername, ca: authority, ALPNProtocols: ['h2'] })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  socket.write(preface)
  socket.write(toFrame(frameTypes.settings, 0, 0, Buffer.alloc(0)))
  return socket
}

/** Fields of a GET for a path. */
export const toGet = (host: string, path: string): [string, string][] => [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':authority', host],
  [':path', path],
]
