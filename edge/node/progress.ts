import { limits } from '../limits.ts'
import type { NodeIo, NodeRequest, NodeResponse } from './exchange-io.ts'

/** Cuts off clients that send a body slower than `bodyBytesPerSecondMin` or take nothing of an answer for `clientStallMs`. */
export interface ProgressWatch {
  /** Watches a connection or a stream, with the request that is being served on it, until it is closed. */
  add(socket: Meter, connection: { readonly current: NodeIo | undefined }): void
  /** Looks at all of them at once, so that nothing is paid per request or chunk. */
  look(): void
}

/** What is seen of a connection, or of a stream on one. */
interface Meter {
  readonly bytesRead: number
  /** What waits to be sent included. */
  readonly bytesWritten: number
  readonly writableLength: number
  destroy(): unknown
  once(event: 'close', listener: () => void): unknown
}

export function createProgressWatch(now: () => number = () => performance.now()): ProgressWatch {
  const open = new Map<Meter, { connection: { readonly current: NodeIo | undefined }; look: Look | undefined }>()

  function add(socket: Meter, connection: { readonly current: NodeIo | undefined }): void {
    open.set(socket, { connection, look: undefined })
    socket.once('close', () => open.delete(socket))
  }

  function look(): void {
    const at = now()
    for (const [socket, entry] of open) {
      const io = entry.connection.current
      if (!io || io.response.destroyed || io.response.writableFinished) continue
      if (entry.look?.io !== io) entry.look = firstLook(io, socket, at)
      if (!isSlowBody(io.request, socket, entry.look, at) && !isStalledReader(io.response, socket, entry.look, at))
        continue
      io.stalled = true
      socket.destroy()
    }
  }

  return { add, look }
}

/** What was seen of a request at the last look. */
interface Look {
  io: NodeIo
  readSince: number
  bytesRead: number
  writtenSince: number
  bytesWritten: number
}

const firstLook = (io: NodeIo, { bytesRead, bytesWritten }: Meter, at: number): Look => ({
  io,
  readSince: at,
  bytesRead,
  writtenSince: at,
  bytesWritten,
})

/** Only when the client is waited for: a body that we ourselves do not read is not its fault. */
function isSlowBody(request: NodeRequest, socket: Meter, look: Look, at: number): boolean {
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

function isStalledReader(response: NodeResponse, socket: Meter, look: Look, at: number): boolean {
  // What the kernel has taken is bytesWritten less what still waits in the process.
  const taken = socket.bytesWritten - socket.writableLength
  if (response.writableLength + socket.writableLength === 0 || taken !== look.bytesWritten) {
    look.writtenSince = at
    look.bytesWritten = taken
    return false
  }
  return at - look.writtenSince >= limits.clientStallMs
}
