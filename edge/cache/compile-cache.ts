import { readShared } from '../actions/headers.ts'
import { findUnseenField } from '../field-faults.ts'
import type { FieldFault } from '../field-faults.ts'
import { limits } from '../limits.ts'
import type { Route } from '../table.ts'
import type { CompiledCache } from './cache-plan.ts'
import { isPersonal } from './vary.ts'

export const keepsAnswers = ({ cache }: Route): boolean => readShared(cache) !== undefined

/** undefined: the row keeps no answers. */
export function compileCache(route: Route, table: string): CompiledCache | undefined {
  const shared = readShared(route.cache)
  if (!shared) return undefined
  return {
    row: `${table}/${toFingerprint(JSON.stringify(route))}`,
    freshMs: shared.freshMs,
    staleWhileRevalidateMs: shared.staleWhileRevalidateMs ?? 0,
    staleIfErrorMs: shared.staleIfErrorMs ?? limits.staleIfErrorMs,
    entryBytesMax: shared.entryBytesMax ?? limits.entryBytesMax,
    vary: (shared.vary ?? []).map((name) => name.toLowerCase()),
  }
}

/** What a row says of keeping answers that cannot be done. */
export function findCacheFaults(route: Route): FieldFault[] {
  const { cache } = route
  const at = 'cache'
  if (typeof cache === 'object' && cache.control === undefined && cache.shared === undefined)
    return [{ at, problem: 'says nothing', fix: "give it 'control', 'shared' or both" }]
  const shared = readShared(cache)
  if (!shared) return []
  if (!route.proxy)
    return [{ at, problem: "is 'shared', and the row has no upstream whose answers could be kept", fix: 'drop it' }]
  if (route.methods && !route.methods.some((method) => method === 'GET' || method === 'HEAD'))
    return [{ at, problem: "is 'shared', and only answers to GET are kept", fix: 'drop it' }]
  return (shared.vary ?? []).flatMap((name) =>
    isPersonal(name.toLowerCase())
      ? [{ at: 'cache.shared.vary', problem: `names '${name}', which tells clients apart`, fix: 'drop it' }]
      : findUnseenField(name, 'cache.shared.vary'),
  )
}

/** 53 bits of a text's hash (cyrb53): tells versions of a row apart, no more. */
function toFingerprint(text: string): string {
  let high = 0xdeadbeef
  let low = 0x41c6ce57
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    high = Math.imul(high ^ code, 2_654_435_761)
    low = Math.imul(low ^ code, 1_597_334_677)
  }
  high = Math.imul(high ^ (high >>> 16), 2_246_822_507) ^ Math.imul(low ^ (low >>> 13), 3_266_489_909)
  low = Math.imul(low ^ (low >>> 16), 2_246_822_507) ^ Math.imul(high ^ (high >>> 13), 3_266_489_909)
  return (4_294_967_296 * (2_097_151 & low) + (high >>> 0)).toString(36)
}
