import { close, read } from 'node:fs'
import type { NodeResponse } from './exchange-io.ts'

/** Part of an open file. */
export interface FilePart {
  descriptor: number
  start: number
  length: number
}

/**
 * Sends part of an open file as the body, as fast as the client takes it, and closes the file. Each chunk is read when
 * the last one is with the system, into the same memory: streams would take new memory for each and keep two. Calls
 * back with what was sent; `isShort` when the file is shorter than it was, or cannot be read any more.
 */
export function sendOpenFile(
  { descriptor, start, length }: FilePart,
  response: NodeResponse,
  done: (sent: number, isShort: boolean) => void,
): void {
  const memory = free.pop() ?? Buffer.allocUnsafeSlow(chunkBytes)
  let sent = 0

  function next(): void {
    if (sent === length || response.destroyed) return end(false)
    read(descriptor, memory, 0, Math.min(chunkBytes, length - sent), start + sent, (error, bytes) => {
      if (error || bytes === 0 || response.destroyed) return end(!response.destroyed)
      response.write(memory.subarray(0, bytes), (failed) => {
        if (failed) return end(false)
        sent += bytes
        next()
      })
    })
  }

  function end(isShort: boolean): void {
    close(descriptor, () => {})
    // What was not sent may still be with a connection that is breaking off: that memory is not used again.
    if (sent === length && free.length < freeMax) free.push(memory)
    done(sent, isShort)
  }

  next()
}

const chunkBytes = 262_144
const freeMax = 16
const free: Buffer[] = []
