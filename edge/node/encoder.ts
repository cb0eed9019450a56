import { constants, createBrotliCompress, createGzip, createZstdCompress } from 'node:zlib'
import type { BrotliCompress, Gzip, ZstdCompress } from 'node:zlib'
import { limits } from '../limits.ts'
import type { NodeResponse } from './exchange-io.ts'
import type { AnswerController } from './upstream-client.ts'

/** Compresses an answer on its way; works in a thread, keeps nothing waiting, and is no faster than its client. */
export interface Encoder {
  /** Sent so far. */
  readonly bytes: number
  write(chunk: Buffer, controller: AnswerController): void
  end(): void
  /** Sends what has come, then calls back. */
  cut(done: () => void): void
  destroy(): void
}

type EncodedAs = 'br' | 'zstd' | 'gzip'
type Stream = BrotliCompress | Gzip | ZstdCompress

/** Windows of 256 KB: what an answer is compared with, and what an open one costs. */
const streams: Record<EncodedAs, { create: () => Stream; flush: number }> = {
  br: {
    create: () =>
      createBrotliCompress({ params: { [constants.BROTLI_PARAM_QUALITY]: 4, [constants.BROTLI_PARAM_LGWIN]: 18 } }),
    flush: constants.BROTLI_OPERATION_FLUSH,
  },
  zstd: {
    create: () =>
      createZstdCompress({
        params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_windowLog]: 18 },
      }),
    flush: constants.ZSTD_e_flush,
  },
  gzip: { create: () => createGzip({ level: 5 }), flush: constants.Z_SYNC_FLUSH },
}

let open = 0

/** Each costs memory: above the bound, answers are sent as they are. */
export const mayEncode = (): boolean => open < limits.encodersMax

export function createEncoder(coding: EncodedAs, response: NodeResponse): Encoder {
  const { create, flush } = streams[coding]
  const stream = create()
  let bytes = 0
  let waiting = 0
  let ended = false
  let destroyed = false
  open++
  stream.on('data', (encoded: Buffer) => {
    bytes += encoded.length
    if (response.write(encoded)) return
    stream.pause()
    response.once('drain', () => stream.resume())
  })
  stream.on('end', () => response.end())
  stream.on('error', () => response.destroy())

  return {
    get bytes() {
      return bytes
    },
    write(chunk, controller) {
      waiting++
      const hasRoom = stream.write(chunk, () => {
        waiting--
        // The upstream has sent no more for now: the client gets all there is.
        if (waiting === 0 && !ended && !destroyed) stream.flush(flush)
      })
      if (hasRoom) return
      controller.pause()
      stream.once('drain', () => controller.resume())
    },
    end() {
      ended = true
      stream.end()
    },
    cut(done) {
      ended = true
      // What is written in one tick leaves at its end.
      stream.flush(flush, () => setImmediate(done))
    },
    destroy() {
      if (destroyed) return
      destroyed = true
      open--
      stream.destroy()
    },
  }
}
