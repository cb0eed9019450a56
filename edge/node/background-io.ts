import { Readable, Writable } from 'node:stream'
import { Socket } from 'node:net'
import { limits } from '../limits.ts'
import type { NodeIo, NodeResponse } from './exchange-io.ts'

/** What a request comes on that nobody has sent, and whose answer nobody waits for. */
export const createBackgroundIo = (): NodeIo => ({
  request: Object.assign(new Readable({ read() {} }), {
    complete: true,
    headers: {},
    httpVersion: '1.1',
    socket: new Socket(),
  }),
  response: new Nobody(),
  upgrade: undefined,
  malformed: undefined,
  onMalformed: undefined,
  stalled: false,
})

/** Takes everything at once, and leaves when that is much: what fills the store comes all the same. */
class Nobody extends Writable implements NodeResponse {
  #bytes = 0
  headersSent = false
  shouldKeepAlive = false

  writeHead(): void {
    this.headersSent = true
  }

  flushHeaders(): void {}
  writeContinue(): void {}
  writeInformation(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    this.#bytes += chunk.length
    if (this.#bytes > limits.drainBytesMax) this.destroy()
    callback()
  }
}
