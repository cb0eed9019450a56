import type { Kind } from '../requests/generation.ts'

/** What is asked of a server. */
export interface Order {
  kind: Kind
  path: string
  body: Buffer
  headers: string[]
  stream: boolean
  /** Token ids were asked for, and the client has not. */
  addsIds: boolean
}

/** Who takes the answer. After `onEnd` or `onError` nothing comes. */
export interface Sink {
  onHead(status: number, headers: (name: string) => string | undefined): void
  /** The buffer is the sink's own from here on. */
  onData(chunk: Buffer): void
  onEnd(): void
  onError(error: Error): void
}

/** An answer that is under way. */
export interface Exchange {
  pause(): void
  resume(): void
  /** Says that nobody wants the rest. What the server has sent already still comes, then the end or an error. */
  leave(): void
  destroy(): void
}

/** A server that answers orders. */
export interface Upstream {
  name: string
  open(order: Order, sink: Sink): Exchange
  close(): Promise<void>
}
