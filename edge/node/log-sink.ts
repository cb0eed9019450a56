import { fstatSync, write } from 'node:fs'
import { Socket } from 'node:net'

/** Takes lines and writes them together. A slow reader costs lines, never a request. */
export interface LogSink {
  write(line: string): void
  /** Lines that were dropped because the reader was too slow. */
  dropped(): number
  /** Resolves when all is written or cannot be, at the latest after a second. */
  flush(): Promise<void>
}

/**
 * `descriptor` is a file descriptor such as 1 (standard output). What is `shared` with other processes gets no more than
 * a pipe takes at once (PIPE_BUF), so that no line is torn by another one.
 */
export function createLogSink(descriptor: number, { shared = false } = {}): LogSink {
  let waiting: string[] = []
  let waitingLength = 0
  let dropped = 0
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> | undefined
  let ended = false
  stopBlocking(descriptor)

  function add(line: string): void {
    if (waitingLength > waitingMax) return void dropped++
    waiting.push(line)
    waitingLength += line.length
    if (waitingLength > batchLength) start()
    else timer ??= setTimeout(start, batchMs)
  }

  function start(): void {
    clearTimeout(timer)
    timer = undefined
    writing ??= writeAll().finally(() => {
      writing = undefined
    })
  }

  async function writeAll(): Promise<void> {
    while (waiting.length > 0) {
      const lines = waiting
      waiting = []
      waitingLength = 0
      for (const batch of shared ? toPipeBatches(lines) : [lines])
        await writeWhole(descriptor, Buffer.from(batch.join('')), () => ended).catch(() => {
          dropped += batch.length
        })
    }
  }

  return {
    write: add,
    dropped: () => dropped,
    flush: async () => {
      start()
      await Promise.race([writing, new Promise((resolve) => setTimeout(resolve, flushMs).unref())])
      ended = true
    },
  }
}

const batchMs = 50
const flushMs = 1_000
const batchLength = 32_768
const waitingMax = 4_194_304

const pipeBytes = 4_096

function toPipeBatches(lines: string[]): string[][] {
  const batches: string[][] = []
  let room = 0
  for (const line of lines) {
    const bytes = Buffer.byteLength(line)
    if (bytes > room) {
      batches.push([])
      room = pipeBytes
    }
    batches.at(-1)?.push(line)
    room -= bytes
  }
  return batches
}

/** A write to a full pipe would hold a thread, and with it the end of the process. As a socket it returns at once. */
function stopBlocking(descriptor: number): void {
  try {
    const kind = fstatSync(descriptor)
    if (kind.isFIFO() || kind.isSocket()) new Socket({ fd: descriptor, readable: false }).unref()
  } catch {
    // Not open: the first write says so.
  }
}

async function writeWhole(descriptor: number, batch: Buffer, isEnded: () => boolean): Promise<void> {
  let from = 0
  while (from < batch.length) from += await writeSome(descriptor, batch.subarray(from), isEnded)
}

const writeSome = (descriptor: number, bytes: Buffer, isEnded: () => boolean): Promise<number> =>
  new Promise((resolve, reject) => {
    write(descriptor, bytes, (error, written) => {
      if (!error) resolve(written)
      // A pipe whose reader is behind: look again soon.
      else if (error.code === 'EAGAIN' && !isEnded()) setTimeout(() => resolve(0), 10)
      else reject(error)
    })
  })
