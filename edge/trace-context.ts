import { readFieldName } from './identity.ts'

/** What a request says of the trace that it is part of (W3C Trace Context), and what the upstream is told of it. */
export interface Trace {
  /** 32 hexadecimal digits. */
  traceId: string
  /** What the upstream gets instead of the client's fields; undefined: they are passed on as they are. */
  sent: { traceparent: string; tracestate: string | undefined } | undefined
  /** The gateway's own spans, when it records this trace. */
  spans: Spans | undefined
}

/** 16 hexadecimal digits each. */
export interface Spans {
  server: string
  client: string
  /** The caller's; undefined: the trace begins here. */
  parent: string | undefined
  tracestate: string | undefined
}

/** Decides which traces are recorded. */
export interface Tracing {
  /** `parentSampled`: what the caller has decided; undefined: there is none. */
  sample(traceId: string, parentSampled: boolean | undefined): boolean
}

/** What a request carried. */
export interface TraceFields {
  /** '': there were several. */
  traceparent: string | undefined
  tracestate: string | undefined
}

/**
 * The trace of a request; undefined: it has none, and nobody records. A caller's fields that cannot be read are
 * replaced by a new trace, as if it had sent none (Trace Context §3.2.4); those that can pass through.
 */
export function toTrace({ traceparent, tracestate }: TraceFields, tracing: Tracing | undefined): Trace | undefined {
  const parent = traceparent === undefined ? undefined : readTraceparent(traceparent)
  if (!tracing && traceparent === undefined) return undefined
  if (!tracing && parent) return { traceId: parent.traceId, sent: undefined, spans: undefined }
  const traceId = parent?.traceId ?? randomHex(16)
  const sampled = tracing?.sample(traceId, parent && (parent.flags & sampledFlag) !== 0) ?? false
  const client = randomHex(8)
  const state = parent && isTracestate(tracestate) ? tracestate : undefined
  // Of the flags we know the random one: ours are; a caller's says so itself (Trace Context, level 2, §3.2.2.5.2).
  const flags = (sampled ? sampledFlag : 0) | (parent ? parent.flags & randomFlag : randomFlag)
  return {
    traceId,
    sent: { traceparent: `00-${traceId}-${client}-0${flags}`, tracestate: state },
    spans: sampled ? { server: randomHex(8), client, parent: parent?.parentId, tracestate: state } : undefined,
  }
}

const sampledFlag = 1
const randomFlag = 2

/** Trace Context §3.2.2: version 00 has no more than four fields, a later one may; undefined: it cannot be read. */
function readTraceparent(text: string): { traceId: string; parentId: string; flags: number } | undefined {
  const parts = /^(?!ff)([\da-f]{2})-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(-.*)?$/.exec(text)
  if (!parts || (parts[1] === '00' && parts[5] !== undefined)) return undefined
  const [, , traceId = '', parentId = '', flags = ''] = parts
  return { traceId, parentId, flags: Number.parseInt(flags, 16) }
}

/** Trace Context §3.3.1: at most 32 members; one that is malformed makes all of it void. */
function isTracestate(text: string | undefined): text is string {
  if (text === undefined) return false
  const members = text.split(',').map((member) => member.trim())
  return members.length <= 32 && members.every((member) => member === '' || stateMember.test(member))
}

const stateMember =
  /^[a-z\d][a-z\d_\-*/]{0,255}(@[a-z][a-z\d_\-*/]{0,13})?=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/

/** A request's fields without those of its trace. */
export function dropTraceFields(headers: string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const { kind } = readFieldName(headers[i] ?? '')
    if (kind !== 'traceparent' && kind !== 'tracestate') kept.push(headers[i] ?? '', headers[i + 1] ?? '')
  }
  return kept
}

function randomHex(bytes: number): string {
  const random = crypto.getRandomValues(new Uint8Array(bytes))
  // Nothing but zeros is no id.
  if (random.every((byte) => byte === 0)) return randomHex(bytes)
  return random.toHex()
}
