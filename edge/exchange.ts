import type { Address } from './address.ts'
import type { CompiledRoute, CompiledSite } from './compile.ts'
import { readAddress } from './address.ts'
import { deadlineField, readFieldName } from './identity.ts'
import type { Identity } from './identity.ts'
import { limits } from './limits.ts'
import { readTarget } from './path.ts'
import type { Refusal } from './error.ts'
import type { Facts } from './runtime.ts'
import { dropTraceFields, toTrace } from './trace-context.ts'
import type { Trace } from './trace-context.ts'

/** A request as a runtime received it, before anything was believed. */
export interface RawRequest {
  method: string
  /** The request target as received: origin-form or absolute-form. */
  target: string
  /** '1.1' or '1.0'; anything else is refused. */
  version: string
  /** The field lines as received, flat: name, value, …; duplicates stay. */
  headers: string[]
  /** The address at the other end of the connection. */
  peer: string
  /** Whether the connection itself is TLS. */
  secure: boolean
  /** What the listener found wrong with it: it is refused. */
  fault?: string
}

/**
 * The one canonical view of a request: computed once, used by routing, policies, logs and the request that goes
 * upstream. Policies fill in the lower half.
 */
export interface Exchange {
  readonly requestId: string
  /** Milliseconds since the epoch. */
  readonly receivedAt: number
  /** On the monotonic clock, for durations. */
  readonly startedAt: number
  readonly method: string
  scheme: 'http' | 'https'
  /** Lower-case, without port and closing dot. */
  readonly host: string
  /** Host and port as the client named them, lower-case. */
  readonly authority: string
  readonly path: string
  /** With its '?', or empty. */
  readonly query: string
  client: Address
  /** The client's fields that may be passed on, flat; without framing, hop-by-hop and identity fields, without Host. */
  readonly headers: string[]
  readonly authorization: string | undefined
  readonly cookie: string
  /** null: no Content-Length. */
  readonly contentLength: number | null
  readonly hasBody: boolean
  readonly websocket: boolean
  readonly expectsContinue: boolean
  /** The value of x-daemun-edge (`policies/trusted-edges.ts`). */
  readonly edgeSignature: string | undefined
  /** How long a trusted hop still waits for the answer. */
  readonly timeoutMs: number | undefined
  /** undefined: it is part of none that anybody told of. */
  readonly trace: Trace | undefined
  site: CompiledSite | undefined
  route: CompiledRoute | undefined
  identity: Identity | undefined
  /** Fields that policies add to the answer, flat. */
  answerHeaders: string[]
}

/**
 * Reads a request into its canonical view, or says why it has none. The exchange is there in both cases, so that a
 * refused request is logged and answered like every other.
 */
export function identify(raw: RawRequest, facts: Facts): { exchange: Exchange; refusal: Refusal | undefined } {
  const fields = readFields(raw.headers)
  const target = toOriginForm(raw.target, fields.host)
  const read = 'fault' in target ? target : readTarget(target.originForm)
  const host = readHost(fields.host ?? '')
  const client = facts.clientAddress(raw, fields)
  const trace = readTrace(fields, facts)
  const exchange: Exchange = {
    requestId: facts.randomId(),
    receivedAt: facts.now(),
    startedAt: facts.monotonic(),
    method: raw.method,
    scheme: client.scheme,
    host: host?.host ?? '',
    authority: host?.authority ?? '',
    path: 'fault' in read ? '' : read.path,
    query: 'fault' in read ? '' : read.query,
    client: client.address,
    headers: fields.forward,
    authorization: fields.authorization,
    cookie: fields.cookie,
    contentLength: fields.contentLength,
    hasBody: fields.transferEncoding !== undefined || (fields.contentLength ?? 0) > 0,
    websocket: asksForWebSocket(raw, fields),
    // RFC 9110 §10.1.1: HTTP/1.0 does not know it.
    expectsContinue: fields.expect !== undefined && raw.version !== '1.0',
    edgeSignature: fields.edgeSignature,
    timeoutMs: client.trusted === true ? fields.timeoutMs : undefined,
    trace,
    site: undefined,
    route: undefined,
    identity: undefined,
    answerHeaders: [],
  }
  return { exchange, refusal: findFault(raw, fields, 'fault' in read ? read.fault : undefined, host !== null) }
}

/** Fields of a trace that are not passed on as they are leave the others, whatever becomes of them. */
function readTrace(fields: Fields, { tracing }: Facts): Trace | undefined {
  const trace = toTrace(fields, tracing)
  const isPassedOn = trace ? trace.sent === undefined : fields.tracestate === undefined
  if (!isPassedOn) fields.forward = dropTraceFields(fields.forward)
  return trace
}

/** RFC 6455 §4.1. */
const asksForWebSocket = ({ method, version }: RawRequest, { upgrade, connection }: Fields): boolean =>
  upgrade === 'websocket' && method === 'GET' && version === '1.1' && connection.includes('upgrade')

/** The value of one of the client's fields that may be passed on; several lines are joined (RFC 9110 §5.3). */
export function fieldValue(headers: string[], name: string): string | undefined {
  let value: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (readFieldName(headers[i] ?? '').name !== name) continue
    value = value === undefined ? headers[i + 1] : `${value}, ${headers[i + 1]}`
  }
  return value
}

/** The fields of a request, sorted once into what the gateway reads, passes on and refuses. */
export interface Fields {
  forward: string[]
  /** All lines together, with their colons and ends. */
  bytes: number
  host: string | undefined
  authorization: string | undefined
  cookie: string
  contentLength: number | null
  transferEncoding: string | undefined
  connection: string[]
  upgrade: string | undefined
  expect: string | undefined
  forwardedFor: string
  forwardedProto: string
  edgeSignature: string | undefined
  timeoutMs: number | undefined
  /** '': there are several. */
  traceparent: string | undefined
  tracestate: string | undefined
  fault: Refusal | undefined
}

const noTokens: string[] = []

function readFields(headers: string[]): Fields {
  const fields: Fields = {
    forward: [],
    bytes: 0,
    host: undefined,
    authorization: undefined,
    cookie: '',
    contentLength: null,
    transferEncoding: undefined,
    connection: noTokens,
    upgrade: undefined,
    expect: undefined,
    forwardedFor: '',
    forwardedProto: '',
    edgeSignature: undefined,
    timeoutMs: undefined,
    traceparent: undefined,
    tracestate: undefined,
    fault: undefined,
  }
  for (let i = 0; i < headers.length; i += 2) {
    const received = headers[i] ?? ''
    const value = headers[i + 1] ?? ''
    const { kind } = readFieldName(received)
    fields.bytes += received.length + value.length + 4
    switch (kind) {
      case 'forward':
        fields.forward.push(received, value)
        break
      case 'drop':
        break
      case 'refuse':
        fields.fault ??= malformed(`the field '${received.slice(0, 64)}' could be taken for one that the gateway sets`)
        break
      case 'host':
        if (fields.host !== undefined) fields.fault ??= malformed('there are two Host fields')
        fields.host = value
        break
      case 'authorization':
        if (fields.authorization !== undefined) fields.fault ??= malformed('there are two Authorization fields')
        fields.authorization = value
        fields.forward.push(received, value)
        break
      case 'cookie':
        fields.cookie = fields.cookie === '' ? value : `${fields.cookie}; ${value}`
        fields.forward.push(received, value)
        break
      case 'content-length':
        if (fields.contentLength !== null || !/^\d{1,15}$/.test(value))
          fields.fault ??= malformed('Content-Length is not one number')
        fields.contentLength = Number(value)
        break
      case 'transfer-encoding':
        fields.transferEncoding = fields.transferEncoding === undefined ? value : `${fields.transferEncoding}, ${value}`
        break
      case 'connection':
        fields.connection = [...fields.connection, ...value.toLowerCase().split(/[ \t]*,[ \t]*/)]
        break
      case 'upgrade':
        fields.upgrade = value.toLowerCase()
        break
      case 'expect':
        fields.expect = fields.expect === undefined ? value.toLowerCase() : `${fields.expect}, ${value}`
        break
      case 'x-forwarded-for':
        fields.forwardedFor = fields.forwardedFor === '' ? value : `${fields.forwardedFor}, ${value}`
        break
      case 'x-forwarded-proto':
        fields.forwardedProto = value
        break
      case 'x-daemun-edge':
        fields.edgeSignature = value
        break
      case 'traceparent':
        fields.traceparent = fields.traceparent === undefined ? value : ''
        fields.forward.push(received, value)
        break
      case 'tracestate':
        fields.tracestate = fields.tracestate === undefined ? value : `${fields.tracestate},${value}`
        fields.forward.push(received, value)
        break
      case deadlineField:
        if (/^\d{1,9}$/.test(value)) fields.timeoutMs = Math.min(fields.timeoutMs ?? Infinity, Number(value))
        break
      default:
        kind satisfies never
    }
  }
  if (fields.connection.some(namesField)) dropNamedFields(fields)
  return fields
}

const namesField = (token: string): boolean =>
  token !== 'keep-alive' && token !== 'close' && token !== 'upgrade' && token !== ''

/** Drops the client's fields that its Connection field names (RFC 9110 §7.6.1), before anything reads them. */
function dropNamedFields(fields: Fields): void {
  const kept: string[] = []
  for (let i = 0; i < fields.forward.length; i += 2) {
    const name = fields.forward[i] ?? ''
    if (!fields.connection.includes(name.toLowerCase())) kept.push(name, fields.forward[i + 1] ?? '')
  }
  fields.forward = kept
  if (fields.connection.includes('authorization')) fields.authorization = undefined
  if (fields.connection.includes('cookie')) fields.cookie = ''
  if (fields.connection.includes('traceparent')) fields.traceparent = undefined
  if (fields.connection.includes('tracestate')) fields.tracestate = undefined
}

/** Why a request is refused before any matching; in the order of what is least trustworthy. */
function findFault(
  raw: RawRequest,
  fields: Fields,
  pathFault: string | undefined,
  hostRead: boolean,
): Refusal | undefined {
  if (raw.version !== '1.1' && raw.version !== '1.0')
    return { code: 'http_version', detail: `HTTP/${raw.version.slice(0, 8)} is not spoken here` }
  if (raw.fault !== undefined) return malformed(raw.fault)
  if (fields.fault) return fields.fault
  if (raw.method === 'TRACE' || raw.method === 'CONNECT')
    return { code: 'method_not_allowed', detail: `${raw.method} is not allowed` }
  if (fields.transferEncoding !== undefined) {
    // RFC 9112 §6.1: an HTTP/1.0 message with Transfer-Encoding has faulty framing.
    if (raw.version === '1.0') return malformed('Transfer-Encoding needs HTTP/1.1')
    if (fields.contentLength !== null) return malformed('there are both Transfer-Encoding and Content-Length')
    if (fields.transferEncoding.toLowerCase() !== 'chunked')
      return { code: 'not_implemented', detail: "Transfer-Encoding other than 'chunked' is not implemented" }
  }
  if (fields.expect !== undefined && fields.expect !== '100-continue')
    return { code: 'expectation_failed', detail: "only 'Expect: 100-continue' can be met" }
  if (raw.target.length > limits.targetBytesMax)
    return {
      code: 'target_too_long',
      detail: 'the request target is too long',
      limit: { name: 'targetBytesMax', value: limits.targetBytesMax },
    }
  if (fields.bytes > limits.headerBytesMax)
    return {
      code: 'header_too_large',
      detail: 'the request head is too large',
      limit: { name: 'headerBytesMax', value: limits.headerBytesMax },
    }
  if (!hostRead) return malformed(fields.host === undefined ? 'there is no Host field' : 'the Host field is no host')
  if (pathFault !== undefined) return { code: 'ambiguous_path', detail: pathFault }
  return undefined
}

const malformed = (detail: string): Refusal => ({ code: 'malformed_request', detail })

/** Absolute-form is read as origin-form when its authority is the Host field's (RFC 9112 §3.2.2). */
function toOriginForm(target: string, host: string | undefined): { originForm: string } | { fault: string } {
  if (target.charCodeAt(0) === 0x2f) return { originForm: target }
  const parts = /^https?:\/\/([^/?#]*)([^#]*)$/i.exec(target)
  if (!parts) return { fault: 'the request target is neither a path nor a URL' }
  if ((parts[1] ?? '').toLowerCase() !== host?.toLowerCase())
    return { fault: 'the URL names another host than the Host field' }
  const rest = parts[2] ?? ''
  return { originForm: rest === '' || rest.startsWith('?') ? `/${rest}` : rest }
}

const rememberedHosts = new Map<string, { host: string; authority: string }>()
const rememberedHostsMax = 1_024

/** Host (RFC 9110 §7.2): a registered name or an address, and a port; null for anything else. */
export function readHost(value: string): { host: string; authority: string } | null {
  const known = rememberedHosts.get(value)
  if (known) return known
  const parts = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?)\.?(?::(\d{1,5}))?$/.exec(value)
  const name = parts?.[1]?.toLowerCase()
  if (name === undefined || name.includes('..') || name.length > 253 || Number(parts?.[2] ?? 0) > 65_535) return null
  const host = name.startsWith('[') ? toIpv6Host(name) : name
  if (host === null) return null
  const read = { host, authority: parts?.[2] === undefined ? host : `${host}:${parts[2]}` }
  if (rememberedHosts.size < rememberedHostsMax) rememberedHosts.set(value, read)
  return read
}

function toIpv6Host(bracketed: string): string | null {
  const address = readAddress(bracketed.slice(1, -1))
  return address && `[${address.text}]`
}
