import { limits } from '../limits.ts'
import { UpstreamError } from './upstream-client.ts'

/** What is told of an answer while its bytes are read. */
export interface AnswerEvents {
  /** A head is complete; informational ones (1xx) come before the answer's own. `fields` is flat, as received. */
  onHead(status: number, fields: string[]): void
  /** Part of the body. The bytes are written over by the next that come. */
  onBody(bytes: Buffer): void
  /** The answer is whole; `reusable` when another may follow on the connection. */
  onEnd(reusable: boolean): void
}

/**
 * Reads answers of HTTP/1.1 (RFC 9112), however their bytes are cut. Whatever two readers could read differently is a
 * fault: bare LF and CR, folded lines, control characters, repeated or contradicting framing, other transfer codings.
 */
export class AnswerParser {
  readonly #events: AnswerEvents
  #state = idle
  /** The request was HEAD: whatever the fields say, there is no body. */
  #isHead = false
  /** A head that came in parts; `#partialLength` is 0 while there is none. */
  #partial: Buffer = nothing
  #partialLength = 0
  /** Where reading goes on in the head. */
  #at = 0
  #nameStart = 0
  #nameEnd = 0
  #valueStart = 0
  /** Where each field's name begins and ends, and its value. */
  #spans: number[] = []
  /** Bytes of the body, or of the chunk, that have not come. */
  #left = 0
  /** Digits of a chunk's size; bytes of the trailer. */
  #count = 0
  /** A chunk's extension, or the name of a trailer field, as far as it has come. */
  #text = ''
  /** Not a byte of an answer has come. */
  #isUntouched = true
  #keepAlive = true
  #keepAliveMs = Infinity

  constructor(events: AnswerEvents) {
    this.#events = events
  }

  /** Gets ready for the answer to a request. */
  begin(method: string): void {
    this.#isHead = method === 'HEAD'
    this.#isUntouched = true
    this.#state = statusLine
    this.#startHead()
  }

  /** How long the server keeps the connection for a next request, as its Keep-Alive field says. */
  get keepAliveMs(): number {
    return this.#keepAliveMs
  }

  /** Stops reading; what comes is ignored. */
  stop(): void {
    this.#state = stopped
  }

  /** Reads what came. Throws an UpstreamError when it is no answer. */
  read(bytes: Buffer): void {
    let at = 0
    this.#isUntouched = false
    while (at < bytes.length && this.#state !== stopped) {
      if (this.#state <= lastLineFeed) at = this.#readHead(bytes, at)
      else if (this.#state === counted || this.#state === chunkData) at = this.#readCounted(bytes, at)
      else if (this.#state === untilClose) {
        this.#events.onBody(at === 0 ? bytes : bytes.subarray(at))
        return
      } else if (this.#state === idle) throw malformed('bytes that nobody asked for')
      else at = this.#readChunkLine(bytes, at)
    }
  }

  /** The server will send no more. Throws an UpstreamError when that was not the end of an answer. */
  end(): void {
    if (this.#state === untilClose) return this.#finish(false)
    if (this.#state === idle || this.#state === stopped) return
    throw this.#isUntouched ? new UpstreamError('closed', 'closed before an answer') : malformed('it breaks off')
  }

  #startHead(): void {
    this.#at = 0
    this.#partialLength = 0
    this.#spans.length = 0
  }

  /** Reads on in the head; returns how far the bytes were read. */
  #readHead(bytes: Buffer, from: number): number {
    const before = this.#partialLength
    const source = before > 0 ? this.#append(bytes, from) : bytes
    const length = before > 0 ? this.#partialLength : bytes.length
    // Positions count from the head's first byte, which in whole heads stands at `from`.
    const base = before > 0 ? 0 : from
    const end = this.#scan(source, base, length)
    if ((end === -1 ? length : end) - base > limits.upstreamHeaderBytesMax)
      throw new UpstreamError('head_too_large', 'the head is too large')
    if (end === -1) {
      if (before === 0) this.#append(bytes, from)
      return bytes.length
    }
    const status = (digit(source, base + 9) * 10 + digit(source, base + 10)) * 10 + digit(source, base + 11)
    const read = before > 0 ? from + end - before : end
    const fields = this.#toFields(status, source[base + 7] === 0x31, source.toString('latin1', base, end))
    this.#events.onHead(status, fields)
    // Bytes behind the answer are of no answer: nothing else is sent on the connection.
    if (this.#state === bodiless) this.#finish(read === bytes.length)
    return read
  }

  /** Keeps a head's bytes until it is whole: as many as a head may have, and one more. */
  #append(bytes: Buffer, from: number): Buffer {
    const length = Math.min(this.#partialLength + bytes.length - from, limits.upstreamHeaderBytesMax + 1)
    if (this.#partial.length < length) {
      const larger = Buffer.allocUnsafe(Math.min(Math.max(length * 2, 1_024), limits.upstreamHeaderBytesMax + 1))
      this.#partial.copy(larger, 0, 0, this.#partialLength)
      this.#partial = larger
    }
    bytes.copy(this.#partial, this.#partialLength, from, from + length - this.#partialLength)
    this.#partialLength = length
    return this.#partial
  }

  /** RFC 9112 §4, §5: goes on where it stopped; returns the position behind the head, -1 when it is not whole. */
  #scan(bytes: Buffer, base: number, length: number): number {
    let at = base + this.#at
    let state = this.#state
    while (at < length) {
      const byte = bytes[at] as number
      switch (state) {
        case statusLine: {
          const place = at - base
          if (byte === CR && place >= 12) state = lineFeed
          else if (!isStatusLine(byte, place)) throw malformed('the status line')
          at++
          break
        }
        case lineFeed:
          if (byte !== LF) throw malformed('a line that does not end with CR LF')
          state = lineStart
          at++
          break
        case lineStart:
          if (byte === CR) {
            state = lastLineFeed
            at++
            break
          }
          this.#nameStart = at - base
          state = fieldName
          break
        case fieldName: {
          while (at < length && (kinds[bytes[at] as number] as number) === tokenByte) at++
          if (at === length) break
          if (bytes[at] !== COLON || at - base === this.#nameStart) throw malformed("a field's name")
          this.#nameEnd = at - base
          state = beforeValue
          at++
          break
        }
        case beforeValue:
          if (byte === SP || byte === HTAB) at++
          else {
            this.#valueStart = at - base
            state = fieldValue
          }
          break
        case fieldValue: {
          while (at < length && (kinds[bytes[at] as number] as number) !== 0) at++
          if (at === length) break
          if (bytes[at] !== CR) throw malformed("a field's value")
          this.#addField(bytes, base, at)
          state = lineFeed
          at++
          break
        }
        default:
          if (byte !== LF) throw malformed('a line that does not end with CR LF')
          this.#at = at + 1 - base
          return at + 1
      }
    }
    this.#at = at - base
    this.#state = state
    return -1
  }

  #addField(bytes: Buffer, base: number, at: number): void {
    let end = at
    while (end - base > this.#valueStart && isBlank(bytes[end - 1])) end--
    if (this.#spans.length >= limits.upstreamHeaderCountMax * 4) throw malformed('too many fields')
    this.#spans.push(this.#nameStart, this.#nameEnd, this.#valueStart, end - base)
  }

  /** Makes sense of a head that is whole; returns its fields. */
  #toFields(status: number, is11: boolean, text: string): string[] {
    const spans = this.#spans
    const fields: string[] = []
    const framing = new Framing(is11)
    for (let i = 0; i < spans.length; i += 4) {
      const name = text.slice(spans[i], spans[i + 1])
      const value = text.slice(spans[i + 2], spans[i + 3])
      fields.push(name, value)
      if (framingLengths.has(name.length)) framing.add(name, value)
    }
    if (status < 100) throw malformed('the status')
    // Nobody asked for another protocol, nor to be told to go on (RFC 9110 §10.1.1, §15.2.2).
    if (status === 101 || status === 100) throw malformed(`status ${status}, which nobody asked for`)
    if (status < 200 && !framing.keepAlive) throw malformed('an informational answer that closes')
    this.#startHead()
    this.#state = status < 200 ? statusLine : this.#bodyState(status, framing)
    return fields
  }

  /** RFC 9112 §6.3. */
  #bodyState(status: number, framing: Framing): number {
    this.#keepAlive = framing.keepAlive
    this.#keepAliveMs = framing.keepAliveMs
    this.#left = 0
    if (this.#isHead || status === 204 || status === 304) return bodiless
    if (framing.chunked) return this.#startChunk()
    if (framing.length === -1) return untilClose
    this.#left = framing.length
    return framing.length === 0 ? bodiless : counted
  }

  #readCounted(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#left)
    this.#left -= end - at
    const isLast = this.#left === 0
    const wasChunk = this.#state === chunkData
    if (isLast) this.#state = wasChunk ? chunkDataEnd : bodiless
    this.#events.onBody(bytes.subarray(at, end))
    if (isLast && this.#state === bodiless) this.#finish(end === bytes.length)
    return end
  }

  #startChunk(): number {
    this.#left = 0
    this.#count = 0
    return chunkSize
  }

  /** RFC 9112 §7.1: a chunk's size, its extension, what stands behind it, and the trailer. Takes one byte or a few. */
  #readChunkLine(bytes: Buffer, at: number): number {
    const byte = bytes[at] as number
    switch (this.#state) {
      case chunkSize: {
        const value = hexValue(byte)
        if (value !== -1) {
          if (++this.#count > chunkDigitsMax) throw malformed("a chunk's size")
          this.#left = this.#left * 16 + value
          return at + 1
        }
        if (this.#count === 0 || (byte !== CR && byte !== SEMICOLON)) throw malformed("a chunk's size")
        this.#text = ';'
        this.#state = byte === CR ? chunkSizeEnd : chunkExtension
        return at + 1
      }
      case chunkExtension:
        if (byte === CR) {
          // What it says is for nobody here, but it must be one (RFC 9112 §7.1.1).
          if (!chunkExtensions.test(this.#text)) throw malformed("a chunk's extension")
          this.#state = chunkSizeEnd
        } else this.#text = this.#add(byte, 1, chunkExtensionBytesMax)
        return at + 1
      case chunkSizeEnd:
        if (byte !== LF) throw malformed('a line that does not end with CR LF')
        this.#state = this.#left > 0 ? chunkData : trailerStart
        this.#count = 0
        this.#text = ''
        return at + 1
      case chunkDataEnd:
        if (byte !== CR) throw malformed('a chunk longer than its size')
        this.#state = chunkDataLineFeed
        return at + 1
      case chunkDataLineFeed:
        if (byte !== LF) throw malformed('a chunk longer than its size')
        this.#state = this.#startChunk()
        return at + 1
      default:
        return this.#readTrailer(byte, at, bytes.length)
    }
  }

  /** Trailer fields are read only to be dropped (RFC 9110 §6.5.1). */
  #readTrailer(byte: number, at: number, length: number): number {
    if (++this.#count > limits.upstreamHeaderBytesMax)
      throw new UpstreamError('head_too_large', 'the trailer is too large')
    if (this.#state === trailerStart && byte === CR) this.#state = trailerEnd
    else if (this.#state === trailerName && byte === COLON) {
      // Framing cannot come behind what it frames.
      if (/^(content-length|transfer-encoding)$/i.test(this.#text)) throw malformed("a trailer field's name")
      this.#state = trailerValue
      this.#text = ''
    } else if (this.#state === trailerStart || this.#state === trailerName) {
      this.#text = this.#add(byte, tokenByte, limits.upstreamHeaderBytesMax)
      this.#state = trailerName
    } else if (this.#state === trailerValue) {
      if (byte === CR) this.#state = trailerLineFeed
      else if (kinds[byte] === 0) throw malformed("a trailer field's value")
    } else {
      if (byte !== LF) throw malformed('a line that does not end with CR LF')
      if (this.#state === trailerEnd) this.#finish(at + 1 === length)
      else this.#state = trailerStart
    }
    return at + 1
  }

  /** The text with one more byte, which must be at least of that kind. */
  #add(byte: number, kind: number, lengthMax: number): string {
    if ((kinds[byte] as number) < kind || this.#text.length >= lengthMax) throw malformed('what stands about a chunk')
    return this.#text + String.fromCharCode(byte)
  }

  #finish(isClean: boolean): void {
    const reusable = isClean && this.#keepAlive && this.#state !== untilClose
    this.#state = idle
    this.#events.onEnd(reusable)
  }
}

/** What the fields say of the body's length and of the connection (RFC 9112 §6, §9.3). */
class Framing {
  length = -1
  chunked = false
  keepAlive: boolean
  keepAliveMs = Infinity
  readonly #is11: boolean

  constructor(is11: boolean) {
    this.#is11 = is11
    this.keepAlive = is11
  }

  add(field: string, value: string): void {
    const name = field.toLowerCase()
    if (name === 'content-length') {
      if (this.length !== -1 || this.chunked || !/^\d{1,15}$/.test(value)) throw malformed('Content-Length')
      this.length = Number(value)
    } else if (name === 'transfer-encoding') {
      // Another coding would have to be undone, and to a reader of HTTP/1.0 none is known.
      if (this.length !== -1 || this.chunked || !this.#is11 || value.toLowerCase() !== 'chunked')
        throw malformed('Transfer-Encoding')
      this.chunked = true
    } else if (name === 'connection') this.#addConnection(value.toLowerCase())
    else if (name === 'keep-alive') this.#addKeepAlive(value)
  }

  #addConnection(value: string): void {
    if (value === 'keep-alive') this.keepAlive = true
    else if (/(^|[ \t,])close($|[ \t,])/.test(value)) this.keepAlive = false
    else if (/(^|[ \t,])keep-alive($|[ \t,])/.test(value)) this.keepAlive = true
  }

  /** A second before the server closes is early enough. */
  #addKeepAlive(value: string): void {
    const [, seconds] = /(?:^|[ \t,])timeout=(\d{1,6})(?:$|[ \t,])/i.exec(value) ?? []
    if (seconds !== undefined) this.keepAliveMs = Number(seconds) * 1_000 - 1_000
    if (/(^|[ \t,])max=0+($|[ \t,])/i.test(value)) this.keepAliveMs = 0
  }
}

/** Lengths of the names that `Framing` knows, so that most fields are passed by. */
const framingLengths: ReadonlySet<number> = new Set([10, 14, 17])

const malformed = (what: string): UpstreamError => new UpstreamError('malformed', `not a valid answer: ${what}`)

const nothing = Buffer.alloc(0)

// States. Up to `lastLineFeed` they are those of a head.
const statusLine = 0
const lineFeed = 1
const lineStart = 2
const fieldName = 3
const beforeValue = 4
const fieldValue = 5
const lastLineFeed = 6
const counted = 7
const untilClose = 8
const chunkSize = 9
const chunkExtension = 10
const chunkSizeEnd = 11
const chunkData = 12
const chunkDataEnd = 13
const chunkDataLineFeed = 14
const trailerStart = 15
const trailerName = 16
const trailerValue = 17
const trailerLineFeed = 18
const trailerEnd = 19
/** The answer has no body, or no more of it. */
const bodiless = 20
const idle = 21
const stopped = 22

/** A chunk's size has no more digits, so that it stays an exact number. */
const chunkDigitsMax = 12
const chunkExtensionBytesMax = 256
const chunkExtensions = /^(;[!#$%&'*+\-.^_`|~0-9A-Za-z]+(=([!#$%&'*+\-.^_`|~0-9A-Za-z]+|"([^"\\]|\\.)*"))?)+$/

const [HTAB, LF, CR, SP, COLON, SEMICOLON] = [0x09, 0x0a, 0x0d, 0x20, 0x3a, 0x3b]

/** What a byte may stand in: 2 a field's name (RFC 9110 §5.6.2), 1 only a value (§5.5), 0 neither. */
const tokenByte = 2
const kinds = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (/[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(String.fromCharCode(byte))) return tokenByte
  return byte === HTAB || (byte >= SP && byte !== 0x7f) ? 1 : 0
})

const isBlank = (byte: number | undefined): boolean => byte === SP || byte === HTAB

const digit = (bytes: Buffer, at: number): number => (bytes[at] as number) - 0x30

/** Whether the byte may stand there: 'HTTP/1.1 200 OK', the version 1.0 or 1.1, the reason and its space optional. */
function isStatusLine(byte: number, place: number): boolean {
  if (place < 7) return byte === httpName.charCodeAt(place)
  if (place === 7) return byte === 0x31 || byte === 0x30
  if (place === 8 || place === 12) return byte === SP
  if (place < 12) return byte >= 0x30 && byte <= 0x39
  return kinds[byte] !== 0
}

const httpName = 'HTTP/1.'

function hexValue(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}
