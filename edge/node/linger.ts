import type { Duplex } from 'node:stream'
import { limits } from '../limits.ts'
import type { NodeRequest } from './exchange-io.ts'

/**
 * Has the connection closed gently once the answer is sent, because the client may still be sending its body. Closing
 * at once would reset the connection, and the client could lose the answer (RFC 9112 §9.6).
 */
export function lingerOnClose(request: NodeRequest): void {
  // A stream is closed without its connection (RFC 9113 §8.1).
  if (request.httpVersion === '2.0') return
  const { socket } = request
  socket.destroySoon = () => {
    request.unpipe()
    request.resume()
    closeGently(socket)
  }
}

/**
 * Says that nothing more will come, and throws away what the client still sends: until it closes, or sends nothing for
 * `lingerIdleMs`, but at most `lingerMs`. Somebody must be reading from the connection.
 */
export function closeGently(socket: Duplex & { bytesRead?: number }, last?: string): void {
  socket.end(last)
  let seen = socket.bytesRead
  let left = limits.lingerMs
  const timer = setInterval(() => {
    left -= limits.lingerIdleMs
    if (left <= 0 || socket.bytesRead === seen) socket.destroy()
    seen = socket.bytesRead
  }, limits.lingerIdleMs)
  socket.once('end', () => socket.destroy())
  socket.once('close', () => clearInterval(timer))
}
