import { createPool } from '../admission/pool.ts'
import { createPredictor } from '../admission/predict.ts'
import type { QueueBounds } from '../admission/queue.ts'
import type { Limits } from '../limits.ts'
import type { Kind } from '../requests/generation.ts'
import { createRetryBudget } from '../relay/retry-budget.ts'
import type { Provider } from './provider.ts'
import { pathOf } from './provider.ts'
import type { Exchange, Order, Sink, Upstream } from './upstream.ts'

interface DemoOptions {
  kinds: readonly Kind[]
  bounds: QueueBounds
  limits: Limits
  now: () => number
  /** Between two words. */
  gapMs?: number
}

const demoModel = 'demo'

/** A stand-in for a model: it says that it is one, and answers the same to the same. */
export function createDemo({ kinds, bounds, limits, now, gapMs = 15 }: DemoOptions): Provider {
  const lane = {
    name: 'demo',
    requestsMax: 64,
    tokensMax: Infinity,
    requests: 0,
    tokens: 0,
    usable: true,
    saturated: false,
  }
  const upstream: Upstream = {
    name: 'demo',
    open: (order, sink) => answer(order, sink, gapMs),
    async close() {},
  }
  return {
    name: 'demo',
    external: false,
    kinds,
    pool: createPool({ name: 'demo', lanes: [lane], bounds, limits, now }),
    predictor: createPredictor(),
    retries: createRetryBudget(limits, now),
    toModel: (model) => (['', 'default', demoModel].includes(model) ? demoModel : undefined),
    models: () => [{ id: demoModel, ownedBy: 'daemun' }],
    upstreamOf: () => upstream,
    toOrder: ({ kind, bytes, stream }, { requestId }) => ({
      kind,
      path: pathOf[kind],
      body: bytes,
      headers: ['x-request-id', requestId],
      stream,
      addsIds: false,
    }),
    succeeded() {},
    failed() {},
    readiness: () => undefined,
    async start() {},
    async close() {},
  }
}

interface DemoRequest {
  messages?: { content?: unknown }[]
  prompt?: unknown
  input?: unknown
  max_tokens?: number
  max_completion_tokens?: number
  encoding_format?: string
}

function answer(order: Order, sink: Sink, gapMs: number): Exchange {
  const body = JSON.parse(order.body.toString()) as DemoRequest
  const id = order.headers[1] ?? ''
  if (order.kind === 'embeddings') return answerOnce(sink, JSON.stringify(toVectors(body, id)), 0)
  const prompt = toPrompt(body)
  const { words, finish } = toWords(prompt, body)
  const usage = toUsage(prompt, words.length)
  if (!order.stream)
    return answerOnce(sink, toBody(order.kind, id, words.join(''), finish, usage), words.length * gapMs)
  return answerBit(sink, toEvents(order.kind, id, words, finish, usage), gapMs)
}

/** What a person reads must say by itself that no model has written it. */
const intro = '[demo: no language model is configured here] '

const openings = [
  'You asked about',
  'This would be an answer about',
  'A model would say something on',
  '여기에는 답이 들어갑니다:',
]

function toWords(prompt: string, { max_tokens, max_completion_tokens }: DemoRequest) {
  const [last = ''] = prompt.trim().split('\n').slice(-1)
  const opening = openings[hash(prompt) % openings.length] ?? ''
  const all = `${intro}${opening} "${[...last].slice(0, 120).join('')}".`.match(/\S+\s*/g) ?? []
  const max = max_completion_tokens ?? max_tokens ?? all.length
  return { words: all.slice(0, max), finish: all.length > max ? 'length' : 'stop' }
}

function toPrompt({ messages, prompt }: DemoRequest): string {
  if (!messages) return Array.isArray(prompt) ? prompt.join(' ') : String(prompt)
  const { content } = messages.at(-1) ?? {}
  if (typeof content === 'string') return content
  return (content as { text?: string }[] | undefined)?.map(({ text = '' }) => text).join(' ') ?? ''
}

interface DemoUsage {
  prompt_tokens: number
  total_tokens: number
  completion_tokens: number
}

function toUsage(prompt: string, words: number): DemoUsage {
  const prompt_tokens = Math.max(1, prompt.match(/\S+/g)?.length ?? 0)
  return { prompt_tokens, total_tokens: prompt_tokens + words, completion_tokens: words }
}

const created = (): number => Math.floor(Date.now() / 1_000)

function toBody(kind: Order['kind'], id: string, text: string, finish: string, usage: DemoUsage): string {
  const choice =
    kind === 'chat'
      ? { index: 0, message: { role: 'assistant', content: text }, finish_reason: finish }
      : { index: 0, text, finish_reason: finish }
  const object = kind === 'chat' ? 'chat.completion' : 'text_completion'
  return JSON.stringify({ id: `demo-${id}`, object, created: created(), model: demoModel, choices: [choice], usage })
}

/** One event for each word, each with the usage so far; then the end. */
function toEvents(kind: Order['kind'], id: string, words: string[], finish: string, usage: DemoUsage): string[] {
  const object = kind === 'chat' ? 'chat.completion.chunk' : 'text_completion'
  const head = { id: `demo-${id}`, object, created: created(), model: demoModel }
  const toEvent = (choices: unknown[], completion: number): string => {
    const now = { ...usage, completion_tokens: completion, total_tokens: usage.prompt_tokens + completion }
    return `data: ${JSON.stringify({ ...head, choices, usage: now })}\n\n`
  }
  const events = words.map((word, index) => {
    const finish_reason = index === words.length - 1 ? finish : null
    return toEvent(
      [
        kind === 'chat'
          ? { index: 0, delta: { content: word }, finish_reason }
          : { index: 0, text: word, finish_reason },
      ],
      index + 1,
    )
  })
  if (kind === 'chat')
    events.unshift(toEvent([{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }], 0))
  return [...events, toEvent([], words.length), 'data: [DONE]\n\n']
}

function answerOnce(sink: Sink, body: string, afterMs: number): Exchange {
  const timer = setTimeout(() => {
    sink.onHead(200, (name) => (name === 'content-type' ? 'application/json' : undefined))
    sink.onData(Buffer.from(body))
    sink.onEnd()
  }, afterMs)
  return { pause() {}, resume() {}, leave: () => leave(timer, sink), destroy: () => clearTimeout(timer) }
}

function answerBit(sink: Sink, events: string[], gapMs: number): Exchange {
  let paused = false
  let timer = setTimeout(start, 0)
  function start(): void {
    sink.onHead(200, (name) => (name === 'content-type' ? 'text/event-stream' : undefined))
    step()
  }
  function step(): void {
    if (paused) return
    const next = events.shift()
    if (next === undefined) return sink.onEnd()
    sink.onData(Buffer.from(next))
    timer = setTimeout(step, gapMs)
  }
  return {
    pause: () => void (paused = true),
    resume() {
      if (!paused) return
      paused = false
      timer = setTimeout(step, 0)
    },
    leave: () => leave(timer, sink),
    destroy: () => clearTimeout(timer),
  }
}

function leave(timer: NodeJS.Timeout, sink: Sink): void {
  clearTimeout(timer)
  sink.onError(new Error('nobody reads any more'))
}

const dimensions = 64

/** Texts that share words have vectors that point alike: counts of hashed words, of length one. */
function toVectors({ input, encoding_format: format }: DemoRequest, id: string) {
  const texts = (Array.isArray(input) && typeof input[0] !== 'number' ? input : [input]) as unknown[]
  const data = texts.map((text, index) => {
    const embedding = toVector(String(text))
    const coded = format === 'base64' ? Buffer.from(new Float32Array(embedding).buffer).toString('base64') : embedding
    return { index, object: 'embedding', embedding: coded }
  })
  const prompt_tokens = texts.reduce<number>((sum, text) => sum + (String(text).match(/\S+/g)?.length ?? 0), 0)
  const usage = { prompt_tokens, total_tokens: prompt_tokens, completion_tokens: 0 }
  return { id: `demo-${id}`, object: 'list', created: created(), model: demoModel, data, usage }
}

function toVector(text: string): number[] {
  const counts = new Float64Array(dimensions)
  for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
    const value = hash(word)
    const at = value % dimensions
    counts[at] = (counts[at] ?? 0) + ((value >>> 16) % 2 === 0 ? 1 : -1)
  }
  const length = Math.hypot(...counts) || 1
  return [...counts].map((count) => count / length)
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 2_166_136_261
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 16_777_619) >>> 0
  return value
}
