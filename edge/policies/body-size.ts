import type { Refusal } from '../error.ts'
import type { Exchange } from '../exchange.ts'
import { limits } from '../limits.ts'
import type { Binding, BoundPolicy, Verdict } from './index.ts'

/** Refuses bodies that say they are too large (RFC 9110 §15.5.14). Runtimes count what flows, whatever was said. */
export function bindBodySize({ route }: Binding): BoundPolicy {
  const max = route.bodyBytesMax ?? limits.bodyBytesMax
  const refused: Verdict = {
    outcome: 'refuse',
    reason: `says it is larger than ${max} bytes`,
    refusal: toBodyRefusal(max),
  }

  function check({ contentLength, hasBody }: Exchange): Verdict {
    if (contentLength !== null && contentLength > max) return refused
    return hasBody ? small : none
  }

  return { name: 'body-size', describe: `at most ${max} bytes`, check }
}

export const toBodyRefusal = (max: number): Refusal => ({
  code: 'body_too_large',
  detail: `the body is larger than ${max} bytes`,
  limit: { name: 'bodyBytesMax', value: max },
})

const small: Verdict = { outcome: 'pass', reason: 'small enough, or counted as it comes' }
const none: Verdict = { outcome: 'pass', reason: 'no body' }
