import { write } from 'node:fs'

/** Takes lines and writes them together. A slow reader costs lines, never a request. */
export interface LogSink {
  write(line: string): void
  /** Lines that were dropped because the reader was too slow. */
  dropped(): number
  /** Resolves when all is written or cannot be, at the latest after a second. */
  flush(): Promise<void>
}

/** `descriptor` is a file descriptor such as 1 (standard output). */
export function createLogSink(descriptor: number): LogSink {
  let waiting: string[] = []
  let waitingLength = 0
  let dropped = 0
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> | undefined

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
      await writeWhole(descriptor, Buffer.from(lines.join(''))).catch(() => {
        dropped += lines.length
      })
    }
  }

  return {
    write: add,
    dropped: () => dropped,
    flush: async () => {
      start()
      await Promise.race([writing, new Promise((resolve) => setTimeout(resolve, flushMs).unref())])
    },
  }
}

const batchMs = 50
const flushMs = 1_000
const batchLength = 32_768
const waitingMax = 4_194_304

async function writeWhole(descriptor: number, batch: Buffer): Promise<void> {
  let from = 0
  while (from < batch.length) from += await writeSome(descriptor, batch, from)
}

const writeSome = (descriptor: number, batch: Buffer, from: number): Promise<number> =>
  new Promise((resolve, reject) => {
    write(descriptor, batch, from, (error, written) => {
      if (!error) resolve(written)
      // A pipe whose reader is behind: look again soon.
      else if (error.code === 'EAGAIN') setTimeout(() => resolve(0), 10)
      else reject(error)
    })
  })
