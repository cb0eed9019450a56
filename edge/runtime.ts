import type { Address } from './address.ts'
import type { CompiledSplit } from './compile.ts'
import type { CacheVerdict } from './cache/cache-status.ts'
import type { Fields, RawRequest } from './exchange.ts'
import type { Refusal } from './error.ts'
import type { AnswerPlan, FilesPlan, ProxyPlan } from './plan.ts'
import type { Tracing } from './trace-context.ts'

/** What deciding needs to know of the world. `explain` and tests bring their own. */
export interface Facts {
  /** Who asks and over which scheme, through the declared chain of trusted hops. */
  clientAddress(raw: RawRequest, fields: Fields): ClientAddress
  /** Whether requests come here first (they are signed) or through the edge (signatures are checked). */
  isEdge: boolean
  /** The ports that http and https are taken on, when the program takes https itself. */
  ports?: { http: number; https: number }
  /**
   * What answers a certificate authority's challenge (RFC 8555 §8.3), by its token; undefined: there is no such one.
   * Without this function rows decide about such requests too.
   */
  challenge?(token: string): string | undefined | Promise<string | undefined>
  /** Counts requests. */
  limiter: Limiter
  /** The weights of a split's sides at this moment. Default: those of the table. */
  weightsOf?(split: CompiledSplit): readonly number[]
  /** The text at a URL, at most `bytesMax` long, within `timeoutMs`; rejects otherwise. For key sets. */
  fetchText(url: string, options: { timeoutMs: number; bytesMax: number }): Promise<string>
  /** Milliseconds since the epoch. */
  now(): number
  /** Milliseconds that only ever grow, with fractions: for durations. */
  monotonic(): number
  /** Unique, unguessable, of visible ASCII. */
  randomId(): string
  /** Which traces are recorded; without it none is, and what callers say of theirs passes through. */
  tracing?: Tracing | undefined
}

export interface ClientAddress {
  address: Address
  scheme: 'http' | 'https'
  /** The request came from a declared hop: what that says of its own time is believed. */
  trusted?: boolean
}

/** Everything that differs between Node and Workers. `Io` is what a request came on, `Reply` what it is answered with. */
export interface Runtime<Io, Reply> extends Facts {
  /** Answers with what the plan says. */
  answer(plan: AnswerPlan, io: Io): Reply
  /** Passes the request on to an upstream and its answer back, as it comes. */
  forward(plan: ProxyPlan, io: Io): Reply
  /** Answers with a file. */
  readAsset(plan: FilesPlan, io: Io): Reply
}

/** How a request ended: every plan ends in exactly one of these. */
export interface Outcome {
  /** The status that was sent; 0 when the client was gone before. */
  status: number
  /** Bytes of the answer's body. */
  bytes: number
  /** 'done', or why the answer is not whole. */
  end: 'done' | 'client_gone' | 'upstream_cut' | 'stalled' | 'timed_out'
  /** Milliseconds from sending to the upstream until its head. */
  upstreamMs?: number
  /** Milliseconds from the request's beginning until it was sent there (the last time); told when its trace is recorded. */
  sentAfterMs?: number
  /** The server that was asked. */
  server?: string
  /** How often the upstream was asked, when it was more than once. */
  attempts?: number
  /** Why an upstream gave no whole answer: an error code of the system or of the client library. */
  cause?: string
  /** What the cache did, where the row has one. */
  cache?: CacheVerdict
  /** What was refused in the end, when it was not the plan. */
  refusal?: Refusal
}

export interface Limiter {
  /** Counts one request of `key` under `rule`, if it is allowed. Never rejects. */
  take(rule: LimitRule, key: string): LimitVerdict | Promise<LimitVerdict>
}

export interface LimitRule {
  /** Unique among all rules, stable across restarts: the counters' name in the shared store. */
  id: string
  requests: number
  windowMs: number
  /** Given: a token bucket of burst + 1; else a sliding window. */
  burst: number | undefined
  whenDown: 'local' | 'closed'
}

export interface LimitVerdict {
  /** 'down': the shared store does not answer and the rule says 'closed'. */
  outcome: 'allowed' | 'refused' | 'down'
  /** How many more are allowed now; never negative. */
  remaining: number
  /** Milliseconds since the epoch: when one more (bucket) or the whole window is free again. */
  resetAt: number
}
