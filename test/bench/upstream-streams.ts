import { createHash } from 'node:crypto'
import { createServer } from 'node:net'
import type { Socket } from 'node:net'

/**
 * The upstream of streams: `/events` gets an event every 10 ms, `/first` one at once, a WebSocket an answer to each of
 * its messages, and an upload is read at the pace that its path says (`/slow/<bytes per second>`).
 */
const event = `data: {"id":42,"text":"${'x'.repeat(40)}"}\n\n`
const chunk = `${event.length.toString(16)}\r\n${event}\r\n`
const eventsHead =
  'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n'
/** A text message of 64 bytes, unmasked (RFC 6455 §5.2). */
const message = Buffer.concat([Buffer.from([0x81, 64]), Buffer.alloc(64, 'x')])

const listening = new Set<Socket>()
setInterval(() => {
  for (const socket of listening) socket.write(chunk, 'latin1')
}, 10)

const server = createServer({ noDelay: true }, (socket) => {
  let head = ''
  socket.on('error', () => socket.destroy())
  socket.on('close', () => listening.delete(socket))
  socket.on('data', function readHead(bytes: Buffer) {
    head += bytes.toString('latin1')
    const end = head.indexOf('\r\n\r\n')
    if (end === -1) return
    const [, path = ''] = head.split(' ', 2)
    const body = head.length - end - 4
    const key = /^sec-websocket-key: *(\S+)/im.exec(head)?.[1]
    const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)
    head = ''
    if (path.startsWith('/slow/')) {
      socket.off('data', readHead)
      takeSlowly(socket, length - body, Number(path.slice(6)))
    } else if (key !== undefined) {
      socket.off('data', readHead)
      talk(socket, key)
    } else if (path === '/events') {
      socket.write(eventsHead)
      listening.add(socket)
    } else socket.write(`${eventsHead}${chunk}0\r\n\r\n`, 'latin1')
  })
})
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 1_024 })

function talk(socket: Socket, key: string): void {
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  )
  socket.on('data', () => socket.write(message))
}

/** Reads no more than so many bytes a second, a twentieth of it at a time. */
function takeSlowly(socket: Socket, length: number, perSecond: number): void {
  let left = length
  let allowed = 0
  const timer = setInterval(() => {
    allowed = perSecond / 20
    socket.resume()
  }, 50)
  socket.on('close', () => clearInterval(timer))
  socket.on('data', (bytes) => {
    left -= bytes.length
    allowed -= bytes.length
    if (allowed <= 0) socket.pause()
    if (left > 0) return
    clearInterval(timer)
    socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
  })
  socket.resume()
}
