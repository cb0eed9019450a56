import { fieldValue } from '../exchange.ts'
import type { UseCache } from './cache-plan.ts'
import { isError, mayServeOnError } from './judge.ts'
import { freshen, toStoredHead } from './stored-head.ts'
import type { Received, StoredHead } from './stored-head.ts'

/**
 * What is done with an answer that was fetched. update: what is kept is good again, with this head. release: it is good
 * for this request, and no longer kept. again: the upstream speaks of another answer, it is asked without conditions.
 * stand-in: what is kept is sent instead. keep: it is sent and kept, once it is whole. pass: it is sent.
 */
export type ReceivedStep =
  | { do: 'update'; head: StoredHead }
  | { do: 'release'; refused: string }
  | { do: 'again' }
  | { do: 'stand-in' }
  | { do: 'keep'; head: StoredHead }
  | { do: 'pass'; refused: string }

/** `known`: what is kept and was asked about. */
export function toReceivedStep(use: UseCache, known: StoredHead | undefined, received: Received): ReceivedStep {
  const { status, headers, receivedAt } = received
  if (known && status === 304) {
    const fresh = freshen(use, known, received)
    if (!fresh) return { do: 'again' }
    return 'refused' in fresh ? { do: 'release', ...fresh } : { do: 'update', head: fresh }
  }
  if (known && isError(status) && mayServeOnError(use, known, receivedAt)) return { do: 'stand-in' }
  const stored = toStoredHead(use, received)
  if ('refused' in stored) return { do: 'pass', ...stored }
  const length = Number(fieldValue(headers, 'content-length') ?? 0)
  return length > use.cache.entryBytesMax ? { do: 'pass', refused: 'too large' } : { do: 'keep', head: stored }
}
