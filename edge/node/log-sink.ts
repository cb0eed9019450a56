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
  const capacity = shared ? pipeBytes : batchBytes
  /** Lines are made bytes at once: texts that wait would be copied by each collection of garbage. */
  let filling = createBatch(capacity)
  let spare: Batch | undefined
  const full: Batch[] = []
  let waiting = 0
  let dropped = 0
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> | undefined
  let ended = false
  stopBlocking(descriptor)

  function add(line: string): void {
    if (waiting > waitingMax) return void dropped++
    // A unit of UTF-16 takes at most three bytes of UTF-8.
    const most = line.length * 3
    if (filling.bytes.length - filling.used < most) writeOut(most)
    const written = filling.bytes.write(line, filling.used)
    filling.used += written
    filling.lines++
    waiting += written
    timer ??= setTimeout(onTimer, batchMs)
  }

  function onTimer(): void {
    timer = undefined
    writeOut(0)
  }

  /** Begins to write what there is; the next batch has room for so many bytes. */
  function writeOut(most: number): void {
    if (filling.lines > 0) full.push(filling)
    if (filling.lines > 0 || filling.bytes.length < most) {
      filling = spare && spare.bytes.length >= most ? spare : createBatch(Math.max(capacity, most))
      spare = undefined
    }
    if (full.length > 0) writing ??= writeFull()
  }

  async function writeFull(): Promise<void> {
    for (let batch = full.shift(); batch; batch = full.shift()) {
      const { bytes, used, lines } = batch
      waiting -= used
      await writeWhole(descriptor, bytes.subarray(0, used), () => ended).catch(() => {
        dropped += lines
      })
      batch.used = 0
      batch.lines = 0
      if (bytes.length === capacity) spare = batch
    }
    writing = undefined
  }

  return {
    write: add,
    dropped: () => dropped,
    flush: async () => {
      clearTimeout(timer)
      writeOut(0)
      await Promise.race([writing, new Promise((resolve) => setTimeout(resolve, flushMs).unref())])
      ended = true
    },
  }
}

/** Whole lines that are written together. */
interface Batch {
  bytes: Buffer
  used: number
  lines: number
}

const createBatch = (size: number): Batch => ({ bytes: Buffer.allocUnsafeSlow(size), used: 0, lines: 0 })

const batchMs = 50
const flushMs = 1_000
const batchBytes = 32_768
const waitingMax = 4_194_304
const pipeBytes = 4_096

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
