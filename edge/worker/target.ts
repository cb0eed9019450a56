import { edgeField, signEdge } from '../edge-signature.ts'
import type { CompiledUpstream } from '../compile.ts'
import type { Refusal } from '../error.ts'
import type { Exchange } from '../exchange.ts'
import type { ProxyPlan } from '../plan.ts'
import { createGroup } from '../upstreams/group.ts'
import type { Group } from '../upstreams/group.ts'
import { isWorthRepeating, mayRepeat } from '../upstreams/retry.ts'
import type { Failure } from '../upstreams/retry.ts'

/** What is asked of whom. */
interface Subrequest {
  url: string
  /** Flat. */
  headers: string[]
  /** Named in the log. */
  server: string
}

/** Where a request goes, and where else when that fails. */
export interface Target {
  /** The attempt under way. */
  current(): Subrequest
  attempts(): number
  answered(ms: number): void
  /** Says what became of the attempt; true: `current` is another one now, which is worth trying. */
  failed(failure: Failure, cause: string): boolean
  /** The request has ended. */
  end(): void
}

/** The request as the row's upstream gets it, or why no server of it can be asked. */
export function toUpstream(plan: ProxyPlan): Target | Refusal {
  const { exchange, retry } = plan
  const group = groupOf(plan.upstream)
  group.budget.count(exchange.startedAt)
  let index = group.choose(exchange, retry)
  if (index === -1) return group.toRefusal()
  const tried: number[] = []
  group.begin(index)

  function failed(failure: Failure, cause: string): boolean {
    group.health.failed(index, failure, cause)
    if (tried.length + 1 >= retry.attempts || !isWorthRepeating(failure) || !mayRepeat(exchange)) return false
    const other = group.choose(exchange, retry, [...tried, index])
    if (other === -1 || !group.budget.take(performance.now())) return false
    group.end(index)
    tried.push(index)
    index = other
    group.begin(index)
    return true
  }

  return {
    current: () => {
      const { origin } = group.serverAt(index)
      return { url: `${origin}${plan.target}`, headers: plan.headers, server: origin }
    },
    attempts: () => tried.length + 1,
    answered: (ms) => group.health.succeeded(index, ms),
    failed,
    end: () => group.end(index),
  }
}

const groups = new WeakMap<CompiledUpstream, Group>()

/** What this isolate knows of an upstream's servers. */
function groupOf(upstream: CompiledUpstream): Group {
  const known = groups.get(upstream)
  if (known) return known
  const group = createGroup(upstream, { now: () => performance.now() })
  groups.set(upstream, group)
  return group
}

/**
 * The request as it came, to the VM behind the edge, where the same table decides once more: its path and fields are the
 * client's, not the row's. What the edge says of the client is signed (`edge-signature.ts`) over what is sent.
 */
export async function toZone(exchange: Exchange, now: number): Promise<Target> {
  const url = new URL(`${exchange.scheme}://${exchange.authority}${exchange.path}${exchange.query}`)
  const target = url.href.slice(url.origin.length)
  const headers = [...exchange.headers]
  const secret = exchange.site?.site.trustedEdges?.secret
  if (secret !== undefined) {
    const sent = { ...exchange, authority: url.host, path: target, query: '' }
    headers.push(edgeField, await signEdge(secret, sent, now))
  }
  const only = { url: url.href, headers, server: url.origin }
  return { current: () => only, attempts: () => 1, answered: () => {}, failed: () => false, end: () => {} }
}
