import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'

/** Looking that often costs nothing. */
const cheapMs = 2

/** An answer as it came over the wire. */
export interface Answer {
  status: number
  /** Field lines, as received. */
  fields: [string, string][]
  body: string
  /** Whether the framing says that nothing is missing. */
  whole: boolean
}

export interface RawClient {
  socket: Socket
  send(bytes: string | Buffer): void
  /** All that came so far. */
  text(): string
  /** The answers so far, without 1xx. */
  answers(): Answer[]
  /** Resolves to the first `count` answers when they are whole, or to what there is when the connection is closed. */
  read(count?: number): Promise<Answer[]>
  /** Resolves when `text` has come, or the connection is closed. */
  readUntil(text: string): Promise<string>
  /** Resolves when the connection is closed, with how: 'end' for a FIN, else the error's code. */
  closed: Promise<string>
}

/** A connection on which a test writes whatever bytes it likes. */
export async function connectRaw(port: number, { allowHalfOpen = false } = {}): Promise<RawClient> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen })
  await once(socket, 'connect')
  const chunks: Buffer[] = []
  const waiters = new Set<() => void>()
  /** How long it took to look at all that came, and when that may be done again. */
  let lookMs = 0
  let timer: NodeJS.Timeout | undefined
  let ended = false
  let how = 'end'
  function wake(): void {
    clearTimeout(timer)
    timer = undefined
    const from = performance.now()
    for (const waiter of waiters) waiter()
    lookMs = performance.now() - from
  }
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    // All is looked at anew each time: of much that came, not for each bit.
    if (lookMs < cheapMs) wake()
    else timer ??= setTimeout(wake, lookMs * 4)
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    how = error.code ?? error.name
  })
  const closed = new Promise<string>((resolve) => {
    const close = (): void => {
      ended = true
      wake()
      resolve(how)
    }
    socket.once('close', close)
    if (allowHalfOpen) socket.once('end', close)
  })
  const text = (): string => Buffer.concat(chunks).toString('latin1')
  const answers = (): Answer[] => readAnswers(text(), ended)

  function waitFor(isThere: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (!ended && !isThere()) return
        waiters.delete(look)
        resolve()
      }
      waiters.add(look)
      look()
    })
  }

  return {
    socket,
    send: (bytes) => void socket.write(bytes, 'latin1'),
    text,
    answers,
    read: async (count = 1) => {
      await waitFor(() => answers().filter(({ whole }) => whole).length >= count)
      return answers()
    },
    readUntil: async (wanted) => {
      await waitFor(() => text().includes(wanted))
      return text()
    },
    closed,
  }
}

/** Sends bytes on a connection of their own and reads the first answer. */
export async function ask(port: number, bytes: string | Buffer): Promise<Answer> {
  const client = await connectRaw(port)
  client.send(bytes)
  const [answer] = await client.read()
  client.socket.destroy()
  if (!answer) throw new Error('the connection was closed without an answer')
  return answer
}

export const field = ({ fields }: Answer, name: string): string | undefined =>
  fields.find(([received]) => received.toLowerCase() === name)?.[1]

/** Reads what a strict client would read (RFC 9112 §6.3); answers to HEAD are not understood. */
function readAnswers(text: string, ended: boolean): Answer[] {
  const answers: Answer[] = []
  let rest = text
  while (rest !== '') {
    const end = rest.indexOf('\r\n\r\n')
    if (end === -1) return answers
    const [line = '', ...lines] = rest.slice(0, end).split('\r\n')
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(line)?.[1] ?? Number.NaN)
    if (Number.isNaN(status)) throw new Error(`not an answer: ${JSON.stringify(rest.slice(0, 200))}`)
    const fields = lines.map((one): [string, string] => [
      one.slice(0, one.indexOf(':')),
      one.slice(one.indexOf(':') + 1).trim(),
    ])
    rest = rest.slice(end + 4)
    if (status < 200) continue
    const answer: Answer = { status, fields, body: '', whole: false }
    answers.push(answer)
    rest = readBody(answer, rest, ended)
    if (!answer.whole) return answers
  }
  return answers
}

function readBody(answer: Answer, rest: string, ended: boolean): string {
  const length = field(answer, 'content-length')
  if (answer.status === 204 || answer.status === 304) {
    answer.whole = true
    return rest
  }
  if (field(answer, 'transfer-encoding') === 'chunked') return readChunks(answer, rest)
  if (length === undefined) {
    answer.body = rest
    answer.whole = ended
    return ''
  }
  answer.body = rest.slice(0, Number(length))
  answer.whole = answer.body.length === Number(length)
  return rest.slice(Number(length))
}

function readChunks(answer: Answer, text: string): string {
  let at = 0
  for (;;) {
    const line = text.indexOf('\r\n', at)
    if (line === -1) return ''
    const size = Number.parseInt(text.slice(at, line), 16)
    if (Number.isNaN(size)) throw new Error(`not a chunk: ${JSON.stringify(text.slice(at, at + 80))}`)
    answer.body += text.slice(line + 2, line + 2 + size)
    at = line + 2 + size + 2
    if (size !== 0) {
      if (at > text.length) return ''
      continue
    }
    answer.whole = at <= text.length
    return text.slice(at)
  }
}
