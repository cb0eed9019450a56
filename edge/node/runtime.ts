import { randomUUID } from 'node:crypto'
import { fetch } from 'undici'
import { toServerTiming } from '../actions/server-timing.ts'
import { isInNetwork, readAddress, walkHops } from '../address.ts'
import type { Address, Network } from '../address.ts'
import type { Fields, RawRequest } from '../exchange.ts'
import { refuse } from '../gateway.ts'
import { toLogLine } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import type { Plan } from '../plan.ts'
import type { ClientAddress, Facts, Limiter, Outcome, Runtime } from '../runtime.ts'
import type { SplitTally } from '../upstreams/split-tally.ts'
import { sendAnswer } from './answer.ts'
import type { Assets } from './assets.ts'
import type { NodeIo } from './exchange-io.ts'
import { forward } from './forward.ts'
import type { Pool } from './pool.ts'
import type { ResponseCache } from './response-cache.ts'
import { serveCached } from './serve-cached.ts'
import { joinWebSocket } from './upgrade.ts'
import type { Tracer } from './tracer.ts'
import type { Tunnel } from './upgrade.ts'

export interface NodeRuntimeOptions {
  limiter: Limiter
  /** Peers whose X-Forwarded-For and X-Forwarded-Proto are believed. */
  trustedHops: Network[]
  /** Records traces. */
  tracer?: Tracer | undefined
  ports?: Facts['ports']
  pool: Pool
  assets: Assets
  metrics: Metrics
  splits: SplitTally
  /** Takes access-log lines. */
  log: (line: string) => void
  /** Joined WebSockets. */
  tunnels: Set<Tunnel>
  /** Answers of upstreams that are kept. */
  cache: ResponseCache
}

/** The runtime on Node: sockets, memory and files. */
export function createNodeRuntime(options: NodeRuntimeOptions): Runtime<NodeIo, void> {
  const { metrics, log, pool, assets, splits, tunnels, cache } = options
  const facts = createNodeFacts(options)

  function finish(plan: Plan, outcome: Outcome): void {
    const durationMs = facts.monotonic() - plan.exchange.startedAt
    metrics.finish(plan, outcome, durationMs)
    if (plan.exchange.trace?.spans) options.tracer?.finish(plan, outcome, durationMs)
    // What was kept says nothing of how the side is now.
    if (plan.kind === 'proxy' && plan.side && !isKept(outcome)) splits.count(plan.side, outcome)
    log(toLogLine(plan, outcome, facts.now(), durationMs))
  }

  /** Carries a plan out, unless in the time it took to make it the client has left or sent what is no request. */
  const unlessLost =
    <P extends Plan>(carryOut: (plan: P, io: NodeIo) => void) =>
    (plan: P, io: NodeIo): void => {
      if (io.response.destroyed) return finish(plan, { status: 0, bytes: 0, end: 'client_gone' })
      if (!io.malformed) return carryOut(plan, io)
      sendAnswer(refuse(plan.exchange, io.malformed), io, finish, { refusal: io.malformed }, plan)
    }

  return {
    ...facts,
    tracing: options.tracer,
    weightsOf: splits.weightsOf,
    answer: unlessLost((plan, io) => sendAnswer(plan, io, finish)),
    forward: unlessLost((plan, io) => {
      if (plan.websocket) return joinWebSocket(plan, io, pool, finish, tunnels)
      // Nobody joins it: what it sends is thrown away, so that it is noticed when it leaves.
      io.upgrade?.socket.resume().once('end', () => io.upgrade?.socket.destroy())
      if (plan.cache) return serveCached(plan, plan.cache, io, { cache, pool, finish })
      forward(plan, io, pool, finish)
    }),
    readAsset: unlessLost((plan, io) => {
      plan.exchange.answerHeaders.push(...toServerTiming(plan.exchange, facts.monotonic()))
      assets.send(plan, io, finish)
    }),
  }
}

/** What deciding needs to know on Node; `explain` decides with it too. */
export function createNodeFacts({
  limiter,
  trustedHops,
  ports,
}: Pick<NodeRuntimeOptions, 'limiter' | 'trustedHops' | 'ports'>): Facts {
  const addresses = new Map<string, Address>()

  function clientAddress({ peer, secure }: RawRequest, fields: Fields): ClientAddress {
    const address = addressOf(peer)
    const scheme = secure ? 'https' : 'http'
    if (trustedHops.length === 0 || !trustedHops.some((network) => isInNetwork(address, network)))
      return { address, scheme }
    // The hop in front of us says how the client reached it.
    const forwarded = fields.forwardedProto.toLowerCase()
    return {
      address: walkHops(address, fields.forwardedFor, trustedHops),
      scheme: forwarded === 'https' || forwarded === 'http' ? forwarded : scheme,
      trusted: true,
    }
  }

  function addressOf(peer: string): Address {
    const known = addresses.get(peer)
    if (known) return known
    if (addresses.size >= addressesMax) addresses.clear()
    const address = readAddress(peer) ?? nowhere
    addresses.set(peer, address)
    return address
  }

  return {
    clientAddress,
    isEdge: false,
    ports,
    limiter,
    fetchText,
    now: Date.now,
    monotonic: () => performance.now(),
    randomId: randomUUID,
  }
}

const addressesMax = 10_000

/** A peer that is gone has no address any more. */
const nowhere: Address = { text: '0.0.0.0', bucket: '0.0.0.0', groups: [0, 0, 0, 0, 0, 0xffff, 0, 0] }

async function fetchText(
  url: string,
  { timeoutMs, bytesMax }: { timeoutMs: number; bytesMax: number },
): Promise<string> {
  const response = await fetch(url, {
    signal: AbortSignal.timeout(timeoutMs),
    redirect: 'error',
    headers: { accept: 'application/json' },
  })
  if (!response.ok || !response.body) throw new Error(`status ${response.status}`)
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body) {
    size += chunk.length
    if (size > bytesMax) throw new Error('too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

const isKept = ({ cache }: Outcome): boolean => cache === 'hit' || cache === 'stale' || cache === 'collapsed'
