import type { Duplex, Readable } from 'node:stream'

/** A connection to a server of an upstream, for one request at a time. */
export interface UpstreamClient {
  /** Whether another request may be sent on it, now that none is under way. */
  isUsable(): boolean
  dispatch(request: UpstreamRequest, handler: AnswerHandler): void
  /** Closes it, when no request is under way. */
  close(): Promise<void>
  /** Breaks it off; the request under way fails with this error. */
  destroy(error?: Error): void
}

export interface UpstreamRequest {
  method: string
  /** Path and query. */
  path: string
  /** All fields but framing, flat; Host first. */
  headers: string[]
  /** What Content-Length says; null: the body is sent in chunks. */
  contentLength: number | null
  body: Readable | null
  /** How long the server may be silent, before the head of its answer and within it. */
  readTimeoutMs: number
  /** Whether the request is a WebSocket's handshake. */
  upgrade: boolean
}

/** What is called back with the answer, in this order: start, informational answers, the answer, its data, its end. */
export interface AnswerHandler {
  onRequestStart(controller: AnswerController): void
  /** Informational answers (1xx) too. */
  onResponseStart(controller: AnswerController, status: number, headers: string[]): void
  /** The chunk is the handler's. */
  onResponseData(controller: AnswerController, chunk: Buffer): void
  onResponseEnd(): void
  /** Called instead of all others when the server answers a WebSocket's handshake with 101. */
  onRequestUpgrade(status: number, headers: string[], socket: Duplex): void
  /** Called at any time, and then nothing else is. */
  onResponseError(error: Error): void
}

export interface AnswerController {
  /** Breaks the connection off; the handler gets this error. */
  abort(error: Error): void
  /** Reads no more of the answer than has come, until it is resumed. */
  pause(): void
  resume(): void
}

/** Why an upstream's connection failed, when it was not the system that said so. */
export class UpstreamError extends Error {
  override readonly name = 'UpstreamError'
  readonly code: UpstreamErrorCode

  constructor(code: UpstreamErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/**
 * `silent` and `stalled`: no byte of the head, or of the body, in time; `closed`: before a byte of the answer;
 * `malformed`: no valid answer, or not all of it; `unsendable`: the request is not valid.
 */
export type UpstreamErrorCode =
  | 'connect_timeout'
  | 'silent'
  | 'stalled'
  | 'closed'
  | 'malformed'
  | 'head_too_large'
  | 'unsendable'
