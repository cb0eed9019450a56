import { brotliCompress, constants, gzip, zstdCompress } from 'node:zlib'
import type { CompressCallback } from 'node:zlib'

interface Work {
  coding: 'br' | 'gzip' | 'zstd'
  body: Buffer
  done: (encoded: Buffer) => void
}

const waiting: Work[] = []
let busy = false

/** Compresses in a thread, one body at a time, so that a new build does not take all of the machine. */
export function compressLater(coding: Work['coding'], body: Buffer, done: Work['done']): void {
  waiting.push({ coding, body, done })
  if (!busy) next()
}

function next(): void {
  const work = waiting.shift()
  busy = work !== undefined
  if (!work) return
  // What cannot be compressed is sent as it is.
  const settle: CompressCallback = (error, encoded) => {
    if (!error) work.done(encoded)
    next()
  }
  if (work.coding === 'gzip') return gzip(work.body, { level: 9 }, settle)
  if (work.coding === 'zstd')
    return zstdCompress(work.body, { params: { [constants.ZSTD_c_compressionLevel]: 12 } }, settle)
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: 9,
    [constants.BROTLI_PARAM_SIZE_HINT]: work.body.length,
  }
  brotliCompress(work.body, { params }, settle)
}
