import type { Lane, Pool } from '../admission/pool.ts'
import type { Predictor } from '../admission/predict.ts'
import type { Failure } from '../relay/failure.ts'
import type { RetryBudget } from '../relay/retry-budget.ts'
import type { ResumePoint } from '../relay/resume.ts'
import type { Generation, Kind } from '../requests/generation.ts'
import type { Order, Upstream } from './upstream.ts'

/** `embeddings` are vLLM servers of a model for vectors. */
export type ProviderName = 'vllm' | 'openai' | 'anthropic' | 'demo' | 'embeddings'

/** A source of tokens: one or more servers that give the same answers. */
export interface Provider {
  name: ProviderName
  /** What is sent to it leaves the house, and is paid for. */
  external: boolean
  kinds: readonly Kind[]
  pool: Pool
  predictor: Predictor
  retries: RetryBudget
  /** The model that it is asked for when a request names this one; undefined: it has nothing for it. */
  toModel(model: string): string | undefined
  models(): Model[]
  upstreamOf(lane: Lane): Upstream
  toOrder(generation: Generation, context: OrderContext): Order
  /** What to ask a server so that it goes on behind these ids; undefined: it cannot be told from where. */
  toResumeOrder?(
    lane: Lane,
    point: ResumePoint,
    generation: Generation,
    context: OrderContext,
  ): Promise<ResumeOrder | undefined>
  succeeded(lane: Lane): void
  failed(lane: Lane, failure: Failure): void
  /** Whether it can answer, and why not. */
  readiness(): string | undefined
  /** Looks after its servers until it is closed. */
  start(): Promise<void>
  close(): Promise<void>
}

interface ResumeOrder {
  order: Order
  /** Of the answer's tokens so far, those that the client has seen. */
  tokens: number
}

interface OrderContext {
  requestId: string
  model: string
  /** W3C trace context, as received: name, value, … */
  trace: string[]
}

/** As /v1/models lists it. */
export interface Model {
  id: string
  ownedBy: string
  lengthMax?: number
}

/** The body with other members: spliced behind its own where it has none of them, so that a long one is not written anew. */
export function withMembers(generation: Generation, members: Record<string, unknown>): Buffer {
  const { bytes, body } = generation
  const names = Object.keys(members)
  if (names.some((name) => Object.hasOwn(body, name))) return Buffer.from(JSON.stringify({ ...body, ...members }))
  const closes = bytes.lastIndexOf('}')
  const more = JSON.stringify(members).slice(1)
  return Buffer.concat([bytes.subarray(0, closes), Buffer.from(`,${more}`)])
}

export const pathOf: Record<Kind, string> = {
  chat: '/v1/chat/completions',
  text: '/v1/completions',
  embeddings: '/v1/embeddings',
}
