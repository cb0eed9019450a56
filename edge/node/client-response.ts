import { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * A response of HTTP/1.1 that writes each chunk (RFC 9112 §7.1) in one piece, and a short last one together with the
 * end. Node writes four: the size, two line ends and the bytes.
 */
export class ClientResponse extends ServerResponse {
  /** There is a body, and it goes in chunks. `chunkedEncoding` is false then, so that Node sends what it is given as it is. */
  isChunked = false
  /** The head was written, and part of the body. */
  #isBegun = false

  override writeHead(status: number, ...fields: unknown[]): this {
    super.writeHead(status, ...(fields as [string[]]))
    this.isChunked = this.chunkedEncoding
    this.chunkedEncoding = false
    return this
  }

  override write(given: Buffer | string, done?: unknown): boolean {
    const chunk = typeof given === 'string' ? Buffer.from(given) : given
    const told = done as WriteDone
    if (!this.headersSent) this.writeHead(this.statusCode)
    if (!this.isChunked || chunk.length === 0) return super.write(chunk, told)
    const { socket } = this
    const isShort = chunk.length <= copiedBytesMax
    // With all before it gone, an event needs nothing of what Node does for each part of an answer.
    if (isShort && this.#isBegun && socket?.writableLength === 0 && !this.writableEnded)
      return this.#writeThrough(socket, toChunk(chunk), told)
    this.#isBegun = true
    // Whoever has more to write in this tick corks; otherwise Node would wait for the end of the tick.
    socket?.cork()
    const hasRoom = isShort ? super.write(toChunk(chunk), told) : this.#writePieces(chunk, told)
    socket?.uncork()
    return hasRoom
  }

  #writeThrough(socket: Socket, bytes: Buffer, told: WriteDone): boolean {
    const hasRoom = socket.write(bytes, told)
    if (!hasRoom) socket.once('drain', () => this.emit('drain'))
    return hasRoom
  }

  #writePieces(chunk: Buffer, told: WriteDone): boolean {
    super.write(`${chunk.length.toString(16)}\r\n`, 'latin1')
    super.write(chunk)
    return super.write('\r\n', 'latin1', told)
  }

  /** `body`: bytes, or a text of one byte for each character. */
  override end(body?: unknown): this {
    if (!this.isChunked) return super.end(body, 'latin1')
    if (typeof body === 'string' && body !== '')
      return super.end(`${body.length.toString(16)}\r\n${body}\r\n${lastChunk}`, 'latin1')
    if (!body) return super.end(lastChunk, 'latin1')
    this.socket?.cork()
    this.write(body as Buffer)
    return super.end(lastChunk, 'latin1')
  }
}

const lastChunk = '0\r\n\r\n'

/** Above this a copy costs more than more pieces. */
const copiedBytesMax = 8_192

/** The bytes with their size before them and a line end behind. */
function toChunk(bytes: Buffer): Buffer {
  const { length } = bytes
  const digits = length < 16 ? 1 : length < 256 ? 2 : length < 4_096 ? 3 : 4
  const chunk = Buffer.allocUnsafe(digits + 2 + length + 2)
  for (let at = 0; at < digits; at++) chunk[at] = hexDigits.charCodeAt((length >> ((digits - 1 - at) * 4)) & 15)
  chunk[digits] = CR
  chunk[digits + 1] = LF
  chunk.set(bytes, digits + 2)
  chunk[digits + 2 + length] = CR
  chunk[digits + 3 + length] = LF
  return chunk
}

const [CR, LF] = [0x0d, 0x0a]
const hexDigits = '0123456789abcdef'

type WriteDone = ((error?: Error | null) => void) | undefined
