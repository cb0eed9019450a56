import type { CachePlan } from './cache/cache-plan.ts'
import type { CompiledFiles, CompiledRetry, CompiledUpstream, ResponseEdits } from './compile.ts'
import type { Refusal } from './error.ts'
import type { Exchange } from './exchange.ts'
import type { SideChoice } from './upstreams/split.ts'

/** What will be done with a request: data, made by deciding, carried out by a runtime. */
export type Plan = AnswerPlan | ProxyPlan | FilesPlan

export interface AnswerPlan {
  kind: 'answer'
  exchange: Exchange
  status: number
  /** All fields, flat: name, value, … */
  headers: string[]
  body: string
  /** Why the gateway refused, if it did. */
  refusal: Refusal | undefined
}

export interface ProxyPlan {
  kind: 'proxy'
  exchange: Exchange
  upstream: CompiledUpstream
  /** Why it is this upstream, where it is a side of several. */
  side?: SideChoice | undefined
  /** Path and query as the upstream is asked for them. */
  target: string
  /** All request fields but framing, flat; Host first. */
  headers: string[]
  readTimeoutMs: number
  bodyBytesMax: number
  /** The request asks for a WebSocket and the row lets it through. */
  websocket: boolean
  idleMs: number
  /** From the request's beginning to the answer's end; undefined: no bound. */
  timeoutMs: number | undefined
  retry: CompiledRetry
  /** Texts that the upstream sends plain are compressed; on Workers the platform does that by itself. */
  compress: boolean
  /** undefined: the row's site keeps no answers. */
  cache: CachePlan | undefined
  response: ResponseEdits
}

export interface FilesPlan {
  kind: 'files'
  exchange: Exchange
  files: CompiledFiles
  /** The canonical path below the folder. */
  path: string
  response: ResponseEdits
}
