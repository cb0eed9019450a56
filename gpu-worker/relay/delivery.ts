import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Budget, Lease, Reserved } from '../admission/budget.ts'
import type { Grant, Lane, Ticket } from '../admission/pool.ts'
import { toErrorBody, WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'
import type { Provider } from '../providers/provider.ts'
import type { Exchange } from '../providers/upstream.ts'
import type { Generation } from '../requests/generation.ts'
import type { Telemetry } from '../telemetry.ts'
import type { Usage } from './events.ts'
import type { Failure } from './failure.ts'
import { toRefusal, toRemedy } from './failure.ts'
import type { ResumePoint } from './resume.ts'
import { StreamAnswer } from './stream-answer.ts'
import type { Whole } from './whole-answer.ts'
import { WholeAnswer } from './whole-answer.ts'

/** What all deliveries share. Times are milliseconds that only grow. */
export interface DeliveryContext {
  chain: readonly Provider[]
  budget: Budget
  telemetry: Telemetry
  limits: Limits
  now: () => number
  log(entry: Record<string, unknown>): void
  open: Set<Delivery>
}

export interface Delivered {
  generation: Generation
  request: IncomingMessage
  response: ServerResponse
  requestId: string
  startedAt: number
  deadlineAt: number
  trace: string[]
}

/**
 * One request on its way: reserve, wait for a slot, ask, and hand the answer on; ask elsewhere as long as nothing has
 * reached the client; settle what was used, whoever ends it.
 */
export class Delivery {
  readonly #context: DeliveryContext
  readonly #work: Delivered
  readonly #promptTokens: number
  readonly #candidates: readonly Provider[]
  readonly #deadline: NodeJS.Timeout
  #lease: Lease | undefined
  #ticket: Ticket | undefined
  #pool: Provider['pool'] | undefined
  #provider: Provider | undefined
  #grant: Grant | undefined
  #exchange: Exchange | undefined
  #stream: StreamAnswer | undefined
  #model = ''
  #attempts = 0
  #attemptsHere = 0
  #attemptAt = 0
  #waitedMs = 0
  #firstAt: number | undefined
  #headAt: number | undefined
  #commentAt = 0
  #backoff: NodeJS.Timeout | undefined
  #settleTimer: NodeJS.Timeout | undefined
  /** Servers that failed it, providers that are of no more use to it. */
  readonly #tried = new Set<Lane>()
  readonly #spent = new Set<Provider>()
  #lastFailure: Failure | undefined
  /** Why it ends before its answer does. */
  #ending: 'left' | 'deadline' | undefined
  #over = false

  constructor(context: DeliveryContext, work: Delivered) {
    this.#context = context
    this.#work = work
    const { generation, deadlineAt } = work
    this.#candidates = toCandidates(context.chain, generation)
    this.#promptTokens = (this.#candidates[0] as Provider).predictor.promptTokens(generation)
    this.#deadline = setTimeout(() => this.#onDeadline(), Math.max(0, deadlineAt - context.now()))
  }

  start(): void {
    const { budget, open } = this.#context
    const { generation, response } = this.#work
    open.add(this)
    response.on('close', this.#onClose)
    const tokens = this.#promptTokens + generation.outputTokensMax * generation.choices
    const reserved = budget.reserve(generation.caller.tenant, tokens)
    if (reserved instanceof Promise) void reserved.then((lease) => this.#onReserved(lease))
    else this.#onReserved(reserved)
  }

  #onReserved(reserved: Reserved): void {
    if (reserved instanceof WorkerError) return this.#refuse(reserved)
    // The client may have left while a store was asked.
    if (this.#over) return reserved.settle(0)
    this.#lease = reserved
    if (this.#work.generation.stream) this.#stream = this.#createStream()
    this.#enter()
  }

  /** Into the line of the first provider that can still help. */
  #enter(): void {
    const { caller, kind } = this.#work.generation
    const provider = this.#candidates.find(
      (one) => !this.#spent.has(one) && one.kinds.includes(kind) && !(one.external && caller.local) && this.#asks(one),
    )
    if (!provider) return this.#refuse(this.#toLastWord())
    if (provider !== this.#provider) this.#attemptsHere = 0
    this.#provider = provider
    provider.retries.count()
    this.#line(provider, {
      onGrant: (grant) => this.#attempt(provider, grant),
      onRefuse: (error) => this.#onRefused(provider, error),
    })
  }

  #line(provider: Provider, then: Pick<Ticket, 'onGrant' | 'onRefuse'>): void {
    const { generation, deadlineAt, startedAt } = this.#work
    const { caller, outputTokensMax, choices } = generation
    const ticket: Ticket = {
      tenant: caller.tenant,
      band: caller.band,
      tokens: this.#promptTokens + outputTokensMax * choices,
      bytes: generation.bytes.length,
      deadlineAt,
      // A second attempt keeps its place by when it came first.
      enqueuedAt: startedAt,
      needsMs: provider.predictor.serviceMs(this.#promptTokens, generation),
      tried: this.#tried,
      ...then,
    }
    this.#ticket = ticket
    this.#pool = provider.pool
    provider.pool.enter(ticket)
  }

  /** Whether it has a model for this: the one that is named, or, further down, one that stands in. */
  #asks(provider: Provider): boolean {
    const { model } = this.#work.generation
    const standsIn = provider !== this.#candidates[0] || this.#candidates.length > 1
    const found = provider.toModel(model) ?? (standsIn ? provider.toModel('') : undefined)
    if (found === undefined) return false
    this.#model = found
    return provider.pool.usable()
  }

  #onRefused(provider: Provider, error: WorkerError): void {
    this.#ticket = undefined
    if (error.code !== 'upstream_unavailable') return this.#refuse(error)
    this.#spent.add(provider)
    this.#enter()
  }

  #attempt(provider: Provider, grant: Grant): void {
    const { now, telemetry } = this.#context
    const { generation, requestId, trace } = this.#work
    this.#ticket = undefined
    this.#grant = grant
    this.#attempts++
    this.#attemptsHere++
    this.#attemptAt = now()
    if (this.#attempts === 1) {
      this.#waitedMs = grant.waitedMs
      telemetry.queue.observe({ band: generation.caller.band }, grant.waitedMs / 1_000)
      telemetry.admission.add({ outcome: 'admitted' })
    }
    const order = provider.toOrder(generation, { requestId, model: this.#model, trace })
    this.#stream?.begin(order)
    this.#exchange = provider.upstreamOf(grant.lane).open(order, this.#stream ?? this.#createWhole())
    if (this.#stream) this.#stream.exchange = this.#exchange
  }

  #createWhole(): WholeAnswer {
    const { limits, now } = this.#context
    const { kind } = this.#work.generation
    return new WholeAnswer({
      kind,
      limits,
      now,
      onDone: (whole) => this.#onWhole(whole),
      onFailure: (failure) => this.#onFailure(failure),
    })
  }

  #createStream(): StreamAnswer {
    const { limits, now } = this.#context
    const { generation, response } = this.#work
    return new StreamAnswer({
      generation,
      response,
      limits,
      now,
      onCommit: () => this.#writeHead('text/event-stream; charset=utf-8'),
      onDone: () => this.#onStreamDone(),
      onFailure: (failure) => this.#onFailure(failure),
    })
  }

  #onWhole({ body, contentType, usage }: Whole): void {
    if (this.#ending) return this.#settle(usage)
    this.#succeeded(usage)
    this.#firstAt = this.#context.now()
    this.#writeHead(contentType, body.length)
    // A text leaves in one write with the head, where bytes make two; latin1 keeps every byte.
    if (body.length <= textBytesMax) this.#work.response.end(body.toString('latin1'), 'latin1')
    else this.#work.response.end(body)
    this.#settle(usage)
  }

  #onStreamDone(): void {
    const { telemetry } = this.#context
    const { response } = this.#work
    const stream = this.#stream as StreamAnswer
    const usage = stream.usage ?? { promptTokens: this.#promptTokens, completionTokens: stream.events }
    this.#succeeded(usage)
    if (this.#ending) return this.#settle(usage)
    if (!stream.ended) {
      telemetry.doneMissing.add({ provider: this.#provider?.name ?? '' })
      response.write('data: [DONE]\n\n')
    }
    response.end()
    this.#settle(usage)
  }

  #succeeded({ promptTokens, completionTokens }: Usage): void {
    const { now, telemetry } = this.#context
    const { generation } = this.#work
    const { predictor, name } = this.#provider as Provider
    telemetry.attempts.add({ provider: name, reason: 'success' })
    if (this.#grant) this.#provider?.succeeded(this.#grant.lane)
    const totalMs = now() - this.#attemptAt
    const firstMs = this.#stream?.firstEventAt === undefined ? undefined : this.#stream.firstEventAt - this.#attemptAt
    predictor.learnPrompt(generation, promptTokens)
    if (generation.kind === 'embeddings' || this.#attempts > 1) return
    // Of an answer that came whole only the sum is known.
    const first = firstMs ?? Math.max(0, totalMs - predictor.gapMs() * completionTokens)
    predictor.learnTimes({ firstMs: first, totalMs, promptTokens, outputTokens: completionTokens })
  }

  #onFailure(failure: Failure): void {
    const { telemetry } = this.#context
    const stream = this.#stream
    const provider = this.#provider as Provider
    const used = stream?.usage
    if (this.#ending) return this.#settle(used)
    telemetry.attempts.add({ provider: provider.name, reason: failure.reason })
    if (failure.reason === 'abort') telemetry.abortAs200.add({ provider: provider.name })
    if (failure.reason === 'stall' || failure.reason === 'first_token')
      telemetry.stalls.add({ provider: provider.name })
    const lane = this.#grant?.lane
    if (lane) provider.failed(lane, failure)
    this.#lastFailure = failure
    this.#exchange?.destroy()
    this.#exchange = undefined
    if (stream?.committed) return this.#resume(provider, failure, lane)
    if (used) telemetry.waste.add({ reason: failure.reason }, used.promptTokens + used.completionTokens)
    this.#grant?.release()
    this.#grant = undefined
    this.#retry(provider, failure, lane)
  }

  /** Another server, another provider, or the same once more; else the client hears of it. */
  #retry(provider: Provider, failure: Failure, lane: Lane | undefined): void {
    const { now, limits } = this.#context
    const remedy = toRemedy(failure)
    if (remedy === 'none') return this.#refuse(toRefusal(failure))
    const leftMs = this.#work.deadlineAt - now()
    const mayRepeat = this.#attemptsHere < limits.attemptsMax && provider.retries.take()
    if (lane) this.#tried.add(lane)
    const waitMs = failure.retryAfterMs ?? 0
    if (!mayRepeat || (remedy === 'later' && waitMs > leftMs / 2)) this.#spent.add(provider)
    else if (!provider.pool.usable(this.#tried)) {
      if (remedy === 'other') this.#spent.add(provider)
      else if (lane) this.#tried.delete(lane)
    }
    if (this.#spent.has(provider) || remedy === 'other') return this.#enter()
    // Full jitter, so that those who failed together do not come back together.
    this.#backoff = setTimeout(() => this.#enter(), Math.min(leftMs, waitMs + Math.random() * backoffMs))
  }

  /** The client has part of an answer: another server goes on from its tokens, if one can. */
  #resume(provider: Provider, failure: Failure, lane: Lane | undefined): void {
    const { limits } = this.#context
    const stream = this.#stream as StreamAnswer
    const point = provider.toResumeOrder && stream.toResumePoint()
    this.#grant?.release()
    this.#grant = undefined
    if (lane) this.#tried.add(lane)
    const mayResume =
      point !== undefined && this.#attemptsHere < limits.attemptsMax && provider.pool.usable(this.#tried)
    if (!mayResume || !provider.retries.take()) return this.#breakOff(failure, stream.usage)
    this.#line(provider, {
      onRefuse: () => this.#breakOff(failure, stream.usage),
      onGrant: (grant) => {
        this.#goOn(provider, grant, point).catch((error: Error) => {
          if (this.#over || this.#ending) return
          this.#breakOff({ ...failure, cause: error.message }, stream.usage)
        })
      },
    })
  }

  async #goOn(provider: Provider, grant: Grant, point: ResumePoint): Promise<void> {
    const { now, telemetry } = this.#context
    const { generation, requestId, trace } = this.#work
    const stream = this.#stream as StreamAnswer
    this.#ticket = undefined
    this.#grant = grant
    this.#attempts++
    this.#attemptsHere++
    const context = { requestId, model: this.#model, trace }
    const resumed = await provider.toResumeOrder?.(grant.lane, point, generation, context)
    if (this.#over || this.#ending) return
    if (!resumed) throw new Error('its tokens do not add up to its text')
    this.#attemptAt = now()
    telemetry.resumed.add({ provider: provider.name })
    telemetry.waste.add({ reason: 'resume' }, point.promptIds.length + point.ids.length)
    stream.resume(point, resumed.tokens)
    this.#exchange = provider.upstreamOf(grant.lane).open(resumed.order, stream)
    stream.exchange = this.#exchange
  }

  /** The client has part of an answer that will not be whole: it is told so, and never sees [DONE]. */
  #breakOff(failure: Failure, used: Usage | undefined): void {
    const { response } = this.#work
    response.end(toErrorEvent(new WorkerError('upstream_failed', 'The answer broke off')))
    this.#settle(used, failure.reason)
  }

  #writeHead(contentType: string, length?: number): void {
    const { now } = this.#context
    const { response, requestId, startedAt } = this.#work
    this.#firstAt ??= now()
    if (this.#headAt !== undefined) return
    this.#headAt = now()
    const firstMs = this.#firstAt - startedAt
    const served = this.#firstAt - this.#attemptAt
    response.writeHead(200, [
      'Content-Type',
      contentType,
      ...(length === undefined ? ['Cache-Control', 'no-cache'] : ['Content-Length', String(length)]),
      'X-Request-Id',
      requestId,
      ...(this.#provider
        ? ['X-LLM-Provider', this.#provider.name, 'X-LLM-Model', this.#model, 'X-LLM-Attempts', String(this.#attempts)]
        : []),
      'X-Worker-Queue-Ms',
      this.#waitedMs.toFixed(1),
      'X-Worker-TTFT-Ms',
      firstMs.toFixed(1),
      'X-Worker-Overhead-Ms',
      Math.max(0, firstMs - this.#waitedMs - served).toFixed(2),
    ])
  }

  #refuse(error: WorkerError): void {
    const { telemetry } = this.#context
    const { response } = this.#work
    if (this.#over) return
    if (this.#attempts === 0) telemetry.admission.add({ outcome: error.code })
    if (this.#headAt !== undefined) response.end(toErrorEvent(error))
    else if (this.#isTheirs(error)) this.#passOn(this.#lastFailure as Failure)
    else sendError(response, error, this.#work.requestId)
    this.#settle(undefined, error.code)
  }

  /** A refusal of the model's own server is about the request, in words that clients know. */
  #isTheirs(error: WorkerError): boolean {
    const { reason, status = 0, body } = this.#lastFailure ?? { reason: 'reset' }
    return (
      reason === 'status' &&
      status < 500 &&
      status !== 401 &&
      status !== 403 &&
      status !== 429 &&
      body !== undefined &&
      error.code === 'upstream_failed'
    )
  }

  #passOn({ status = 502, body = Buffer.alloc(0) }: Failure): void {
    const { response, requestId } = this.#work
    response.writeHead(status, [
      'Content-Type',
      'application/json',
      'Content-Length',
      String(body.length),
      'X-Request-Id',
      requestId,
      'X-LLM-Provider',
      this.#provider?.name ?? '',
    ])
    response.end(body)
  }

  #toLastWord(): WorkerError {
    const { generation } = this.#work
    const chain = this.#candidates
    if (this.#lastFailure) return toRefusal(this.#lastFailure)
    if (!chain.some(({ kinds }) => kinds.includes(generation.kind)))
      return new WorkerError('not_found', 'No provider here answers this')
    if (chain.every((provider) => provider.toModel(generation.model) === undefined))
      return new WorkerError('model_not_found', `The model ${JSON.stringify(generation.model)} does not exist here`, {
        param: 'model',
      })
    return new WorkerError('upstream_unavailable', 'No model is ready', { retryAfterSeconds: 5 })
  }

  readonly #onClose = (): void => {
    if (this.#over || this.#ending || this.#work.response.writableFinished) return
    this.#end('left')
  }

  #onDeadline(): void {
    if (this.#over || this.#ending) return
    const { response } = this.#work
    const error = new WorkerError('deadline_exceeded', 'The answer was not ready in time')
    if (this.#headAt === undefined) sendError(response, error, this.#work.requestId)
    else response.end(toErrorEvent(error))
    this.#end('deadline')
  }

  /** Nobody reads any more. The server is told; what it has generated until it hears of it is counted. */
  #end(ending: 'left' | 'deadline'): void {
    this.#ending = ending
    clearTimeout(this.#backoff)
    if (this.#ticket) this.#pool?.leave(this.#ticket)
    this.#stream?.silence()
    if (!this.#exchange) return this.#settle(this.#stream?.committed ? this.#stream.usage : undefined)
    this.#settleTimer = setTimeout(() => {
      this.#exchange?.destroy()
      this.#settle(this.#stream?.usage)
    }, this.#context.limits.settleMs)
    this.#exchange.leave()
  }

  /** Looks whether something has taken too long. */
  look(now: number): void {
    if (this.#over || this.#ending) return
    const { limits } = this.#context
    const { response, startedAt } = this.#work
    const stream = this.#stream
    if (stream && !stream.committed && now - startedAt > limits.holdMs && now - this.#commentAt > limits.commentMs) {
      // From here on a failure is an event.
      this.#commentAt = now
      this.#writeHeldHead()
      response.write(': queued\n\n')
    }
    if (!this.#exchange || !stream) return
    if (stream.blockedAt !== undefined) {
      if (now - stream.blockedAt > limits.clientStallMs) response.destroy()
    } else if (stream.firstEventAt === undefined) {
      if (now - this.#attemptAt > limits.firstTokenMs) stream.stop({ reason: 'first_token' })
    } else if (now - stream.lastEventAt > this.#gapMs()) stream.stop({ reason: 'stall' })
  }

  #writeHeldHead(): void {
    const { response, requestId } = this.#work
    if (this.#headAt !== undefined) return
    this.#headAt = this.#context.now()
    response.writeHead(200, [
      'Content-Type',
      'text/event-stream; charset=utf-8',
      'Cache-Control',
      'no-cache',
      'X-Request-Id',
      requestId,
    ])
  }

  #gapMs(): number {
    const { gapMs, gapFactor } = this.#context.limits
    return Math.max(gapMs, gapFactor * (this.#provider?.predictor.gapMs() ?? 0))
  }

  #settle(used: Usage | undefined, outcome?: string): void {
    if (this.#over) return
    this.#over = true
    const { open, telemetry, now, log } = this.#context
    const { generation, requestId, startedAt, response } = this.#work
    clearTimeout(this.#deadline)
    clearTimeout(this.#settleTimer)
    clearTimeout(this.#backoff)
    open.delete(this)
    this.#grant?.release()
    const paid = this.#toPaid(used)
    this.#lease?.settle(paid.promptTokens + paid.completionTokens)
    if (this.#ending && paid.completionTokens + paid.promptTokens > 0)
      telemetry.partialTokens.add({ counted: used ? 'exact' : 'estimate' }, paid.completionTokens)
    const labels = this.#toLabels(outcome)
    telemetry.duration.observe(labels, (now() - startedAt) / 1_000)
    if (this.#attempts > 0) this.#observeAnswer(paid)
    log({
      event: 'request',
      system: 'gpu-worker',
      requestId,
      tenant: generation.caller.tenant,
      band: generation.caller.band,
      kind: generation.kind,
      stream: generation.stream,
      status: this.#ending === 'left' ? 499 : response.statusCode,
      ...(outcome !== undefined && { outcome }),
      ...(this.#ending && { ended: this.#ending }),
      ...(this.#lastFailure && {
        failure: this.#lastFailure.reason,
        cause: this.#lastFailure.cause ?? this.#lastFailure.status,
      }),
      provider: this.#provider?.name,
      attempts: this.#attempts,
      promptTokens: paid.promptTokens,
      completionTokens: paid.completionTokens,
      queueMs: round(this.#waitedMs),
      ...(this.#firstAt !== undefined && { firstMs: round(this.#firstAt - startedAt) }),
      ms: round(now() - startedAt),
    })
  }

  /** What the tenant pays: the attempt that was delivered, and what ran when it left. */
  #toPaid(used: Usage | undefined): Usage {
    const { generation } = this.#work
    if (used) return used
    // Without a count of the server's, an event is about a token.
    if (this.#stream?.committed) return { promptTokens: this.#promptTokens, completionTokens: this.#stream.events }
    if (!this.#ending || !this.#exchange || generation.stream) return { promptTokens: 0, completionTokens: 0 }
    // Nobody says how far an answer was that comes whole: as far as the time allows.
    const gapMs = Math.max(1, this.#provider?.predictor.gapMs() ?? 1)
    const completionTokens = Math.min(
      generation.outputTokensMax,
      Math.round((this.#context.now() - this.#attemptAt) / gapMs),
    )
    return { promptTokens: this.#promptTokens, completionTokens }
  }

  #observeAnswer({ promptTokens, completionTokens }: Usage): void {
    const { telemetry, now } = this.#context
    const labels = this.#toLabels(undefined)
    telemetry.clientDuration.observe(labels, (now() - this.#attemptAt) / 1_000)
    telemetry.tokens.observe({ ...labels, gen_ai_token_type: 'input' }, promptTokens)
    telemetry.tokens.observe({ ...labels, gen_ai_token_type: 'output' }, completionTokens)
    const first = this.#stream?.firstEventAt
    if (first === undefined) return
    telemetry.firstToken.observe(labels, (first - this.#work.startedAt) / 1_000)
    if (completionTokens > 1) telemetry.perToken.observe(labels, (now() - first) / 1_000 / (completionTokens - 1))
  }

  #toLabels(error: string | undefined): Record<string, string> {
    return {
      gen_ai_operation_name: operations[this.#work.generation.kind],
      gen_ai_provider_name: this.#provider?.name ?? '',
      ...(error !== undefined && { error_type: error }),
    }
  }
}

/** Who knows the model by its name comes first; those behind it in the chain may stand in. */
function toCandidates(chain: readonly Provider[], { kind, model }: Generation): readonly Provider[] {
  const able = chain.filter(({ kinds }) => kinds.includes(kind))
  const at = able.findIndex((provider) => provider.models().some(({ id }) => id === model))
  return able.length === 0 ? chain : able.slice(Math.max(0, at))
}

const operations = { chat: 'chat', text: 'text_completion', embeddings: 'embeddings' } as const
const backoffMs = 100
const textBytesMax = 16_384
const round = (ms: number): number => Math.round(ms * 10) / 10

const toErrorEvent = (error: WorkerError): string =>
  `data: ${toErrorBody(error).replace(/}}$/, `,"status":${error.status}}}`)}\n\n`

/** A refusal as an answer. */
export function sendError(response: ServerResponse, error: WorkerError, requestId: string): void {
  if (response.headersSent || response.destroyed) return
  const body = toErrorBody(error)
  response.writeHead(error.status, [
    'Content-Type',
    'application/json',
    'Content-Length',
    String(Buffer.byteLength(body)),
    'X-Request-Id',
    requestId,
    ...(error.retryAfterSeconds === undefined ? [] : ['Retry-After', String(error.retryAfterSeconds)]),
  ])
  response.end(body)
}
