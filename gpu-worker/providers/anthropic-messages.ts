import { WorkerError } from '../error.ts'
import type { Generation } from '../requests/generation.ts'

interface ChatMessage {
  role: string
  content?: string | { type?: string; text?: string; image_url?: { url?: string } | string }[] | null
  tool_calls?: { id: string; function: { name: string; arguments: string } }[]
  tool_call_id?: string
}

type Block =
  | { type: 'text'; text: string }
  | { type: 'image'; source: { type: 'base64'; media_type: string; data: string } }
  | { type: 'tool_use'; id: string; name: string; input: unknown }
  | { type: 'tool_result'; tool_use_id: string; content: string }

interface Turn {
  role: 'user' | 'assistant'
  content: Block[]
}

/** A chat in the words of Anthropic's Messages API. */
export function toAnthropicRequest(
  { body, stream, outputTokensMax }: Generation,
  model: string,
): Record<string, unknown> {
  const messages = body['messages'] as ChatMessage[]
  const system = messages
    .filter(({ role }) => role === 'system' || role === 'developer')
    .map(toText)
    .join('\n\n')
  const { temperature = null, top_p: topP = null, top_k: topK = null, stop = null } = body as Record<string, unknown>
  const choice = toToolChoice(body['tool_choice'])
  const tools = choice === 'none' ? undefined : (body['tools'] as Tool[] | undefined)?.map(toTool)
  return {
    model,
    max_tokens: outputTokensMax,
    ...(system !== '' && { system }),
    messages: toTurns(messages),
    ...(stream && { stream }),
    // Theirs goes from 0 to 1.
    ...(temperature !== null && { temperature: Math.min(1, Number(temperature)) }),
    ...(topP !== null && { top_p: topP }),
    ...(topK !== null && Number(topK) > 0 && { top_k: topK }),
    ...(stop !== null && { stop_sequences: Array.isArray(stop) ? stop : [stop] }),
    ...(tools && { tools }),
    ...(tools && choice && { tool_choice: choice }),
  }
}

/** Roles take turns there: what follows of one role is one turn. */
function toTurns(messages: ChatMessage[]): Turn[] {
  const turns: Turn[] = []
  for (const message of messages) {
    if (message.role === 'system' || message.role === 'developer') continue
    const role = message.role === 'assistant' ? 'assistant' : 'user'
    const last = turns.at(-1)
    const content = toBlocks(message)
    if (last?.role === role) last.content.push(...content)
    else turns.push({ role, content })
  }
  return turns
}

function toBlocks(message: ChatMessage): Block[] {
  if (message.role === 'tool')
    return [{ type: 'tool_result', tool_use_id: message.tool_call_id ?? '', content: toText(message) }]
  const said: Block[] =
    typeof message.content === 'string' ? toTextBlocks(message.content) : (message.content ?? []).flatMap(toBlock)
  const calls = (message.tool_calls ?? []).map(({ id, function: { name, arguments: text } }): Block => {
    return { type: 'tool_use', id, name, input: readArguments(text) }
  })
  return [...said, ...calls]
}

/** An empty text is refused there. */
const toTextBlocks = (text: string): Block[] => (text === '' ? [] : [{ type: 'text', text }])

function toBlock(part: Exclude<ChatMessage['content'], string | null | undefined>[number]): Block[] {
  if (part.text !== undefined) return toTextBlocks(part.text)
  const url = typeof part.image_url === 'string' ? part.image_url : part.image_url?.url
  const [, type = '', data = ''] = /^data:([\w/+.-]+);base64,(.*)$/s.exec(url ?? '') ?? []
  if (data === '') throw invalid('messages', 'has an image that is no base64 data: URL')
  return [{ type: 'image', source: { type: 'base64', media_type: type, data } }]
}

function toText({ content }: ChatMessage): string {
  if (typeof content === 'string') return content
  return (content ?? []).map(({ text = '' }) => text).join('')
}

function readArguments(text: string): unknown {
  try {
    return JSON.parse(text || '{}')
  } catch {
    throw invalid('messages', 'has a tool call whose arguments are not JSON')
  }
}

interface Tool {
  function: { name: string; description?: string; parameters?: unknown }
}

const toTool = ({ function: { name, description, parameters } }: Tool) => ({
  name,
  ...(description !== undefined && { description }),
  input_schema: parameters ?? { type: 'object', properties: {} },
})

function toToolChoice(choice: unknown): { type: string; name?: string } | 'none' | undefined {
  if (choice === 'none') return 'none'
  if (choice === 'auto') return { type: 'auto' }
  if (choice === 'required') return { type: 'any' }
  const { name } = (choice as { function?: { name?: string } } | undefined)?.function ?? {}
  return name === undefined ? undefined : { type: 'tool', name }
}

const invalid = (param: string, fault: string): WorkerError =>
  new WorkerError('invalid_request', `${param} ${fault}`, { param })
