import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { limits } from '../limits.ts'

/** What was seen of a connection at the last look. */
interface Look {
  readSince: number
  bytesRead: number
  writtenSince: number
  bytesWritten: number
}

/**
 * Cuts off connections whose client sends a body slower than `bodyBytesPerSecondMin` or takes nothing of its answer for
 * `clientStallMs`. One timer looks at all open requests; nothing is paid per chunk.
 */
export function watchProgress(server: Server, now: () => number = () => performance.now()): void {
  const open = new Map<IncomingMessage, ServerResponse>()
  const looks = new WeakMap<Socket, Look>()
  const remember = (request: IncomingMessage, response: ServerResponse): void => {
    open.set(request, response)
    response.once('close', () => open.delete(request))
  }
  server.on('request', remember)
  server.on('checkContinue', remember)

  const timer = setInterval(() => {
    const at = now()
    for (const [request, response] of open) if (isStuck(request, response, looks, at)) request.socket.destroy()
  }, lookEveryMs).unref()
  server.on('close', () => clearInterval(timer))
}

const lookEveryMs = 2_000

function isStuck(
  request: IncomingMessage,
  response: ServerResponse,
  looks: WeakMap<Socket, Look>,
  at: number,
): boolean {
  const { socket } = request
  const look = looks.get(socket) ?? {
    readSince: at,
    bytesRead: socket.bytesRead,
    writtenSince: at,
    bytesWritten: socket.bytesWritten,
  }
  looks.set(socket, look)
  return isSlowBody(request, socket, look, at) || isStalledReader(response, socket, look, at)
}

/** Only when the client is waited for: a body that we ourselves do not read is not its fault. */
function isSlowBody(request: IncomingMessage, socket: Socket, look: Look, at: number): boolean {
  if (request.complete || request.isPaused() || request.readableLength > 0 || request.readableFlowing === null) {
    look.readSince = at
    look.bytesRead = socket.bytesRead
    return false
  }
  if (at - look.readSince < limits.bodyRateWindowMs) return false
  const rate = ((socket.bytesRead - look.bytesRead) * 1_000) / (at - look.readSince)
  look.readSince = at
  look.bytesRead = socket.bytesRead
  return rate < limits.bodyBytesPerSecondMin
}

function isStalledReader(response: ServerResponse, socket: Socket, look: Look, at: number): boolean {
  // What the kernel has taken is bytesWritten less what still waits in the process.
  const taken = socket.bytesWritten - socket.writableLength
  if (response.writableLength + socket.writableLength === 0 || taken !== look.bytesWritten) {
    look.writtenSince = at
    look.bytesWritten = taken
    return false
  }
  return at - look.writtenSince >= limits.clientStallMs
}
