import { Duplex } from 'node:stream'
import type { MessagePort } from 'node:worker_threads'

/**
 * A MessagePort dressed as the socket that postgres.js expects: bytes both ways, `readyState`, and `close` when
 * either side goes. No file, no port number: only this process can reach what is behind it.
 */
export class PortSocket extends Duplex {
  readonly #port: MessagePort

  constructor(port: MessagePort) {
    super()
    this.#port = port
    port.on('message', (bytes: Uint8Array) => this.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)))
    port.on('close', () => this.#closedByPeer())
  }

  get readyState(): 'open' | 'closed' {
    return this.destroyed || this.writableEnded ? 'closed' : 'open'
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#port.postMessage(bytes, [])
    done()
  }

  override _read(): void {}

  override _final(done: () => void): void {
    this.#port.close()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#port.close()
    done(error)
  }

  #closedByPeer(): void {
    this.push(null)
    this.destroy()
  }
}
