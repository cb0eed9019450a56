import { waitUntil } from 'cloudflare:workers'
import { readAddress } from '../address.ts'
import type { Address } from '../address.ts'
import type { RawRequest } from '../exchange.ts'
import { limits } from '../limits.ts'
import { toLogLine } from '../log.ts'
import type { FilesPlan, Plan, ProxyPlan } from '../plan.ts'
import type { Outcome, Runtime } from '../runtime.ts'
import { toAnswer, toRefusal } from './answer.ts'
import { readAsset, toAssetFolder } from './assets.ts'
import { dropSideFields } from '../upstreams/split.ts'
import { forward } from './forward.ts'
import { serveCached } from './serve-cached.ts'
import type { Ask } from './serve-cached.ts'
import { toUpstream, toZone } from './target.ts'
import { createWorkerLimiter } from './limiter.ts'
import type { Bindings } from './limiter.ts'
import type { Fetcher, WorkerIo } from './platform.ts'

/** The runtime on Workers: fetch, bindings and the platform's own fields. */
export function createWorkerRuntime(bindings: Bindings): Runtime<WorkerIo, Response | Promise<Response>> {
  const assets = isFetcher(bindings['ASSETS']) ? bindings['ASSETS'] : undefined
  const isZone = bindings['EDGE_FORWARD'] === 'zone'

  function finish(plan: Plan, outcome: Outcome): void {
    console.log(toLogLine(plan, outcome, Date.now(), performance.now() - plan.exchange.startedAt).trimEnd())
  }

  return {
    clientAddress: ({ peer, secure }) => ({
      address: readAddress(peer) ?? loopback,
      scheme: secure ? 'https' : 'http',
    }),
    isEdge: true,
    limiter: createWorkerLimiter(bindings, { now: Date.now, log: (message) => console.warn(message) }),
    fetchText,
    now: Date.now,
    monotonic: () => performance.now(),
    randomId: () => crypto.randomUUID(),
    answer: (plan) => toAnswer(plan, finish),
    async forward(plan, io) {
      if (isZone && plan.side) dropSideFields(plan.exchange, plan.side.split)
      if (isZone) return forward(plan, await toZone(plan.exchange, Date.now()), io, finish)
      const ask: Ask = async (asked, account, tap) => {
        const target = toUpstream(asked)
        if (!('code' in target)) return forward(asked, target, io, account, tap && { tap })
        return tap?.fail(target) ?? toRefusal(asked, target, account)
      }
      return plan.cache ? serveCached(plan, plan.cache, io, { ask, finish, now: Date.now }) : ask(plan, finish)
    },
    async readAsset(plan, io) {
      // A folder of the VM, such as the one for certificate challenges.
      if (isZone && toAssetFolder(plan.files.root) === undefined)
        return forward(toZonePlan(plan), await toZone(plan.exchange, Date.now()), io, finish)
      return readAsset(plan, assets, io, finish)
    },
  }
}

/** A request as the platform hands it over: what it has settled already is said so, not guessed at. */
export function toRaw(request: Request): RawRequest {
  const { url } = request
  const path = url.indexOf('/', url.indexOf('//') + 2)
  const headers: string[] = []
  for (const [name, value] of request.headers) if (!isSettled(name)) headers.push(name, value)
  const encodings = readEncodings(request)
  if (encodings) headers.push('accept-encoding', encodings)
  const length = request.headers.get('content-length')
  if (request.body && length !== null) headers.push('content-length', length)
  else if (request.body) headers.push('transfer-encoding', 'chunked')
  // Only a real upgrade reaches us with this field; the one that went with it is the platform's.
  if (request.headers.get('upgrade') !== null) headers.push('connection', 'upgrade')
  return {
    method: request.method,
    target: path === -1 ? '/' : url.slice(path),
    version: '1.1',
    headers,
    peer: request.headers.get('cf-connecting-ip') ?? '',
    secure: url.startsWith('https:'),
  }
}

const isSettled = (name: string): boolean =>
  name === 'content-length' || name === 'transfer-encoding' || name === 'accept-encoding'

/** The platform writes what itself can decode into the field, and keeps what the client has said. */
function readEncodings(request: Request & { cf?: { clientAcceptEncoding?: unknown } }): string | null {
  const said = request.cf?.clientAcceptEncoding
  return typeof said === 'string' ? said : request.headers.get('accept-encoding')
}

/** On a laptop nobody says who asks. */
const loopback = readAddress('127.0.0.1') as Address

/** Awaited by several requests: so it must not end with the one that began it. */
function fetchText(url: string, { timeoutMs, bytesMax }: { timeoutMs: number; bytesMax: number }): Promise<string> {
  const text = readText(url, timeoutMs, bytesMax)
  waitUntil(text.catch(() => {}))
  return text
}

async function readText(url: string, timeoutMs: number, bytesMax: number): Promise<string> {
  const response = await fetch(url, {
    signal: AbortSignal.timeout(timeoutMs),
    redirect: 'manual',
    headers: { accept: 'application/json' },
  })
  if (!response.ok || !response.body) throw new Error(`status ${response.status}`)
  const decoder = new TextDecoder()
  let text = ''
  let size = 0
  for await (const chunk of response.body) {
    size += chunk.length
    if (size > bytesMax) throw new Error('too long')
    text += decoder.decode(chunk, { stream: true })
  }
  return text + decoder.decode()
}

function toZonePlan({ exchange, path, response }: FilesPlan): ProxyPlan {
  const upstream = {
    id: 'zone',
    name: 'zone',
    table: exchange.site?.table ?? '',
    servers: [],
    balance: 'round-robin' as const,
    slowStartMs: limits.slowStartMs,
    health: undefined,
    inFlightMax: limits.inFlightMax,
    connectTimeoutMs: limits.connectTimeoutMs,
    client: 'lean' as const,
  }
  return {
    kind: 'proxy',
    exchange,
    upstream,
    target: path,
    headers: [],
    readTimeoutMs: limits.readTimeoutMs,
    bodyBytesMax: limits.bodyBytesMax,
    websocket: false,
    timeoutMs: undefined,
    retry: { attempts: 1, statuses: [] },
    idleMs: limits.websocketIdleMs,
    compress: false,
    cache: undefined,
    response,
  }
}

const isFetcher = (value: unknown): value is Fetcher =>
  typeof value === 'object' && value !== null && 'fetch' in value && typeof value.fetch === 'function'
