import type { Grant, Pool, Ticket } from './pool.ts'

/** A slot for work that can wait for a promise. Throws the WorkerError of a refusal, or the signal's reason. */
export function admit(
  pool: Pool,
  waiting: Omit<Ticket, 'tried' | 'onGrant' | 'onRefuse'>,
  signal: AbortSignal,
): Promise<Grant> {
  signal.throwIfAborted()
  const { promise, resolve, reject } = Promise.withResolvers<Grant>()
  const ticket: Ticket = { ...waiting, tried: new Set(), onGrant: resolve, onRefuse: reject }
  const leave = (): void => {
    pool.leave(ticket)
    reject(signal.reason as Error)
  }
  signal.addEventListener('abort', leave)
  pool.enter(ticket)
  return promise.finally(() => signal.removeEventListener('abort', leave))
}
