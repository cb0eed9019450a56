import type { Refusal } from '../error.ts'
import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import type { UseCache } from './cache-plan.ts'
import type { ForwardReason } from './cache-status.ts'
import { judgeStored } from './judge.ts'
import type { StoredHead } from './stored-head.ts'

/**
 * What is done about a request, with what is kept for it. send: that is the answer; `refreshes`: and another one is
 * fetched behind it. fetch: the upstream is asked for all of the answer, which is kept if it may be; `validates`: with the
 * validators of what is kept. pass: the upstream is asked as the client asks. refuse: nobody may be asked.
 */
export type LookupStep =
  | { do: 'send'; ttl: number; refreshes: boolean }
  | { do: 'fetch'; reason: ForwardReason; validates: boolean }
  | { do: 'pass'; reason: ForwardReason }
  | { do: 'refuse'; reason: ForwardReason }

/** `kept`: the newest answer that fits; `hasOthers`: there are some, for other values of what they vary by. */
export function toLookupStep(
  { method, headers }: Exchange,
  use: UseCache,
  { kept, hasOthers, now }: { kept: StoredHead | undefined; hasOthers: boolean; now: number },
): LookupStep {
  const judgement = kept && judgeStored(use, kept, now)
  if (judgement?.use === 'fresh' || judgement?.use === 'refresh')
    return { do: 'send', ttl: judgement.ttl, refreshes: judgement.use === 'refresh' }
  const reason = judgement?.forward ?? (hasOthers ? 'vary-miss' : 'uri-miss')
  if (use.directives.has('only-if-cached')) return { do: 'refuse', reason }
  const validates = judgement?.use === 'validate'
  // HEAD fills nothing, and a part of an answer is not fetched as a whole.
  if (method === 'HEAD' || (!validates && fieldValue(headers, 'range') !== undefined)) return { do: 'pass', reason }
  return { do: 'fetch', reason, validates }
}

/** RFC 9111 §5.2.1.7. */
export const notCached: Refusal = { code: 'not_cached', detail: 'only-if-cached was asked for, and nothing fits' }
