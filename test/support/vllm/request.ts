import type { IncomingHttpHeaders } from 'node:http'
import type { Knobs } from './knobs.ts'
import type { Tokenizer } from './tokens.ts'
import { errorBody } from './wire.ts'

export interface ReadRequest {
  body: { [key: string]: unknown }
  promptIds: number[]
  maxTokens: number
  stream: boolean
  includeUsage: boolean
  continuousUsage: boolean
  returnIds: boolean
  logprobs: number | undefined
  id: string
}

interface Options {
  kind: 'chat' | 'text'
  body: string
  headers: IncomingHttpHeaders
  knobs: Knobs
  tokenizer: Tokenizer
}

type Refused = { status: number; body: string }

/** Reads a request as vLLM does, and refuses in its words. */
export function readRequest({ kind, body: text, headers, knobs, tokenizer }: Options): ReadRequest | Refused {
  const asked = Number(headers['x-return-error'])
  if (asked) return refuse(asked, 'InternalServerError', 'asked for by X-Return-Error')
  if (!headers['content-type']?.startsWith('application/json'))
    return refuse(400, 'Bad Request', "Unsupported Media Type: Only 'application/json' is allowed")
  let body: { [key: string]: unknown }
  try {
    body = JSON.parse(text) as { [key: string]: unknown }
  } catch {
    return refuse(
      400,
      'Bad Request',
      "[{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error'}]",
      'body',
    )
  }
  const required = kind === 'chat' ? 'messages' : 'prompt'
  if (body[required] === undefined)
    return refuse(
      400,
      'Bad Request',
      `[{'type': 'missing', 'loc': ('body', '${required}'), 'msg': 'Field required'}]`,
      `body.${required}`,
    )
  if (body['model'] !== undefined && body['model'] !== knobs.model)
    return refuse(404, 'NotFoundError', `The model \`${String(body['model'])}\` does not exist.`, 'model')
  const sampling = findSamplingFault(body)
  if (sampling) return refuse(400, 'BadRequestError', sampling.message, sampling.param)
  if (body['priority'] && !knobs.priorityScheduling)
    return refuse(400, 'BadRequestError', 'Got priority but priority scheduling is not enabled.')

  const promptIds = kind === 'chat' ? tokenizer.encode(toPrompt(body['messages'])) : toIds(body['prompt'], tokenizer)
  const left = knobs.modelLengthMax - promptIds.length
  const wanted = body['max_completion_tokens'] ?? body['max_tokens']
  const maxTokens = wanted === undefined || wanted === null ? Math.max(left, 1) : Number(wanted)
  if (promptIds.length + maxTokens > knobs.modelLengthMax)
    return refuse(
      400,
      'BadRequestError',
      `This model's maximum context length is ${knobs.modelLengthMax} tokens. However, you requested ${maxTokens} output tokens and your prompt contains at least ${promptIds.length} input tokens, for a total of at least ${promptIds.length + maxTokens} tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=${promptIds.length})`,
      'input_tokens',
    )
  const options = (body['stream_options'] ?? {}) as { include_usage?: boolean; continuous_usage_stats?: boolean }
  return {
    body,
    promptIds,
    maxTokens,
    stream: body['stream'] === true,
    includeUsage: options.include_usage === true || knobs.forceIncludeUsage,
    continuousUsage:
      (options.include_usage === true && options.continuous_usage_stats === true) || knobs.forceIncludeUsage,
    returnIds: body['return_token_ids'] === true,
    logprobs: body['logprobs'] === true ? Number(body['top_logprobs'] ?? 0) : undefined,
    id: String(headers['x-request-id'] ?? crypto.randomUUID().replaceAll('-', '')),
  }
}

function findSamplingFault(body: { [key: string]: unknown }): { message: string; param: string } | undefined {
  const { temperature = null, top_p = null } = body as { temperature?: number | null; top_p?: number | null }
  const max = (body['max_completion_tokens'] ?? body['max_tokens'] ?? null) as number | null
  if (temperature !== null && (temperature < 0 || temperature > 2))
    return {
      message: `temperature must be in [0, 2], got ${toFloat(temperature)}. (parameter=temperature, value=${toFloat(temperature)})`,
      param: 'temperature',
    }
  if (max !== null && max < 1)
    return {
      message: `max_tokens must be at least 1, got ${max}. (parameter=max_tokens, value=${max})`,
      param: 'max_tokens',
    }
  if (top_p !== null && (top_p <= 0 || top_p > 1))
    return {
      message: `top_p must be in (0, 1], got ${toFloat(top_p)}. (parameter=top_p, value=${toFloat(top_p)})`,
      param: 'top_p',
    }
  return undefined
}

const toFloat = (value: number): string => (Number.isInteger(value) ? `${value}.0` : String(value))

const toPrompt = (messages: unknown): string =>
  (messages as { role: string; content: unknown }[])
    .map(({ role, content }) => `<${role}>${typeof content === 'string' ? content : JSON.stringify(content)}`)
    .join('\n')

const toIds = (prompt: unknown, tokenizer: Tokenizer): number[] =>
  Array.isArray(prompt) && prompt.every((id) => typeof id === 'number') ? prompt : tokenizer.encode(String(prompt))

const refuse = (status: number, type: string, message: string, param: string | null = null): Refused => ({
  status,
  body: errorBody(status, type, message, param),
})
