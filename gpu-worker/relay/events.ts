/**
 * Finds events in the bytes of a stream (WHATWG HTML §9.2.6) without decoding them. `onEvent` gets a buffer and where in
 * it an event stands, the empty line behind it included; the buffer may be changed there.
 */
export interface EventFinder {
  /** False when an event is larger than it may be. */
  push(chunk: Buffer, onEvent: (buffer: Buffer, start: number, end: number) => void): boolean
  /** Whether bytes are left that are no whole event. */
  hasRest(): boolean
}

export function createEventFinder(eventBytesMax: number): EventFinder {
  let rest: Buffer | undefined

  return {
    push(chunk, onEvent) {
      const buffer = rest ? Buffer.concat([rest, chunk]) : chunk
      // The end of an event may lie across two chunks.
      const from = rest ? Math.max(0, rest.length - 3) : 0
      let start = 0
      for (let end = findEnd(buffer, from); end !== -1; end = findEnd(buffer, end)) {
        onEvent(buffer, start, end)
        start = end
      }
      rest = start < buffer.length ? buffer.subarray(start) : undefined
      return (rest?.length ?? 0) <= eventBytesMax
    },
    hasRest: () => rest !== undefined,
  }
}

/** Behind the next empty line; JSON has no line feeds of its own. */
function findEnd(buffer: Buffer, from: number): number {
  for (let at = buffer.indexOf(lineFeed, from); at !== -1; at = buffer.indexOf(lineFeed, at + 1)) {
    if (buffer[at + 1] === lineFeed) return at + 2
    if (buffer[at + 1] === carriageReturn && buffer[at + 2] === lineFeed) return at + 3
  }
  return -1
}

const [lineFeed, carriageReturn] = [10, 13]

/**
 * What an event of a stream of answers says. Keys are looked for as bytes: inside JSON text a quote is always written
 * with a backslash, so that `"finish_reason":"` can only be a key.
 */
export interface EventFacts {
  kind: 'comment' | 'done' | 'error' | 'usage' | 'content' | 'empty' | 'garbage'
  /** Why the answer ends here, if it does. */
  finish: string | undefined
}

export function readEvent(buffer: Buffer, start: number, end: number): EventFacts {
  const text = buffer.toString('latin1', start, end)
  if (text.charCodeAt(0) === colon) return comment
  const at = text.startsWith('data: ') ? 6 : text.startsWith('data:') ? 5 : -1
  if (at === -1) return /^(event|id|retry):/.test(text) ? comment : garbage
  if (text.startsWith('[DONE]', at)) return done
  if (text.startsWith('{"error"', at)) return failure
  // Not parsed, but it has to look whole: an object of choices, in one line.
  const last = text.trimEnd()
  if (text.charCodeAt(at) !== brace || last.charCodeAt(last.length - 1) !== closingBrace || last.includes('\n'))
    return garbage
  const choices = text.indexOf('"choices":', at)
  if (choices === -1) return garbage
  if (text.startsWith('[]', choices + 10) || text.startsWith(' []', choices + 10)) return usage
  const finish = readText(text, '"finish_reason":', choices)
  const isContent = hasContent(text, choices)
  if (finish !== undefined) return { kind: isContent ? 'content' : 'empty', finish }
  return isContent ? content : empty
}

const [colon, brace, closingBrace] = [58, 123, 125]
const comment: EventFacts = { kind: 'comment', finish: undefined }
const done: EventFacts = { kind: 'done', finish: undefined }
const failure: EventFacts = { kind: 'error', finish: undefined }
const usage: EventFacts = { kind: 'usage', finish: undefined }
const content: EventFacts = { kind: 'content', finish: undefined }
const empty: EventFacts = { kind: 'empty', finish: undefined }
const garbage: EventFacts = { kind: 'garbage', finish: undefined }

/** Keys whose text a client shows. */
const contentKeys = ['"content":', '"text":', '"reasoning":', '"reasoning_content":']

function hasContent(text: string, from: number): boolean {
  for (const key of contentKeys) {
    const at = text.indexOf(key, from)
    if (at === -1) continue
    const quote = text.charCodeAt(at + key.length) === space ? at + key.length + 1 : at + key.length
    if (text.charCodeAt(quote) === doubleQuote && text.charCodeAt(quote + 1) !== doubleQuote) return true
  }
  return text.includes('"tool_calls":[{', from) || text.includes('"tool_calls": [{', from)
}

const [space, doubleQuote] = [32, 34]

/** The text behind a key; undefined when it is null or there is no such key. */
function readText(text: string, key: string, from: number): string | undefined {
  const at = text.indexOf(key, from)
  if (at === -1) return undefined
  const quote = text.charCodeAt(at + key.length) === space ? at + key.length + 1 : at + key.length
  if (text.charCodeAt(quote) !== doubleQuote) return undefined
  return text.slice(quote + 1, text.indexOf('"', quote + 1))
}

/** Where `,"usage":{…}` stands in an event; undefined when it has none. */
export function findUsage(buffer: Buffer, start: number, end: number): Span | undefined {
  const at = buffer.lastIndexOf(usageKey, end - usageKey.length)
  if (at < start) return undefined
  const opens = at + usageKey.length - 1
  return { start: at, end: closeOf(buffer, opens, end) }
}

export interface Span {
  start: number
  end: number
}

const usageKey = Buffer.from(',"usage":{')

/** Behind the brace that closes the one here; usage has numbers and objects of numbers, no text. */
function closeOf(buffer: Buffer, opens: number, end: number): number {
  let depth = 0
  for (let at = opens; at < end; at++) {
    if (buffer[at] === brace) depth++
    else if (buffer[at] === closingBrace && --depth === 0) return at + 1
  }
  return end
}

export interface Usage {
  promptTokens: number
  completionTokens: number
}

/** The numbers of a usage object, wherever it stands in these bytes. */
export function readUsage(buffer: Buffer, { start, end }: Span): Usage | undefined {
  const text = buffer.toString('latin1', start, end)
  const promptTokens = readNumber(text, '"prompt_tokens":')
  const completionTokens = readNumber(text, '"completion_tokens":') ?? 0
  return promptTokens === undefined ? undefined : { promptTokens, completionTokens }
}

function readNumber(text: string, key: string): number | undefined {
  const at = text.indexOf(key)
  if (at === -1) return undefined
  let value = 0
  for (let index = at + key.length; index < text.length; index++) {
    const digit = text.charCodeAt(index) - 48
    if (digit < 0 || digit > 9) {
      if (text.charCodeAt(index) === space) continue
      break
    }
    value = value * 10 + digit
  }
  return value
}

/** Where `,"key":[…]` (or null) of a list of numbers stands in an event, and the numbers. */
export function findNumbers(
  buffer: Buffer,
  key: Buffer,
  { start, end }: Span,
): (Span & { numbers: number[] }) | undefined {
  const at = buffer.indexOf(key, start)
  if (at === -1 || at >= end) return undefined
  const opens = at + key.length
  if (buffer[opens] !== bracket) return undefined
  const closes = buffer.indexOf(closingBracket, opens)
  if (closes === -1 || closes >= end) return undefined
  const inside = buffer.toString('latin1', opens + 1, closes)
  return { start: at, end: closes + 1, numbers: inside === '' ? [] : inside.split(',').map(Number) }
}

const [bracket, closingBracket] = [91, 93]
