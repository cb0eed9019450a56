import type { WorkerCaller } from '#origin/kit/worker-tokens.ts'
import { WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'
import { findSchemaFault } from './schema-guard.ts'

/** `chat` is /v1/chat/completions, `text` is /v1/completions, `embeddings` is /v1/embeddings. */
export type Kind = 'chat' | 'text' | 'embeddings'

/** A request for tokens or vectors, read and found good. */
export interface Generation {
  kind: Kind
  caller: WorkerCaller
  /** As received. */
  bytes: Buffer
  body: Readonly<Record<string, unknown>>
  model: string
  stream: boolean
  /** What the client asked to be told of its usage. */
  includeUsage: boolean
  continuousUsage: boolean
  returnIds: boolean
  /** Bound of the answer, as asked or by default; 0 for embeddings. */
  outputTokensMax: number
  choices: number
  /** Characters of the prompt: those of scripts with about four to a token, and others. */
  characters: { narrow: number; wide: number }
  /** Whether another server could go on where one has stopped: one choice, nothing that depends on its past. */
  resumable: boolean
}

/** Reads a request, or throws what is wrong with it. */
export function readGeneration(kind: Kind, bytes: Buffer, caller: WorkerCaller, limits: Limits): Generation {
  const body = readObject(bytes)
  const forbidden = forbiddenWords.find((word) => isSet(body[word]))
  if (forbidden !== undefined) throw invalid(forbidden, 'is not taken from callers')
  const model = body['model'] ?? ''
  if (typeof model !== 'string' || model.length > 200) throw invalid('model', 'must be the name of a model')
  const stream = readFlag(body, 'stream')
  const options = readOptions(body)
  const choices = readCount(body, 'n', limits.choicesMax) ?? 1
  const outputTokensMax =
    readCount(body, 'max_completion_tokens', limits.outputTokensMax) ??
    readCount(body, 'max_tokens', limits.outputTokensMax) ??
    limits.outputTokensDefault
  const isStructured = guardSchemas(body, limits)
  return {
    kind,
    caller,
    bytes,
    body,
    model,
    stream: kind !== 'embeddings' && stream,
    includeUsage: options['include_usage'] === true,
    continuousUsage: options['include_usage'] === true && options['continuous_usage_stats'] === true,
    returnIds: body['return_token_ids'] === true,
    outputTokensMax: kind === 'embeddings' ? 0 : outputTokensMax,
    choices,
    characters: countPrompt(kind, body, limits),
    resumable:
      kind === 'chat' &&
      stream &&
      choices === 1 &&
      !isStructured &&
      Object.keys(body).every((word) => resumableWords.has(word) || !isSet(body[word])),
  }
}

/** What would reach into the model's server: tensors it would load, templates it would run, hosts it would talk to. */
const forbiddenWords = ['prompt_embeds', 'chat_template', 'kv_transfer_params', 'vllm_xargs', 'mm_processor_kwargs']

/** With anything else an answer may depend on more than the tokens before it. */
const resumableWords = new Set([
  'model',
  'messages',
  'stream',
  'stream_options',
  'max_tokens',
  'max_completion_tokens',
  'n',
  'user',
  'cache_salt',
  'return_token_ids',
  ...samplingWords(),
])

/** How the next token is chosen from what the model says of it. */
export function samplingWords(): string[] {
  return ['temperature', 'top_p', 'top_k', 'min_p']
}

const isSet = (value: unknown): boolean => value !== undefined && value !== null && value !== false && value !== 0

function readObject(bytes: Buffer): Record<string, unknown> {
  let body: unknown
  try {
    body = JSON.parse(bytes.toString())
  } catch {
    throw new WorkerError('invalid_request', 'The body is not JSON')
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new WorkerError('invalid_request', 'The body must be a JSON object')
  return body as Record<string, unknown>
}

function readOptions(body: Record<string, unknown>): Record<string, unknown> {
  const { stream_options: options = null } = body
  if (options === null) return {}
  if (typeof options !== 'object' || Array.isArray(options)) throw invalid('stream_options', 'must be an object')
  return options as Record<string, unknown>
}

function readFlag(body: Record<string, unknown>, name: string): boolean {
  const value = body[name] ?? false
  if (typeof value !== 'boolean') throw invalid(name, 'must be true or false')
  return value
}

function readCount(body: Record<string, unknown>, name: string, max: number): number | undefined {
  const value = body[name] ?? undefined
  if (value === undefined) return undefined
  if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > max)
    throw invalid(name, `must be a whole number from 1 to ${max}`)
  return value as number
}

/** Refuses what would be costly to compile; says whether there is a grammar at all. */
function guardSchemas(body: Record<string, unknown>, limits: Limits): boolean {
  const structured = (body['structured_outputs'] ?? {}) as Record<string, unknown>
  const format = (body['response_format'] ?? {}) as { type?: unknown; json_schema?: { schema?: unknown } }
  const schemas: [string, unknown][] = [
    ['response_format', format.json_schema?.schema ?? format.json_schema],
    ['guided_json', body['guided_json']],
    ['guided_regex', body['guided_regex']],
    ['structured_outputs.json', structured['json']],
    ['structured_outputs.regex', structured['regex']],
    ['tools', body['tools']],
    ['functions', body['functions']],
  ]
  for (const [name, schema] of schemas) {
    const fault = findSchemaFault(schema, limits)
    if (fault) throw new WorkerError('schema_too_costly', `${name} ${fault}`, { param: name })
  }
  // A grammar of one's own cannot be bounded by looking at it.
  if (isSet(body['guided_grammar']) || isSet(structured['grammar']) || isSet(structured['structural_tag']))
    throw new WorkerError('schema_too_costly', 'grammars are not taken: use a JSON schema', { param: 'guided_grammar' })
  const words = ['guided_json', 'guided_regex', 'guided_choice', 'structured_outputs']
  return words.some((word) => isSet(body[word])) || (isSet(format.type) && format.type !== 'text')
}

interface Characters {
  narrow: number
  wide: number
}

function countPrompt(kind: Kind, body: Record<string, unknown>, limits: Limits): Characters {
  const counted = { narrow: 0, wide: 0 }
  if (kind === 'chat') countMessages(body['messages'], counted)
  else if (kind === 'text') countInputs('prompt', body['prompt'], counted, 1)
  else countInputs('input', body['input'], counted, limits.inputsMax)
  return counted
}

function countMessages(messages: unknown, counted: Characters): void {
  if (!Array.isArray(messages) || messages.length === 0)
    throw invalid('messages', 'must be a list with at least one message')
  for (const message of messages as unknown[]) {
    if (typeof message !== 'object' || message === null || typeof (message as { role?: unknown }).role !== 'string')
      throw invalid('messages', 'must be a list of objects with a role')
    const { content } = message as { content?: unknown }
    // The template adds a few tokens of its own for each message.
    counted.narrow += 16
    if (typeof content === 'string') countText(content, counted)
    else if (Array.isArray(content)) for (const part of content as unknown[]) countPart(part, counted)
  }
}

function countPart(part: unknown, counted: Characters): void {
  const { type, text, image_url: image } = (part ?? {}) as { type?: unknown; text?: unknown; image_url?: unknown }
  if (type === 'text' && typeof text === 'string') return countText(text, counted)
  const url = typeof image === 'string' ? image : (image as { url?: unknown } | undefined)?.url
  // The model's server would fetch it from where it stands, inside.
  if (type !== 'image_url' || typeof url !== 'string' || !url.startsWith('data:'))
    throw invalid('messages', 'may hold parts of type text, and image_url with data: URLs; addresses are not fetched')
  counted.narrow += 4_096
}

function countInputs(name: string, input: unknown, counted: Characters, max: number): void {
  const inputs = Array.isArray(input) && !input.every((one) => typeof one === 'number') ? (input as unknown[]) : [input]
  if (inputs.length === 0 || inputs.length > max) throw invalid(name, `must be one text, or at most ${max}`)
  for (const one of inputs) {
    if (typeof one === 'string') countText(one, counted)
    else if (Array.isArray(one) && one.length > 0 && one.every((id) => Number.isInteger(id) && (id as number) >= 0))
      counted.narrow += one.length * 4
    else throw invalid(name, 'must be text or token ids')
  }
}

function countText(text: string, counted: Characters): void {
  const bytes = Buffer.byteLength(text)
  // A character of a script with three bytes is one UTF-16 unit: the bytes beyond one each tell how many there are.
  const wide = Math.min(text.length, Math.round((bytes - text.length) / 2))
  counted.wide += wide
  counted.narrow += text.length - wide
}

const invalid = (param: string, fault: string): WorkerError =>
  new WorkerError('invalid_request', `${param} ${fault}`, { param })
