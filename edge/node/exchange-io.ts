import type { IncomingMessage } from 'node:http'
import type { Duplex, Readable, Writable } from 'node:stream'
import type { Refusal } from '../error.ts'
import type { Plan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'

/** What a request came on and is answered with. */
export interface NodeIo {
  request: NodeRequest
  response: NodeResponse
  /** The connection, when the client asked for a WebSocket; `head` is what it sent behind its request. */
  upgrade: { socket: Duplex; head: Buffer } | undefined
  /** Set when the bytes of the body turned out to be none; then `onMalformed` is called, if somebody reads the body. */
  malformed: Refusal | undefined
  onMalformed: (() => void) | undefined
  /** Set when the connection was cut off because the client sent or took too little (`progress.ts`). */
  stalled: boolean
}

/** What HTTP/1.1 and HTTP/2 have in common, named as Node names it for HTTP/1.1. */
export type NodeRequest = Readable & Pick<IncomingMessage, 'complete' | 'headers' | 'httpVersion' | 'socket'>

export interface NodeResponse extends Writable {
  readonly headersSent: boolean
  shouldKeepAlive: boolean
  /** `headers` is flat: name, value, … */
  writeHead(status: number, headers: string[]): unknown
  flushHeaders(): void
  writeContinue(): void
  /** An informational answer (1xx); `headers` is flat. */
  writeInformation(status: number, headers: string[]): unknown
}

/** Ends a request's account: called exactly once for each. */
export type Finish = (plan: Plan, outcome: Outcome) => void
