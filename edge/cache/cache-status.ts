/** What became of a request at the cache: the word of logs and metrics. */
export type CacheVerdict = 'hit' | 'stale' | 'revalidated' | 'collapsed' | 'miss' | 'bypass'

/** RFC 9211 §2.2: why the upstream was asked. */
export type ForwardReason = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'request' | 'stale'

/** One member of Cache-Status (RFC 9211), which this cache adds at the end of what others have said. */
export const toHitStatus = (ttl: number): string => `Daemun; hit; ttl=${ttl}`

export interface Forwarded {
  reason: ForwardReason
  /** What the upstream answered, where the client gets something else. */
  status?: number
  stored?: boolean
  /** The answer to another request was waited for. */
  collapsed?: boolean
  /** Why it was not stored, or used though it is stale. */
  detail?: string
}

export function toForwardStatus({ reason, status, stored, collapsed, detail }: Forwarded): string {
  let text = `Daemun; fwd=${reason}`
  if (status !== undefined) text += `; fwd-status=${status}`
  if (stored) text += '; stored'
  if (collapsed) text += '; collapsed'
  if (detail !== undefined) text += `; detail="${detail}"`
  return text
}
