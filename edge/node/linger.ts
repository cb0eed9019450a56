import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { limits } from '../limits.ts'

/**
 * Has the connection closed gently once the answer is sent, because the client may still be sending its body. Closing
 * at once would reset the connection, and the client could lose the answer (RFC 9112 §9.6).
 */
export function lingerOnClose(request: IncomingMessage): void {
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
