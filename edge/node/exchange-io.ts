import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Plan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'

/** What a request came on and is answered with. */
export interface NodeIo {
  request: IncomingMessage
  response: ServerResponse
  /** The connection, when the client asked for a WebSocket; `head` is what it sent behind its request. */
  upgrade: { socket: Duplex; head: Buffer } | undefined
}

/** Ends a request's account: called exactly once for each. */
export type Finish = (plan: Plan, outcome: Outcome) => void
