import type { Kind } from '../requests/generation.ts'
import type { Limits } from '../limits.ts'
import type { Sink } from '../providers/upstream.ts'
import type { Usage } from './events.ts'
import type { Failure } from './failure.ts'
import { readRetryAfter, toConnectionFailure } from './failure.ts'

export interface Whole {
  body: Buffer
  contentType: string
  usage: Usage
}

interface Options {
  kind: Kind
  limits: Limits
  now: () => number
  /** What became of it; called once. */
  onDone(whole: Whole): void
  onFailure(failure: Failure): void
}

/** An answer that is kept until it is whole, and looked at before anybody gets it. */
export class WholeAnswer implements Sink {
  readonly #options: Options
  #status = 0
  #contentType = 'application/json'
  #retryAfterMs: number | undefined
  #chunks: Buffer[] = []
  #bytes = 0
  #over = false

  constructor(options: Options) {
    this.#options = options
  }

  onHead(status: number, headers: (name: string) => string | undefined): void {
    this.#status = status
    this.#contentType = headers('content-type') ?? this.#contentType
    if (status !== 200) this.#retryAfterMs = readRetryAfter(headers('retry-after'), this.#options.now())
  }

  onData(chunk: Buffer): void {
    this.#bytes += chunk.length
    if (this.#bytes > this.#options.limits.answerBytesMax) return this.#fail({ reason: 'too_large' })
    this.#chunks.push(chunk)
  }

  onEnd(): void {
    const body = this.#chunks.length === 1 ? (this.#chunks[0] as Buffer) : Buffer.concat(this.#chunks)
    if (this.#status !== 200)
      return this.#fail({ reason: 'status', status: this.#status, body, retryAfterMs: this.#retryAfterMs })
    const read = readWhole(this.#options.kind, body)
    if ('reason' in read) return this.#fail(read)
    if (this.#over) return
    this.#over = true
    this.#options.onDone({ body, contentType: this.#contentType, usage: read })
  }

  onError(error: Error): void {
    // Less than the length that was announced, or the end of it missing.
    this.#fail(this.#status === 0 ? toConnectionFailure(error) : { reason: 'truncated', cause: error.name })
  }

  #fail(failure: Failure): void {
    if (this.#over) return
    this.#over = true
    this.#chunks = []
    this.#options.onFailure(failure)
  }
}

interface Body {
  choices?: { finish_reason?: string | null }[]
  data?: unknown[]
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null
}

/** Its usage, when it is what it says it is; what is wrong with it otherwise. */
function readWhole(kind: Kind, bytes: Buffer): Usage | Failure {
  let body: Body | null
  try {
    body = JSON.parse(bytes.toString()) as Body | null
  } catch {
    return { reason: 'garbage' }
  }
  const list = kind === 'embeddings' ? body?.data : body?.choices
  if (!Array.isArray(list) || list.length === 0) return { reason: 'garbage' }
  if (body?.choices?.some(({ finish_reason: finish }) => finish === 'abort')) return { reason: 'abort' }
  if (kind !== 'embeddings' && body?.choices?.some(({ finish_reason: finish }) => !finish))
    return { reason: 'truncated' }
  const { prompt_tokens: promptTokens = 0, completion_tokens: completionTokens = 0 } = body?.usage ?? {}
  return { promptTokens, completionTokens }
}
