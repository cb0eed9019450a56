/**
 * The fields that only the gateway may set on a request, and what it says in them. Origins may rely on them when the
 * gateway is the only way in. Every incoming field of these names is dropped first, in every spelling.
 */
export const identityFields = {
  /** The verified token's `sub`, percent-encoded where it is not visible ASCII. */
  subject: 'x-user-id',
  /** The verified token's claims: base64url of their JSON (UTF-8). */
  claims: 'x-user-claims',
} as const

export interface Identity {
  subject: string
  claims: Record<string, unknown>
  /** When the token ends, in seconds since the epoch. */
  expiresAt: number
  /** The flat request fields that tell an upstream of it: name, value, … */
  fields: string[]
}

export function toIdentity(claims: Record<string, unknown>, expiresAt: number): Identity {
  const subject = typeof claims['sub'] === 'string' ? claims['sub'] : ''
  const json = new TextEncoder().encode(JSON.stringify(claims))
  const fields = [identityFields.subject, encodeURIComponent(subject), identityFields.claims, toBase64Url(json)]
  return { subject, claims, expiresAt, fields }
}

/** The claims that the gateway verified, read from a request's `x-user-claims`; null when it set none. */
export function readIdentityClaims(field: string | null | undefined): Record<string, unknown> | null {
  if (!field) return null
  const claims: unknown = JSON.parse(new TextDecoder().decode(fromBase64Url(field)))
  return typeof claims === 'object' && claims !== null ? (claims as Record<string, unknown>) : null
}

/** What a request's field is to the gateway. */
export type FieldKind =
  | 'forward' // passed on
  | 'drop' // ours, or hop-by-hop (RFC 9110 §7.6.1): never passed on as received
  | 'refuse' // aliases one of ours in a reader that folds '_' and '.' into '-'
  | SpecialField

/** Says upstream how many milliseconds the answer may still take: Envoy's name, which its proxies and meshes obey. */
export const deadlineField = 'x-envoy-expected-rq-timeout-ms'

const specialFields = [
  'host',
  'content-length',
  'transfer-encoding',
  'connection',
  'upgrade',
  'expect',
  'authorization',
  'cookie',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-daemun-edge',
  'traceparent',
  'tracestate',
  deadlineField,
] as const
type SpecialField = (typeof specialFields)[number]

const droppedFields = new Set([
  'keep-alive',
  'proxy-connection',
  'proxy-authorization',
  'te',
  'trailer',
  'forwarded',
  'via',
  'x-real-ip',
  'x-request-id',
  'x-client-ip',
  'x-cluster-client-ip',
  'true-client-ip',
  'cf-connecting-ip',
  // What some frameworks take for the path or for "already checked".
  'x-original-url',
  'x-rewrite-url',
  'x-middleware-subrequest',
  'x-middleware-prefetch',
])
const droppedPrefixes = ['x-forwarded-', 'x-user-', 'x-daemun-', 'proxy-']

const special: ReadonlySet<string> = new Set(specialFields)
const remembered = new Map<string, { name: string; kind: FieldKind }>()
const rememberedMax = 4_096

/** The lower-cased name and the kind of a field, from its name as received. */
export function readFieldName(received: string): { name: string; kind: FieldKind } {
  const known = remembered.get(received)
  if (known) return known
  const name = received.toLowerCase()
  const read = { name, kind: toFieldKind(name) }
  if (remembered.size < rememberedMax && received.length <= 64) remembered.set(received, read)
  return read
}

function toFieldKind(name: string): FieldKind {
  if (special.has(name)) return name as SpecialField
  if (isOurs(name)) return 'drop'
  if (/^[a-z0-9-]+$/.test(name)) return 'forward'
  const folded = name.replace(/[^a-z0-9-]/g, '-')
  return special.has(folded) || isOurs(folded) ? 'refuse' : 'forward'
}

const isOurs = (name: string): boolean =>
  droppedFields.has(name) || droppedPrefixes.some((prefix) => name.startsWith(prefix))

const toBase64Url = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '')

const fromBase64Url = (text: string): Uint8Array =>
  Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (character) => character.charCodeAt(0))
