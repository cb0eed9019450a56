import { X509Certificate } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, FlattenedSign } from 'jose'
import { Agent, request } from 'undici'
import type { RenewalWindow } from '../acme-schedule.ts'
import { limits } from '../limits.ts'
import { isRecord } from '../shape.ts'
import { createKeys, requestCertificate, toKeyText } from './issue-certificate.ts'
import type { Issued, KeyPair } from './issue-certificate.ts'

export interface AcmeClientOptions {
  directory: string
  /** The authority that the directory is trusted by, as PEM; undefined: those of the system. */
  ca: string | undefined
  email: string
  /** The key of the account; with a new one comes a new account. */
  accountKeys: KeyPair
  /** Resolves after so long; rejects when the signal says so. */
  wait(ms: number, signal: AbortSignal): Promise<void>
  /** Milliseconds that only grow. */
  monotonic: () => number
  /** How long one answer may take. */
  timeoutMs?: number
}

interface AcmeOrder {
  names: string[]
  /** The certificate that this one follows, when the authority has to know (RFC 9773 §5). */
  replaces?: string
  /** Answers a challenge; called with undefined when that is over. */
  publish(token: string, text: string | undefined): Promise<void>
  signal: AbortSignal
}

/** A client of one authority (RFC 8555), for one account. Rejects with an AcmeError for whatever it does not get. */
export interface AcmeClient {
  order(order: AcmeOrder): Promise<Issued>
  /** When the authority would have a certificate renewed (RFC 9773); undefined: it does not say so. */
  renewalWindow(certificate: string, signal: AbortSignal): Promise<(RenewalWindow & { againMs: number }) | undefined>
  close(): Promise<void>
}

/** What an authority refused, or that it cannot be reached. No message has a key, a token or a nonce in it. */
export class AcmeError extends Error {
  /** 'rateLimited': the last part of the problem's type (RFC 8555 §6.7), or what happened. */
  readonly type: string
  readonly retryAfterMs: number | undefined
  constructor(type: string, detail: string, retryAfterMs?: number) {
    super(detail === '' ? type : `${type}: ${toOneLine(detail)}`)
    this.name = 'AcmeError'
    this.type = type
    this.retryAfterMs = retryAfterMs
  }
}

interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
}

export function createAcmeClient(options: AcmeClientOptions): AcmeClient {
  const { accountKeys, wait, monotonic, timeoutMs = limits.acmeTimeoutMs } = options
  const agent = new Agent({
    connect: { timeout: timeoutMs, ...(options.ca !== undefined && { ca: options.ca }) },
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    maxResponseSize: limits.acmeBytesMax,
  })
  const nonces: string[] = []
  let newNonceUrl = ''
  let account: string | undefined

  async function order({ names, replaces, publish, signal }: AcmeOrder): Promise<Issued> {
    const givenUpAt = monotonic() + limits.acmeOrderMs
    const urls = await readDirectory(signal)
    account ??= await openAccount(urls, signal)
    const placed = await placeOrder(urls, names, replaces, signal)
    for (const url of toTexts(placed.body['authorizations'])) await prove(url, { publish, signal, givenUpAt })
    const keys = createKeys()
    const csr = requestCertificate(names, keys).toString('base64url')
    await post(toText(placed.body['finalize']), { csr }, signal)
    const done = await poll(placed.url, ['pending', 'ready', 'processing'], { signal, givenUpAt })
    if (done['status'] !== 'valid') throw toOrderError(done)
    const { text } = await post(toText(done['certificate']), undefined, signal)
    return toIssued(text, keys, names)
  }

  async function readDirectory(signal: AbortSignal): Promise<Record<string, unknown>> {
    const urls = toRecord(await send(options.directory, 'GET', undefined, signal))
    newNonceUrl = toText(urls['newNonce'])
    return urls
  }

  /** RFC 8555 §7.3: with a key that has an account, that one. */
  async function openAccount(urls: Record<string, unknown>, signal: AbortSignal): Promise<string> {
    const claims = { termsOfServiceAgreed: true, contact: [`mailto:${options.email}`] }
    return toLocation(await post(toText(urls['newAccount']), claims, signal))
  }
  async function placeOrder(
    urls: Record<string, unknown>,
    names: string[],
    replaces: string | undefined,
    signal: AbortSignal,
  ): Promise<{ url: string; body: Record<string, unknown> }> {
    const identifiers = names.map((value) => ({ type: 'dns', value }))
    const follows = replaces !== undefined && typeof urls['renewalInfo'] === 'string' ? { replaces } : {}
    try {
      const answer = await post(toText(urls['newOrder']), { identifiers, ...follows }, signal)
      return { url: toLocation(answer), body: toRecord(answer) }
    } catch (error) {
      if (!(error instanceof AcmeError)) throw error
      // The authority has forgotten the account; the next attempt opens one.
      if (error.type === 'accountDoesNotExist' || error.type === 'unauthorized') account = undefined
      // RFC 9773 §5: another order has followed it already, or the authority does not know it.
      if (!('replaces' in follows) || !/alreadyReplaced|malformed|notFound/.test(error.type)) throw error
      return placeOrder(urls, names, undefined, signal)
    }
  }

  interface Underway {
    signal: AbortSignal
    givenUpAt: number
  }

  /** Shows that a host is ours (RFC 8555 §7.5.1). */
  async function prove(url: string, { publish, ...underway }: Underway & Pick<AcmeOrder, 'publish'>): Promise<void> {
    const authorization = toRecord(await post(url, undefined, underway.signal))
    if (authorization['status'] === 'valid') return
    const challenge = toRecords(authorization['challenges']).find(({ type }) => type === 'http-01')
    const host = toText(toRecordOr(authorization['identifier'])['value'])
    if (authorization['status'] !== 'pending' || !challenge)
      throw new AcmeError('noChallenge', `${host} cannot be proven over HTTP here`)
    const token = toText(challenge['token'])
    if (!/^[\w-]{16,256}$/.test(token)) throw new AcmeError('malformed', 'the token of a challenge is none')
    const thumbprint = await calculateJwkThumbprint(await exportJWK(accountKeys.publicKey))
    await publish(token, `${token}.${thumbprint}`)
    try {
      await post(toText(challenge['url']), {}, underway.signal)
      const settled = await poll(url, ['pending'], underway)
      if (settled['status'] !== 'valid') throw toChallengeError(host, settled)
    } finally {
      await publish(token, undefined)
    }
  }

  /** Asks until the state is another one; as often as the authority likes it. */
  async function poll(
    url: string,
    states: string[],
    { signal, givenUpAt }: Underway,
  ): Promise<Record<string, unknown>> {
    for (let waitMs = 250; ; waitMs = Math.min(waitMs * 2, 5_000)) {
      const answer = await post(url, undefined, signal)
      const body = toRecord(answer)
      if (!states.includes(String(body['status']))) return body
      // 'ready' after finalizing: some authorities are slow to say 'processing'.
      if (monotonic() > givenUpAt) throw new AcmeError('timeout', `${toShown(url)} stays ${String(body['status'])}`)
      await wait(Math.max(waitMs, Math.min(readRetryAfter(answer) ?? 0, 30_000)), signal)
    }
  }

  /** Signs and sends (RFC 8555 §6.2); without claims a POST-as-GET. A bad nonce is no failure (§6.5). */
  async function post(url: string, claims: object | undefined, signal: AbortSignal): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      const nonce = nonces.pop() ?? (await fetchNonce(signal))
      const payload = new TextEncoder().encode(claims === undefined ? '' : JSON.stringify(claims))
      const who = account === undefined ? { jwk: await exportJWK(accountKeys.publicKey) } : { kid: account }
      const signed = await new FlattenedSign(payload)
        .setProtectedHeader({ alg: 'ES256', nonce, url, ...who })
        .sign(accountKeys.privateKey)
      try {
        return await send(url, 'POST', JSON.stringify(signed), signal)
      } catch (error) {
        if (!(error instanceof AcmeError) || error.type !== 'badNonce' || tries === noncesTriedMax) throw error
      }
    }
  }

  async function fetchNonce(signal: AbortSignal): Promise<string> {
    await send(newNonceUrl, 'HEAD', undefined, signal)
    const nonce = nonces.pop()
    if (nonce === undefined) throw new AcmeError('malformed', 'the authority gives no nonce')
    return nonce
  }

  async function send(
    url: string,
    method: 'GET' | 'HEAD' | 'POST',
    body: string | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    const answer = await receive(url, method, body, signal)
    const nonce = answer.headers['replay-nonce']
    if (typeof nonce === 'string' && /^[\w-]+$/.test(nonce)) {
      nonces.push(nonce)
      if (nonces.length > 10) nonces.shift()
    }
    if (answer.status >= 400) throw toProblem(answer)
    return answer
  }

  async function receive(
    url: string,
    method: 'GET' | 'HEAD' | 'POST',
    body: string | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    try {
      const {
        statusCode,
        headers,
        body: stream,
      } = await request(url, {
        method,
        dispatcher: agent,
        headers: {
          'user-agent': 'daemun',
          ...(body !== undefined && { 'content-type': 'application/jose+json' }),
        },
        ...(body !== undefined && { body }),
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      })
      return { status: statusCode, headers, text: await stream.text() }
    } catch (error) {
      signal.throwIfAborted()
      throw new AcmeError('unreachable', `${toShown(url)} (${toCause(error)})`)
    }
  }

  async function renewalWindow(
    certificate: string,
    signal: AbortSignal,
  ): Promise<(RenewalWindow & { againMs: number }) | undefined> {
    const { renewalInfo } = await readDirectory(signal)
    const id = toCertificateId(certificate)
    if (typeof renewalInfo !== 'string' || id === undefined) return undefined
    const answer = await send(`${renewalInfo.replace(/\/$/, '')}/${id}`, 'GET', undefined, signal)
    const suggested = toRecordOr(toRecord(answer)['suggestedWindow'])
    const [start, end] = [Date.parse(toText(suggested['start'])), Date.parse(toText(suggested['end']))]
    if (Number.isNaN(start) || Number.isNaN(end) || end < start) return undefined
    return { start, end, againMs: readRetryAfter(answer) ?? 21_600_000 }
  }

  return { order, renewalWindow, close: () => agent.destroy() }
}

const noncesTriedMax = 20

/** RFC 9773 §4.1: what the authority knows a certificate by; undefined: nothing, such as for a stand-in. */
export function toCertificateId(certificate: string): string | undefined {
  const { raw, serialNumber } = new X509Certificate(certificate)
  // The extension authorityKeyIdentifier (RFC 5280 §4.2.1.1): its id, a string with a sequence, and [0], the key's.
  const at = raw.indexOf(Buffer.from('0603551d23', 'hex'))
  const [tag, size = 0] = [raw[at + 9], raw[at + 10]]
  if (at === -1 || tag !== 0x80 || size === 0 || size > 64) return undefined
  const serial = Buffer.from(serialNumber, 'hex')
  const positive = (serial[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.of(0), serial]) : serial
  return `${raw.subarray(at + 11, at + 11 + size).toString('base64url')}.${positive.toString('base64url')}`
}

/** What came must be what was ordered: an authority's mistake is not put before clients. */
function toIssued(text: string, keys: KeyPair, names: string[]): Issued {
  const certificate = (text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).join('\n')
  if (certificate === '') throw new AcmeError('malformed', 'the authority sends no certificate')
  const leaf = new X509Certificate(certificate)
  if (!leaf.checkPrivateKey(keys.privateKey)) throw new AcmeError('malformed', 'the certificate is for another key')
  const missing = names.find((name) => leaf.checkHost(name) === undefined)
  if (missing !== undefined) throw new AcmeError('malformed', `the certificate is not for ${missing}`)
  return { certificate: `${certificate}\n`, key: toKeyText(keys.privateKey) }
}

function toProblem(answer: Answer): AcmeError {
  const { type, detail, subproblems } = parse(answer.text)
  const name = typeof type === 'string' ? type.replace(/^.*:/, '') : `status ${answer.status}`
  const more = toRecords(subproblems).map(({ detail: one }) => toText(one))
  return new AcmeError(name, [typeof detail === 'string' ? detail : '', ...more].join('; '), readRetryAfter(answer))
}

function toChallengeError(host: string, authorization: Record<string, unknown>): AcmeError {
  const failed = toRecords(authorization['challenges']).find(({ error }) => isRecord(error))
  const { type = 'invalid', detail = '' } = toRecordOr(failed?.['error'])
  return new AcmeError(toText(type).replace(/^.*:/, ''), `${host}: ${toText(detail)}`)
}

function toOrderError(order: Record<string, unknown>): AcmeError {
  const { type = 'orderInvalid', detail = `the order is ${String(order['status'])}` } = toRecordOr(order['error'])
  return new AcmeError(toText(type).replace(/^.*:/, ''), toText(detail))
}

/** RFC 9110 §10.2.3: seconds, or a date, by the clock of who says so. */
function readRetryAfter({ headers }: Answer): number | undefined {
  const value = headers['retry-after']
  if (typeof value !== 'string') return undefined
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.parse(String(headers['date']))
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}

function parse(text: string): Record<string, unknown> {
  try {
    return toRecordOr(JSON.parse(text))
  } catch {
    return {}
  }
}

function toRecord({ text }: Answer): Record<string, unknown> {
  const read = parse(text)
  if (Object.keys(read).length === 0) throw new AcmeError('malformed', 'the authority sends no JSON')
  return read
}

const toRecordOr = (value: unknown): Record<string, unknown> => (isRecord(value) ? value : {})
const toRecords = (value: unknown): Record<string, unknown>[] => (Array.isArray(value) ? value.filter(isRecord) : [])
const toText = (value: unknown): string => (typeof value === 'string' ? value : '')
const toTexts = (value: unknown): string[] => (Array.isArray(value) ? value.map(toText) : [])

function toLocation({ headers }: Answer): string {
  if (typeof headers['location'] === 'string') return headers['location']
  throw new AcmeError('malformed', 'the authority does not say where its answer is')
}

/** What comes from elsewhere goes into a log line: short, and with nothing that could end it. */
const toOneLine = (text: string): string => text.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 300)

/** A URL without what may be known to its account only. */
const toShown = (url: string): string => (URL.canParse(url) ? new URL(url).origin : 'a URL that is none')

function toCause(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
