import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { Hono } from 'hono'
import type { WorkerCaller } from '#origin/kit/worker-tokens.ts'
import type { Callers } from './caller.ts'
import { toErrorBody, WorkerError } from './error.ts'
import type { DeliveryContext } from './relay/delivery.ts'
import { Delivery, sendError } from './relay/delivery.ts'
import type { RunningRecommender } from './recommender/start.ts'
import type { BodyLimits } from './requests/body.ts'
import { readBody } from './requests/body.ts'
import type { Kind } from './requests/generation.ts'
import { readGeneration } from './requests/generation.ts'
import type { FilmVectors } from './vectors/film-vectors.ts'
import { readSimilar } from './vectors/similar-request.ts'

export interface AppOptions {
  callers: Callers
  context: DeliveryContext
  /** What answers `/recommend`; absent where there is no database to learn from. */
  recommender?: RunningRecommender
  /** What answers `/v1/similar`; there when the recommender is. */
  vectors?: FilmVectors
}

/** A request whose caller is known and whose body has come. */
interface Asked {
  caller: WorkerCaller
  body: Buffer
  request: IncomingMessage
  response: ServerResponse
  requestId: string
  startedAt: number
}

/**
 * The worker's routes. Hono finds the row; what is relayed goes from socket to socket, without a `Request` body or a
 * `Response` in between.
 */
export function createApp({ callers, context, recommender, vectors }: AppOptions): Hono<{ Bindings: HttpBindings }> {
  const { chain, limits, telemetry } = context
  const app = new Hono<{ Bindings: HttpBindings }>()

  const deliver = (kind: Kind) => receive(limits, (asked) => relay(kind, asked))
  const posts = {
    '/v1/chat/completions': deliver('chat'),
    '/v1/completions': deliver('text'),
    '/v1/embeddings': deliver('embeddings'),
    '/v1/similar': answerSimilar(),
    '/recommend': answerWishes('recommend'),
    '/recommend_single': answerWishes('recommendSingle'),
  }
  for (const [path, handle] of Object.entries(posts)) {
    app.post(path, handle)
    // Not `all`, which would make two handlers of one for every request.
    app.on(['GET', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'], path, () => {
      throw new WorkerError('method_not_allowed', 'This path takes POST')
    })
  }

  app.get('/v1/models', async (c) => {
    if (!(await callers.read(c.req.header('authorization')))) throw unauthenticated()
    const data = chain
      .flatMap((provider) => provider.models())
      .map(({ id, ownedBy, lengthMax }) => ({
        id,
        object: 'model',
        created: 0,
        owned_by: ownedBy,
        ...(lengthMax !== undefined && { max_model_len: lengthMax }),
      }))
    return c.json({ object: 'list', data })
  })

  app.get('/', (c) => c.json({ message: 'ok', service: 'ai', ...toModel(recommender) }))
  // Alive is whoever answers at all: the loop turns.
  app.get('/health', (c) => {
    const model_loaded = recommender?.state().version !== undefined
    return c.json({ status: 'healthy', model_loaded, ...toModel(recommender) })
  })
  app.get('/ready', async (c) => {
    const isAlive = !recommender || (await recommender.isAlive(limits.databaseTimeoutMs))
    const reasons = [...toReasons(context), ...(isAlive ? [] : ['the database does not answer'])]
    return c.json({ status: reasons.length === 0 ? 'ready' : 'not ready', reasons }, reasons.length === 0 ? 200 : 503)
  })
  app.get('/metrics', (c) =>
    c.text(telemetry.toText(), 200, { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' }),
  )

  app.notFound((c) => answer(c.req.header('x-request-id'), new WorkerError('not_found', 'There is no such path')))
  app.onError((error, c) => {
    if (error instanceof WorkerError) return answer(c.req.header('x-request-id'), error)
    context.log({ event: 'error', system: 'gpu-worker', error: error.message, stack: error.stack })
    return answer(c.req.header('x-request-id'), new WorkerError('internal', 'Internal server error'))
  })
  return app

  /** Refuses who has no token or a body that is too large; `begin` may throw a WorkerError. */
  function receive(bounds: BodyLimits, begin: (asked: Asked) => void | Promise<void>) {
    return (c: { env: HttpBindings }): Response => {
      receiveFrom(c.env.incoming as IncomingMessage, c.env.outgoing as ServerResponse, bounds, begin)
      return RESPONSE_ALREADY_SENT
    }
  }

  function receiveFrom(
    request: IncomingMessage,
    response: ServerResponse,
    bounds: BodyLimits,
    begin: (asked: Asked) => void | Promise<void>,
  ): void {
    const startedAt = context.now()
    const requestId = readRequestId(request)
    if (context.open.size >= limits.inFlightMax) {
      telemetry.admission.add({ outcome: 'overloaded' })
      return sendError(response, new WorkerError('overloaded', 'Too much to do', { retryAfterSeconds: 1 }), requestId)
    }
    const caller = callers.read(request.headers.authorization)
    if (caller instanceof Promise)
      caller.then(
        (verified) => receiveOf(verified),
        (error: Error) => fail(error),
      )
    else receiveOf(caller)

    function receiveOf(verified: WorkerCaller | undefined): void {
      if (!verified) return sendError(response, unauthenticated(), requestId)
      readBody(request, bounds, (body) => {
        if (body instanceof WorkerError) {
          // What is left of it is not read.
          response.shouldKeepAlive = false
          return sendError(response, body, requestId)
        }
        try {
          begin({ caller: verified, body, request, response, requestId, startedAt })?.catch(fail)
        } catch (error) {
          fail(error as Error)
        }
      })
    }

    function fail(error: Error): void {
      if (error instanceof WorkerError) return sendError(response, error, requestId)
      context.log({ event: 'error', system: 'gpu-worker', requestId, error: error.message, stack: error.stack })
      sendError(response, new WorkerError('internal', 'Internal server error'), requestId)
    }
  }

  function relay(kind: Kind, { caller, body, request, response, requestId, startedAt }: Asked): void {
    const generation = readGeneration(kind, body, caller, limits)
    const deadlineAt = startedAt + readTimeoutMs(request, limits.deadlineMs)
    const trace = ['traceparent', 'tracestate'].flatMap((name) => {
      const value = request.headers[name]
      return typeof value === 'string' && value.length <= 512 ? [name, value] : []
    })
    new Delivery(context, { generation, request, response, requestId, startedAt, deadlineAt, trace }).start()
  }

  function answerSimilar() {
    const bounds = { ...limits, bodyBytesMax: limits.wishesBytesMax }
    return receive(bounds, async ({ caller, body, request, response, requestId, startedAt }) => {
      if (!vectors) throw new WorkerError('not_found', 'This worker has no database (MOVIESIR_DATABASE_URL) of films')
      const question = readSimilar(body)
      const deadlineAt = startedAt + readTimeoutMs(request, limits.vectorDeadlineMs)
      const authorization = request.headers.authorization ?? ''
      const ending = new AbortController()
      const { promise: ended, reject } = Promise.withResolvers<never>()
      const end = (error: Error): void => {
        ending.abort(error)
        reject(error)
      }
      const late = setTimeout(
        () => end(new WorkerError('deadline_exceeded', 'The answer was not ready in time')),
        deadlineAt - context.now(),
      )
      response.on('close', () => end(clientLeft))
      try {
        const asked = { ...question, caller, authorization, deadlineAt, signal: ending.signal }
        const { model, films } = await Promise.race([vectors.similar(asked), ended])
        sendJson(response, JSON.stringify({ model, films }), requestId)
        logAnswer('similar', 200, { model })
      } catch (error) {
        logAnswer('similar', error === clientLeft ? 499 : error instanceof WorkerError ? error.status : 500)
        if (error !== clientLeft) throw error
      } finally {
        clearTimeout(late)
      }

      function logAnswer(kind: string, status: number, more: Record<string, unknown> = {}): void {
        const ms = round(context.now() - startedAt)
        const { tenant, band } = caller
        context.log({ event: 'request', system: 'gpu-worker', requestId, tenant, band, kind, status, ...more, ms })
      }
    })
  }

  function answerWishes(kind: 'recommend' | 'recommendSingle') {
    const bounds = { ...limits, bodyBytesMax: limits.wishesBytesMax }
    return receive(bounds, ({ caller, body, response, requestId, startedAt }) => {
      if (!recommender)
        throw new WorkerError('not_found', 'This worker has no database (MOVIESIR_DATABASE_URL) to recommend from')
      const { tier, text } = recommender[kind](body)
      sendJson(response, text, requestId, { 'X-Recommendation-Tier': tier })
      const ms = context.now() - startedAt
      telemetry.recommendation.observe({ kind, tier }, ms / 1_000)
      const { tenant } = caller
      context.log({ event: 'request', system: 'gpu-worker', requestId, tenant, kind, status: 200, tier, ms: round(ms) })
    })
  }
}

const clientLeft = new Error('the client has left')

function sendJson(
  response: ServerResponse,
  text: string,
  requestId: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(200, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'X-Request-Id': requestId,
    ...headers,
  })
  response.end(text)
}

const round = (ms: number): number => Math.round(ms * 10) / 10

/** How `/` and `/health` name what recommends. */
function toModel(recommender: RunningRecommender | undefined): { version: string; model: string } {
  return { version: String(recommender?.state().version ?? 'none'), model: recommender?.state().model ?? 'none' }
}

const requestIdPattern = /^[\w.:-]{1,128}$/

function readRequestId({ headers }: IncomingMessage): string {
  const given = headers['x-request-id']
  return typeof given === 'string' && requestIdPattern.test(given) ? given : crypto.randomUUID()
}

/** What the gateway says is left, in its field; never longer than our own. */
function readTimeoutMs({ headers }: IncomingMessage, ownMs: number): number {
  const given = headers['x-envoy-expected-rq-timeout-ms']
  return typeof given === 'string' && /^\d{1,9}$/.test(given) ? Math.min(Number(given), ownMs) : ownMs
}

const unauthenticated = (): WorkerError =>
  new WorkerError('unauthenticated', 'A token signed with the secret of this worker is needed')

/** Why requests should go elsewhere for now. */
function toReasons({ chain, limits, open }: DeliveryContext): string[] {
  const speaking = chain.filter(({ kinds }) => kinds.includes('chat'))
  const reasons = speaking.map((provider) => provider.readiness())
  const full = chain.filter(({ pool }) => pool.isFull()).map(({ name }) => `the queue of ${name} is full`)
  const busy = open.size >= limits.inFlightMax ? ['too many requests are open'] : []
  return [...(reasons.every((reason) => reason !== undefined) ? reasons : []), ...full, ...busy].filter(
    (reason) => reason !== undefined,
  )
}

function answer(requestId: string | undefined, error: WorkerError): Response {
  const headers = {
    'Content-Type': 'application/json',
    ...(requestId !== undefined && requestIdPattern.test(requestId) && { 'X-Request-Id': requestId }),
  }
  return new Response(toErrorBody(error), { status: error.status, headers })
}
