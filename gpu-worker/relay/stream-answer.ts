import type { ServerResponse } from 'node:http'
import type { Limits } from '../limits.ts'
import type { Exchange, Sink } from '../providers/upstream.ts'
import type { Generation } from '../requests/generation.ts'
import type { EventFinder, Span, Usage } from './events.ts'
import { createEventFinder, findNumbers, findUsage, readEvent, readUsage } from './events.ts'
import type { Failure } from './failure.ts'
import { readRetryAfter, toConnectionFailure } from './failure.ts'
import type { ResumeLog, ResumePoint } from './resume.ts'
import { createResumeLog, readResumedEvent, toChatEvent } from './resume.ts'

interface Options {
  generation: Generation
  response: ServerResponse
  limits: Limits
  now: () => number
  /** The first text is there: the head may be written. What is written after it is part of the answer. */
  onCommit(): void
  /** The answer is over, whole. */
  onDone(): void
  onFailure(failure: Failure): void
}

/**
 * The answer to a client that reads along. Bytes of events go on as they came; what was only asked for to count with is
 * taken out of them in place. Until there is text worth committing to, everything is held back, so that another attempt
 * can take the place of one that fails.
 */
export class StreamAnswer implements Sink {
  readonly #options: Options
  /** Whether text has gone to the client. */
  committed = false
  /** Whether the client has seen `[DONE]`. */
  ended = false
  /** What the server said of the tokens so far. */
  usage: Usage | undefined
  finish: string | undefined
  /** Of the attempt that is under way, by `now`. */
  firstEventAt: number | undefined
  lastEventAt = 0
  /** Since when the client takes nothing. */
  blockedAt: number | undefined
  events = 0
  #exchange: Exchange | undefined
  #finder: EventFinder | undefined
  #status = 0
  #retryAfterMs: number | undefined
  #refusal: Buffer[] = []
  #over = true
  #failure: Failure | undefined
  #held: Buffer[] = []
  #heldBytes = 0
  /** Nobody reads any more: only usage counts. */
  #silent = false
  #stripsIds = false
  #log: ResumeLog | undefined
  /** This attempt goes on where another has stopped. */
  #resumed: { head: string; usage: Usage } | undefined
  /** Of the buffer at hand: what goes on, and whether it has text. */
  #from = -1
  #to = -1
  #commits = false

  constructor(options: Options) {
    this.#options = options
  }

  /** Another attempt begins; what was held of the last one is forgotten. */
  begin({ addsIds }: { addsIds: boolean }): void {
    this.#stripsIds = addsIds
    this.#log = addsIds ? createResumeLog(this.#options.limits.resumeBytesMax) : undefined
    this.#resumed = undefined
    this.usage = undefined
    this.finish = undefined
    this.firstEventAt = undefined
    this.#finder = createEventFinder(this.#options.limits.eventBytesMax)
    this.#status = 0
    this.#refusal = []
    this.#over = false
    this.#failure = undefined
    this.#held = []
    this.#heldBytes = 0
    this.#commits = false
  }

  /** Where another server could go on, if it could. */
  toResumePoint(): ResumePoint | undefined {
    return this.finish === undefined ? this.#log?.point() : undefined
  }

  /** What comes from here on goes on where the answer has stopped, after so many of its tokens. */
  resume({ head }: ResumePoint, tokens: number): void {
    this.#resumed = {
      head,
      usage: { promptTokens: this.usage?.promptTokens ?? 0, completionTokens: tokens },
    }
    this.firstEventAt = undefined
    this.#finder = createEventFinder(this.#options.limits.eventBytesMax)
    this.#status = 0
    this.#refusal = []
    this.#over = false
    this.#failure = undefined
    // Going on a second time is not tried.
    this.#log = undefined
  }

  set exchange(exchange: Exchange) {
    this.#exchange = exchange
  }

  /** The client has left: from here on the stream is only counted. */
  silence(): void {
    this.#silent = true
    this.#held = []
    if (this.blockedAt !== undefined) this.#exchange?.resume()
    this.blockedAt = undefined
  }

  /** The attempt is given up from outside. */
  stop(failure: Failure): void {
    // First, as another attempt may begin while this one is told to have failed.
    this.#exchange?.destroy()
    this.#fail(failure)
  }

  onHead(status: number, headers: (name: string) => string | undefined): void {
    this.#status = status
    if (status !== 200) this.#retryAfterMs = readRetryAfter(headers('retry-after'), this.#options.now())
    else if (!headers('content-type')?.startsWith('text/event-stream')) this.stop({ reason: 'garbage' })
  }

  onData(chunk: Buffer): void {
    if (this.#over) return
    if (this.#status !== 200) {
      if (this.#refusal.length < 64) this.#refusal.push(chunk)
      return
    }
    this.#from = -1
    const wasCommitted = this.committed
    const isBounded = (this.#finder as EventFinder).push(chunk, this.#onEvent)
    if (!isBounded) this.#failure ??= { reason: 'too_large' }
    // What came together with a failure is worth nothing unless the client has part of the answer already.
    if (this.#from !== -1 && !this.#silent && (!this.#failure || wasCommitted)) this.#emit()
    if (this.#failure) this.stop(this.#failure)
  }

  readonly #onEvent = (buffer: Buffer, start: number, end: number): void => {
    if (this.#failure) return
    const { generation, now } = this.#options
    const { kind, finish } = readEvent(buffer, start, end)
    this.lastEventAt = now()
    if (kind === 'comment') return
    if (kind === 'garbage') this.#failure = { reason: 'garbage' }
    else if (kind === 'error') this.#failure = readError(buffer.toString('utf8', start, end))
    else if (finish === 'abort') this.#failure = { reason: 'abort' }
    if (this.#failure) return
    if (kind === 'done') {
      // Errors and aborts end with it too: it counts when the answer has said why it ends.
      if (this.finish === undefined) this.#failure = { reason: 'truncated' }
      else if (this.#resumed) this.#say(buffer.toString('utf8', start, end))
      else this.#keep(buffer, start, end)
      this.ended = this.finish !== undefined
      return
    }
    if (this.#resumed) return this.#onResumedEvent(buffer.toString('utf8', start, end), kind === 'usage')
    this.finish ??= finish
    const usage = this.#readUsage(buffer, start, end)
    if (kind === 'usage') {
      if (generation.includeUsage) this.#keep(buffer, start, end)
      return
    }
    this.events++
    if (kind === 'content') {
      this.firstEventAt ??= this.lastEventAt
      this.#commits = true
    }
    if (finish !== undefined) this.#commits = true
    this.#keepWithout(buffer, start, end, usage && !generation.continuousUsage ? usage : undefined)
  }

  /** An event of another shape, told as the client knows the answer. */
  #onResumedEvent(event: string, isUsage: boolean): void {
    const { head, usage } = this.#resumed as { head: string; usage: Usage }
    const { includeUsage, continuousUsage } = this.#options.generation
    const { text, finish, completionTokens } = readResumedEvent(event)
    if (completionTokens !== undefined)
      this.usage = { ...usage, completionTokens: usage.completionTokens + completionTokens }
    this.finish ??= finish
    this.firstEventAt ??= this.lastEventAt
    if (!isUsage) this.#say(toChatEvent(head, text, finish, continuousUsage ? `,${toUsageText(this.usage)}` : ''))
    else if (includeUsage) this.#say(`${head}"choices":[],${toUsageText(this.usage)}}\n\n`)
  }

  #say(event: string): void {
    if (!this.#silent) this.#write(Buffer.from(event))
  }

  #readUsage(buffer: Buffer, start: number, end: number): Span | undefined {
    const span = findUsage(buffer, start, end)
    if (span) this.usage = readUsage(buffer, span) ?? this.usage
    return span
  }

  /** Without the usage, and without the ids that were only asked for to go on from. */
  #keepWithout(buffer: Buffer, start: number, end: number, usage: Span | undefined): void {
    const gaps: Span[] = []
    const found: (number[] | undefined)[] = []
    if (this.#stripsIds)
      for (const key of idKeys) {
        const ids = findNumbers(buffer, key, { start, end })
        if (ids) gaps.push(ids)
        found.push(ids?.numbers)
      }
    if (this.#log) this.#log.note(buffer.toString('latin1', start, end), found[1], found[0])
    if (usage) gaps.push(usage)
    if (gaps.length === 0) return this.#keep(buffer, start, end)
    gaps.sort((a, b) => a.start - b.start)
    let at = start
    for (const gap of gaps) {
      this.#keep(buffer, at, gap.start)
      at = gap.end
    }
    this.#keep(buffer, at, end)
  }

  /** These bytes go on, behind those that were kept before. The buffer is ours, so they are moved inside it. */
  #keep(buffer: Buffer, start: number, end: number): void {
    if (this.#from === -1) {
      this.#buffer = buffer
      this.#from = start
      this.#to = start
    }
    if (this.#to !== start) buffer.copyWithin(this.#to, start, end)
    this.#to += end - start
  }

  #buffer: Buffer = nothing

  #emit(): void {
    const bytes = this.#buffer.subarray(this.#from, this.#to)
    this.#buffer = nothing
    if (this.committed) return this.#write(bytes)
    this.#held.push(bytes)
    this.#heldBytes += bytes.length
    if (!this.#commits) {
      if (this.#heldBytes > this.#options.limits.heldBytesMax) this.#failure = { reason: 'too_large' }
      return
    }
    this.committed = true
    this.#options.onCommit()
    const held = this.#held
    this.#held = []
    this.#write(held.length === 1 ? bytes : Buffer.concat(held))
  }

  #write(bytes: Buffer): void {
    const { response, now } = this.#options
    if (response.write(bytes) || this.blockedAt !== undefined) return
    this.blockedAt = now()
    this.#exchange?.pause()
    response.once('drain', () => {
      if (this.blockedAt === undefined) return
      this.blockedAt = undefined
      // The gap was the client's.
      this.lastEventAt = this.#options.now()
      this.#exchange?.resume()
    })
  }

  onEnd(): void {
    if (this.#over) return
    if (this.#status !== 200)
      return this.#fail({
        reason: 'status',
        status: this.#status,
        body: Buffer.concat(this.#refusal),
        retryAfterMs: this.#retryAfterMs,
      })
    this.#end({ reason: 'truncated' })
  }

  onError(error: Error): void {
    this.#end(this.#status === 0 ? toConnectionFailure(error) : { reason: 'reset', cause: error.name })
  }

  /** Once the answer has said why it ends, it is whole, however the connection ends. */
  #end(otherwise: Failure): void {
    if (this.#over) return
    if (this.finish === undefined) return this.#fail(otherwise)
    this.#over = true
    this.#options.onDone()
  }

  #fail(failure: Failure): void {
    if (this.#over) return
    this.#over = true
    this.#held = []
    this.#options.onFailure(failure)
  }
}

const nothing: Buffer = Buffer.alloc(0)
const idKeys = [Buffer.from(',"token_ids":'), Buffer.from(',"prompt_token_ids":')]

const toUsageText = ({ promptTokens, completionTokens }: Usage = { promptTokens: 0, completionTokens: 0 }): string =>
  `"usage":{"prompt_tokens":${promptTokens},"total_tokens":${promptTokens + completionTokens},"completion_tokens":${completionTokens}}`

function readError(text: string): Failure {
  const code = Number(/"code": ?(\d{3})/.exec(text)?.[1] ?? 500)
  return { reason: 'error_event', status: code }
}
