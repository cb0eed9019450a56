/** The one thing the bridge needs from an embedded server: run protocol bytes now, hand back what it answers. */
export type ProtocolServer = { execute(message: Uint8Array): Promise<Buffer> }

/** One client of the bridge: `receive` takes its bytes in any pieces, `end` says it is gone. */
export type BridgeSession = { receive(bytes: Uint8Array): void; end(): void }

/** Where a session's answers go: `send` writes bytes to the client, `close` hangs up on it. */
export type BridgeClient = { send(bytes: Buffer): void; close(): void }

export type BridgeLimits = { sessionsMax: number; messageBytesMax: number; idleInTransactionMs: number }

type Session = BridgeClient & { closed: boolean }

/**
 * Shares one PostgreSQL backend among many clients of the wire protocol. A client keeps the backend from its
 * first byte until the server reports "idle" (ReadyForQuery `I`), so an extended query or a transaction is never
 * mixed with another client's. Notifications go to every session. A client that stays silent while it holds the
 * backend is hung up on after `idleInTransactionMs`, and whatever it left open is rolled back.
 */
export function createPostgresBridge(server: ProtocolServer, limits: BridgeLimits) {
  const turns = createTurns<Session>()
  const sessions = new Set<Session>()

  function open(client: BridgeClient): BridgeSession {
    const session: Session = { ...client, closed: false }
    if (sessions.size >= limits.sessionsMax) return refuse(session, 'too many clients on the embedded database')
    sessions.add(session)

    const split = createSplitter(limits.messageBytesMax)
    let work = Promise.resolve()
    let silence: NodeJS.Timeout | undefined

    return { receive, end }

    function receive(bytes: Uint8Array): void {
      const batches = session.closed ? [] : split(bytes)
      if (batches === 'too large') return hangUp('54000', 'message is larger than the embedded database accepts')
      for (const batch of batches) work = work.then(() => run(batch)).catch(() => hangUp('XX000', 'internal error'))
    }

    async function run(batch: Batch): Promise<void> {
      if (batch.kind === 'terminate') return end()
      if (batch.kind === 'refuse ssl') return client.send(Buffer.from('N'))
      await turns.take(session)
      clearTimeout(silence)
      if (session.closed) return turns.release(session)
      const { mine, shared, status } = sortAnswer(await server.execute(batch.bytes))
      for (const other of sessions) if (other !== session && shared.length > 0) other.send(shared)
      if (!session.closed) client.send(mine)
      if (status === 'idle') return turns.release(session)
      silence = setTimeout(() => hangUp('25P03', 'idle-in-transaction timeout'), limits.idleInTransactionMs)
    }

    function hangUp(code: string, message: string): void {
      if (!session.closed) client.send(fatal(code, message))
      end()
      client.close()
    }

    function end(): void {
      if (session.closed) return
      session.closed = true
      sessions.delete(session)
      work = work.then(rollBackAndRelease)
    }

    async function rollBackAndRelease(): Promise<void> {
      clearTimeout(silence)
      if (!turns.isHeldBy(session)) return
      // Sync first: after an error in an extended query the server skips everything up to it.
      await server.execute(SYNC)
      await server.execute(ROLLBACK)
      turns.release(session)
    }
  }

  return { open }
}

function refuse(session: Session, message: string): BridgeSession {
  session.send(fatal('53300', message))
  session.close()
  return { receive() {}, end() {} }
}

/** First come, first served possession of the one backend; taking it again while holding it is free. */
function createTurns<Holder>() {
  let holder: Holder | undefined
  const waiting: { by: Holder; start: () => void }[] = []

  return {
    isHeldBy: (by: Holder) => holder === by,
    take(by: Holder): Promise<void> | undefined {
      if (holder === by) return undefined
      if (holder !== undefined) return new Promise((start) => waiting.push({ by, start }))
      holder = by
      return undefined
    },
    release(by: Holder): void {
      if (holder !== by) return
      const next = waiting.shift()
      holder = next?.by
      next?.start()
    },
  }
}

type Batch = { kind: 'execute'; bytes: Uint8Array } | { kind: 'refuse ssl' } | { kind: 'terminate' }

const SSL_REQUEST = 80877103
const CANCEL_REQUEST = 80877102
const GSS_REQUEST = 80877104

/**
 * Cuts a client's bytes into batches the backend can run in one go: the startup message, then runs of whole
 * messages that end in Query, Sync or Flush. COPY FROM STDIN is replaced and stray copy data dropped on the way.
 */
function createSplitter(messageBytesMax: number) {
  let pending: Buffer = Buffer.alloc(0)
  let started = false
  let parts: Buffer[] = []

  return function split(bytes: Uint8Array): Batch[] | 'too large' {
    pending = Buffer.concat([pending, bytes])
    const batches: Batch[] = []
    for (;;) {
      const head = started ? 1 : 0
      if (pending.length < head + 4) return batches
      const length = head + pending.readUInt32BE(head)
      if (length > messageBytesMax || length < head + 4) return 'too large'
      if (pending.length < length) return batches
      const message = pending.subarray(0, length)
      pending = pending.subarray(length)
      if (started) addMessage(message, batches)
      else addStartup(message, batches)
    }
  }

  function addStartup(message: Buffer, batches: Batch[]): void {
    const code = message.length >= 8 ? message.readUInt32BE(4) : 0
    if (code === SSL_REQUEST || code === GSS_REQUEST) return void batches.push({ kind: 'refuse ssl' })
    if (code === CANCEL_REQUEST) return void batches.push({ kind: 'terminate' })
    started = true
    batches.push({ kind: 'execute', bytes: message })
  }

  function addMessage(message: Buffer, batches: Batch[]): void {
    const type = String.fromCharCode(message[0] ?? 0)
    if (type === 'X') return void batches.push({ kind: 'terminate' })
    if (type === 'd' || type === 'c' || type === 'f') return
    parts.push(type === 'Q' || type === 'P' ? withoutCopyIn(message, type) : message)
    if (type !== 'Q' && type !== 'S' && type !== 'H') return
    batches.push({ kind: 'execute', bytes: Buffer.concat(parts) })
    parts = []
  }
}

// The embedded server never comes back from COPY FROM STDIN. The statement that raises the refusal is run by
// the server itself, so the error, the skipped messages and the state of the transaction are all its own.
const REFUSE_COPY_IN = `DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '0A000',
  MESSAGE = 'COPY FROM STDIN is not available on the embedded database',
  HINT = 'Insert rows, or set DATABASE_URL to a PostgreSQL server.'; END $$`

function withoutCopyIn(message: Buffer, type: 'Q' | 'P'): Buffer {
  const name = type === 'P' ? cString(message, 5) : ''
  const sql = cString(message, type === 'P' ? 6 + Buffer.byteLength(name) : 5)
  if (!isCopyFromStdin(sql)) return message
  return type === 'Q' ? frame('Q', `${REFUSE_COPY_IN}\0`) : frame('P', `${name}\0${REFUSE_COPY_IN}\0\0\0`)
}

function cString(message: Buffer, from: number): string {
  return message.toString('utf8', from, message.indexOf(0, from))
}

const QUOTED = /\b[eE]'(?:\\.|''|[^'\\])*'|'(?:''|[^'])*'|"(?:""|[^"])*"|--[^\n]*|\/\*[^]*?\*\/|\$(\w*)\$[^]*?\$\1\$/g
const COPY_FROM_STDIN = /(?:^|;)\s*copy\b[^;]*\bfrom\s+stdin\b/i

function isCopyFromStdin(sql: string): boolean {
  return /stdin/i.test(sql) && COPY_FROM_STDIN.test(sql.replace(QUOTED, ' '))
}

type Answer = { mine: Buffer; shared: Buffer; status: 'idle' | 'busy' }

/** Separates what every session must see (notifications) and reads the state the server says it is left in. */
function sortAnswer(answer: Buffer): Answer {
  const notifications: Buffer[] = []
  let status: Answer['status'] = 'busy'
  for (let at = 0; at + 5 <= answer.length;) {
    const end = at + 1 + answer.readUInt32BE(at + 1)
    if (answer[at] === LETTER_A) notifications.push(answer.subarray(at, end))
    if (answer[at] === LETTER_Z) status = answer[at + 5] === LETTER_I ? 'idle' : 'busy'
    at = end
  }
  return { mine: answer, shared: Buffer.concat(notifications), status }
}

const LETTER_A = 65
const LETTER_I = 73
const LETTER_Z = 90

function fatal(code: string, message: string): Buffer {
  return frame('E', `SFATAL\0VFATAL\0C${code}\0M${message}\0\0`)
}

function frame(type: string, body: string): Buffer {
  const message = Buffer.from(`${type}....${body}`)
  message.writeUInt32BE(message.length - 1, 1)
  return message
}

const SYNC = frame('S', '')
const ROLLBACK = frame('Q', 'ROLLBACK\0')
