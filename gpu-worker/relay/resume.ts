/** Where another server could go on: what the model was given, what it has said, and how the client knows the answer. */
export interface ResumePoint {
  promptIds: number[]
  ids: number[]
  /** What has reached the client. */
  text: string
  /** The beginning of its events, up to their choices. */
  head: string
}

/** Keeps what it takes to go on elsewhere while an answer is relayed; too long an answer is not kept. */
export interface ResumeLog {
  /** One event of the answer, and the token ids that stood in it. */
  note(event: string, promptIds: number[] | undefined, ids: number[] | undefined): void
  point(): ResumePoint | undefined
}

export function createResumeLog(bytesMax: number): ResumeLog {
  let promptIds: number[] | undefined
  let head: string | undefined
  const ids: number[] = []
  /** JSON text, as latin1. */
  const texts: string[] = []
  let bytes = 0
  let broken = false

  return {
    note(event, prompt, more) {
      if (broken) return
      if (prompt) {
        promptIds = prompt
        bytes += prompt.length * 4
      }
      head ??= event.slice(0, event.indexOf('"choices":'))
      if (more) for (const id of more) ids.push(id)
      const text = findContent(event)
      texts.push(text)
      bytes += text.length + (more?.length ?? 0) * 4
      // What a model thinks is no part of the text that its tokens add up to.
      if (bytes > bytesMax || event.includes('"reasoning')) broken = true
    },
    point() {
      if (broken || !promptIds || ids.length === 0 || !head) return undefined
      const text = JSON.parse(`"${Buffer.from(texts.join(''), 'latin1').toString()}"`) as string
      return { promptIds, ids, text, head }
    },
  }
}

/** What stands between the quotes of the event's content. */
function findContent(event: string): string {
  const key = '"content":"'
  const at = event.indexOf(key)
  if (at === -1) return ''
  const from = at + key.length
  let end = event.indexOf('"', from)
  while (end !== -1 && isEscaped(event, end, from)) end = event.indexOf('"', end + 1)
  return event.slice(from, end)
}

/** Whether an odd number of backslashes stands before it. */
function isEscaped(text: string, at: number, from: number): boolean {
  let back = at
  while (back > from && text[back - 1] === '\\') back--
  return (at - back) % 2 === 1
}

/** Ids at the end may stand for half a character, whose text nobody has seen: those are generated again. */
export async function findSeenIds(
  { ids, text }: ResumePoint,
  detokenize: (ids: number[]) => Promise<string>,
): Promise<number[] | undefined> {
  for (let tail = 0; tail <= tailMax && tail < ids.length; tail++) {
    const kept = ids.slice(0, ids.length - tail)
    if ((await detokenize(kept)) === text) return kept
  }
  return undefined
}

/** A character has at most four bytes, and a token at least one. */
const tailMax = 4

/** An event of /v1/completions as one of the chat that it continues. */
export interface ResumedEvent {
  text: string
  finish: string | undefined
  ids: number[]
  completionTokens: number | undefined
}

export function readResumedEvent(event: string): ResumedEvent {
  const { choices, usage } = JSON.parse(event.slice(event.indexOf('{'))) as {
    choices: { text?: string; finish_reason?: string | null; token_ids?: number[] | null }[]
    usage?: { completion_tokens?: number } | null
  }
  const [choice] = choices
  return {
    text: choice?.text ?? '',
    finish: choice?.finish_reason ?? undefined,
    ids: choice?.token_ids ?? [],
    completionTokens: usage?.completion_tokens,
  }
}

export const toChatEvent = (head: string, text: string, finish: string | undefined, usage: string): string =>
  `${head}"choices":[{"index":0,"delta":{"content":${JSON.stringify(text)}},"logprobs":null,"finish_reason":${finish === undefined ? 'null' : JSON.stringify(finish)}${finish === undefined ? '' : ',"stop_reason":null'},"token_ids":null}]${usage}}\n\n`
