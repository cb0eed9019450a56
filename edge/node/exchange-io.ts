import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Refusal } from '../error.ts'
import type { Plan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'

/** What a request came on and is answered with. */
export interface NodeIo {
  request: IncomingMessage
  response: ServerResponse
  /** The connection, when the client asked for a WebSocket; `head` is what it sent behind its request. */
  upgrade: { socket: Duplex; head: Buffer } | undefined
  /** Set when the bytes of the body turned out to be none; then `onMalformed` is called, if somebody reads the body. */
  malformed: Refusal | undefined
  onMalformed: (() => void) | undefined
  /** Set when the connection was cut off because the client sent or took too little (`progress.ts`). */
  stalled: boolean
}

/** Ends a request's account: called exactly once for each. */
export type Finish = (plan: Plan, outcome: Outcome) => void
