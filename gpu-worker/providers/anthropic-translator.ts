import type { EventFinder } from '../relay/events.ts'
import { createEventFinder } from '../relay/events.ts'
import type { Sink } from './upstream.ts'

interface AnthropicUsage {
  input_tokens?: number
  output_tokens?: number
  cache_creation_input_tokens?: number | null
  cache_read_input_tokens?: number | null
}

interface AnthropicMessage {
  id: string
  model: string
  content: { type: string; text?: string; thinking?: string; id?: string; name?: string; input?: unknown }[]
  stop_reason: string | null
  usage: AnthropicUsage
}

interface AnthropicEvent {
  type: string
  index?: number
  message?: AnthropicMessage
  content_block?: { type: string; id?: string; name?: string; text?: string }
  delta?: { type?: string; text?: string; thinking?: string; partial_json?: string; stop_reason?: string | null }
  usage?: AnthropicUsage
  error?: { type?: string; message?: string }
}

/** Answers of Anthropic's Messages API, told on as OpenAI's, whole or event by event. */
export class AnthropicTranslator implements Sink {
  readonly #sink: Sink
  readonly #stream: boolean
  readonly #finder: EventFinder
  #status = 0
  #chunks: Buffer[] = []
  #head = ''
  #usage: AnthropicUsage = {}
  /** Which tool call a block is, by the block's index. */
  readonly #calls = new Map<number, number>()
  #over = false

  constructor(sink: Sink, stream: boolean, eventBytesMax: number) {
    this.#sink = sink
    this.#stream = stream
    this.#finder = createEventFinder(eventBytesMax)
  }

  onHead(status: number, headers: (name: string) => string | undefined): void {
    this.#status = status
    this.#sink.onHead(status, headers)
  }

  onData(chunk: Buffer): void {
    if (this.#over) return
    if (this.#status !== 200 || !this.#stream) return void this.#chunks.push(chunk)
    const events: string[] = []
    const isBounded = this.#finder.push(chunk, (buffer, start, end) => {
      events.push(...this.#translate(buffer.toString('utf8', start, end)))
    })
    if (events.length > 0) this.#sink.onData(Buffer.from(events.join('')))
    if (!isBounded && !this.#over) this.#say('data: too large\n\n')
  }

  onEnd(): void {
    if (this.#over) return
    if (this.#status !== 200) this.#sink.onData(toErrorBody(this.#status, Buffer.concat(this.#chunks).toString()))
    else if (!this.#stream) this.#sink.onData(toChatBody(Buffer.concat(this.#chunks)))
    this.#sink.onEnd()
  }

  onError(error: Error): void {
    this.#sink.onError(error)
  }

  #say(event: string): void {
    this.#over = true
    this.#sink.onData(Buffer.from(event))
  }

  /** One event of theirs as none, one or several of OpenAI's. */
  #translate(text: string): string[] {
    const at = text.search(/^data: ?/m)
    if (at === -1) return []
    let event: AnthropicEvent
    try {
      event = JSON.parse(text.slice(text.indexOf('{', at))) as AnthropicEvent
    } catch {
      // No event of ours either: whoever reads it takes it for what it is.
      return ['data: garbage\n\n']
    }
    return (translations[event.type] ?? (() => []))(event, this.#context)
  }

  readonly #context: Context = {
    begin: (message) => {
      this.#usage = message.usage
      this.#head = `data: {"id":${JSON.stringify(message.id)},"object":"chat.completion.chunk","created":${Math.floor(Date.now() / 1_000)},"model":${JSON.stringify(message.model)},`
    },
    event: (delta, finish = null) =>
      `${this.#head}"choices":[{"index":0,"delta":${JSON.stringify(delta)},"finish_reason":${JSON.stringify(finish)}}]}\n\n`,
    count: (usage) => void Object.assign(this.#usage, usage),
    usageEvent: () => `${this.#head}"choices":[],"usage":${JSON.stringify(toUsage(this.#usage))}}\n\n`,
    callOf: (block, begins) => {
      if (begins) this.#calls.set(block, this.#calls.size)
      return this.#calls.get(block) ?? 0
    },
  }
}

interface Context {
  begin(message: AnthropicMessage): void
  event(delta: unknown, finish?: string | null): string
  count(usage: AnthropicUsage): void
  usageEvent(): string
  callOf(block: number, begins: boolean): number
}

const translations: Record<string, (event: AnthropicEvent, context: Context) => string[]> = {
  message_start({ message }, context) {
    if (!message) return []
    context.begin(message)
    return [context.event({ role: 'assistant', content: '' })]
  },
  content_block_start({ index = 0, content_block: block }, context) {
    if (block?.type !== 'tool_use') return []
    const call = {
      index: context.callOf(index, true),
      id: block.id,
      type: 'function',
      function: { name: block.name, arguments: '' },
    }
    return [context.event({ tool_calls: [call] })]
  },
  content_block_delta({ index = 0, delta }, context) {
    if (delta?.type === 'text_delta') return [context.event({ content: delta.text })]
    if (delta?.type === 'thinking_delta') return [context.event({ reasoning: delta.thinking })]
    if (delta?.type !== 'input_json_delta') return []
    const call = { index: context.callOf(index, false), function: { arguments: delta.partial_json } }
    return [context.event({ tool_calls: [call] })]
  },
  message_delta({ delta, usage = {} }, context) {
    // Counts so far, not since the last time.
    context.count(usage)
    return delta?.stop_reason ? [context.event({}, toFinish(delta.stop_reason))] : []
  },
  message_stop: (_, context) => [context.usageEvent(), 'data: [DONE]\n\n'],
  error: ({ error }) => [`data: ${JSON.stringify({ error: toError(error, statusOf[error?.type ?? ''] ?? 500) })}\n\n`],
}

const finishes: Record<string, string> = {
  end_turn: 'stop',
  stop_sequence: 'stop',
  max_tokens: 'length',
  model_context_window_exceeded: 'length',
  tool_use: 'tool_calls',
  refusal: 'content_filter',
}
const toFinish = (reason: string): string => finishes[reason] ?? 'stop'

/** Theirs leaves out what came from the cache, OpenAI's has it in. */
function toUsage({
  input_tokens = 0,
  output_tokens = 0,
  cache_creation_input_tokens: made,
  cache_read_input_tokens: read,
}: AnthropicUsage) {
  const prompt_tokens = input_tokens + (made ?? 0) + (read ?? 0)
  return { prompt_tokens, total_tokens: prompt_tokens + output_tokens, completion_tokens: output_tokens }
}

function toChatBody(bytes: Buffer): Buffer {
  let message: AnthropicMessage
  try {
    message = JSON.parse(bytes.toString()) as AnthropicMessage
  } catch {
    return bytes
  }
  if (!Array.isArray(message.content)) return bytes
  const textOf = (type: string, key: 'text' | 'thinking'): string =>
    message.content
      .filter((block) => block.type === type)
      .map((block) => block[key] ?? '')
      .join('')
  const calls = message.content
    .filter(({ type }) => type === 'tool_use')
    .map(({ id, name, input }) => ({ id, type: 'function', function: { name, arguments: JSON.stringify(input) } }))
  const text = textOf('text', 'text')
  const reasoning = textOf('thinking', 'thinking')
  const said = {
    role: 'assistant',
    content: text === '' && calls.length > 0 ? null : text,
    ...(reasoning !== '' && { reasoning }),
    ...(calls.length > 0 && { tool_calls: calls }),
  }
  const choice = {
    index: 0,
    message: said,
    logprobs: null,
    finish_reason: message.stop_reason && toFinish(message.stop_reason),
  }
  return Buffer.from(
    JSON.stringify({
      id: message.id,
      object: 'chat.completion',
      created: Math.floor(Date.now() / 1_000),
      model: message.model,
      choices: [choice],
      usage: toUsage(message.usage ?? {}),
    }),
  )
}

/** What an error inside a stream would have been as a status. */
const statusOf: Record<string, number> = {
  invalid_request_error: 400,
  authentication_error: 401,
  permission_error: 403,
  not_found_error: 404,
  request_too_large: 413,
  rate_limit_error: 429,
  api_error: 500,
  timeout_error: 504,
  overloaded_error: 529,
}

const toError = (error: AnthropicEvent['error'], code: number) => ({
  message: error?.message ?? 'no reason given',
  type: error?.type ?? 'api_error',
  param: null,
  code,
})

function toErrorBody(status: number, text: string): Buffer {
  let error: AnthropicEvent['error']
  try {
    error = (JSON.parse(text) as { error?: AnthropicEvent['error'] }).error
  } catch {
    error = undefined
  }
  return Buffer.from(JSON.stringify({ error: toError(error, status) }))
}
