import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Generation } from './generation.ts'
import { defaultKnobs } from './knobs.ts'
import type { Knobs, Record as RequestRecord } from './knobs.ts'
import { readRequest } from './request.ts'
import { createTokenizer } from './tokens.ts'
import * as wire from './wire.ts'

/** A stand-in for one vLLM server, on its wire. It generates a fixed text; everything else is as the knobs say. */
export interface VllmDouble {
  url: string
  port: number
  knobs: Knobs
  /** One for each request that asked for tokens, oldest first. */
  records: RequestRecord[]
  /** The texts of each request for vectors. */
  embedded: string[][]
  running(): number
  waiting(): number
  /** Resolves when nothing runs or waits. */
  idle(): Promise<void>
  /** As on SIGTERM: what runs is aborted, or ends in `shutdownTimeout`; then the port closes. */
  terminate(): Promise<void>
  /** As on SIGKILL. */
  kill(): Promise<void>
  /** Listens again on the same port, with an engine that is alive. */
  restart(): Promise<void>
}

export interface Engine {
  knobs: Knobs
  records: RequestRecord[]
  running: Set<Generation>
  waiting: Generation[]
  dead: boolean
  draining: boolean
  finished: { [reason: string]: number }
  firstTokens: number
  betweenTokens: number
  promptTokens: number
  generatedTokens: number
  /** Starts what waits, as far as there is room. */
  schedule(): void
  settle(generation: Generation): void
}

export async function startVllmDouble(given: Partial<Knobs> = {}, atPort = 0): Promise<VllmDouble> {
  const knobs: Knobs = { ...defaultKnobs, ...given }
  const engine = createEngine(knobs)
  let server = createServer()
  let port = atPort
  let staleMetrics: string | undefined
  const embedded: string[][] = []
  const idleWaiters: (() => void)[] = []
  engine.settle = (generation) => {
    engine.running.delete(generation)
    engine.waiting = engine.waiting.filter((one) => one !== generation)
    engine.schedule()
    if (engine.running.size + engine.waiting.length === 0) for (const tell of idleWaiters.splice(0)) tell()
  }

  async function listen(): Promise<void> {
    if (knobs.startupDelay > 0) await new Promise((resolve) => setTimeout(resolve, knobs.startupDelay))
    server = createServer({ keepAliveTimeout: 5_000, noDelay: true })
    server.on('request', (request, response) => void serve(request, response))
    server.listen({ port, host: '127.0.0.1', backlog: 1_024 })
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.sendDate = true
    response.setHeader('server', 'uvicorn')
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer)
    } catch {
      return
    }
    const path = (request.url ?? '').replace(/\?.*$/, '')
    const body = Buffer.concat(chunks).toString()
    if (
      knobs.apiKey !== undefined &&
      path.startsWith('/v1') &&
      request.headers.authorization !== `Bearer ${knobs.apiKey}`
    )
      return sendJson(response, 401, JSON.stringify({ error: 'Unauthorized' }))
    const key = `${request.method} ${path}`
    const generates = key === 'POST /v1/chat/completions' || key === 'POST /v1/completions'
    const isOther = generates ? knobs.tasks === 'embed' : key === 'POST /v1/embeddings' && knobs.tasks === 'generate'
    if (isOther) return sendJson(response, 400, wire.errorBody(400, 'BadRequestError', wire.otherTask(path)))
    if (generates) return void generate(request, response, path === '/v1/completions' ? 'text' : 'chat', body)
    const route = routes[key]
    if (route) return route(response, body, new URL(request.url ?? '', 'http://vllm').searchParams)
    const isKnown = Object.keys(routes).some((known) => known.endsWith(` ${path}`))
    sendJson(
      response,
      isKnown ? 405 : 404,
      wire.errorBody(
        isKnown ? 405 : 404,
        isKnown ? 'Method Not Allowed' : 'Not Found',
        isKnown ? 'Method Not Allowed' : 'Not Found',
      ),
    )
  }

  async function generate(request: IncomingMessage, response: ServerResponse, kind: 'chat' | 'text', body: string) {
    const tokenizer = createTokenizer(knobs.splitUtf8Across)
    const read = readRequest({ kind, body, headers: request.headers, knobs, tokenizer })
    if ('status' in read) return sendJson(response, read.status, read.body)
    if (engine.dead) return sendJson(response, 500, wire.errorBody(500, 'InternalServerError', wire.engineDead))
    const isFull = knobs.version === '0.29' && engine.waiting.length >= knobs.maxNumQueuedReqs
    if (isFull)
      return sendJson(
        response,
        503,
        wire.errorBody(503, 'Service Unavailable', 'The server is busy. Please try again later.'),
      )
    new Generation({ engine, request, response, read, kind, tokenizer }).start()
  }

  const routes: { [key: string]: (response: ServerResponse, body: string, query: URLSearchParams) => void } = {
    // Says 200 while it sleeps, is paused or has too much to do: only a dead engine is unhealthy.
    'GET /health': (response) => void response.writeHead(engine.dead ? 503 : 200, { 'content-length': 0 }).end(),
    'GET /version': (response) =>
      sendJson(response, 200, JSON.stringify({ version: knobs.version === '0.25' ? '0.25.1' : '0.29.0' })),
    'GET /load': (response) =>
      sendJson(response, 200, JSON.stringify({ server_load: engine.running.size + engine.waiting.length })),
    'GET /v1/models': (response) =>
      sendJson(response, 200, wire.modelsBody(knobs.model, 1_760_000_000, knobs.modelLengthMax)),
    'GET /metrics'(response) {
      const text =
        knobs.metricsStale && staleMetrics !== undefined ? staleMetrics : wire.metricsText(toMetricValues(engine))
      staleMetrics = text
      if (knobs.metricsStale) return // Nothing comes: what was read before goes stale.
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text)
    },
    'POST /tokenize'(response, body) {
      const { prompt, messages } = JSON.parse(body) as { prompt?: string; messages?: { content: string }[] }
      const tokens = createTokenizer(false).encode(prompt ?? (messages ?? []).map(({ content }) => content).join('\n'))
      sendJson(
        response,
        200,
        JSON.stringify({ count: tokens.length, max_model_len: knobs.modelLengthMax, tokens, token_strs: null }),
      )
    },
    'POST /detokenize'(response, body) {
      const { tokens } = JSON.parse(body) as { tokens: number[] }
      sendJson(
        response,
        200,
        JSON.stringify({ prompt: createTokenizer(knobs.splitUtf8Across).decode(tokens).toString() }),
      )
    },
    'POST /v1/embeddings'(response, body) {
      const { input, model, encoding_format } = JSON.parse(body) as {
        input: string | string[]
        model?: string
        encoding_format?: string
      }
      const texts = typeof input === 'string' ? [input] : input
      embedded.push(texts)
      if (knobs.vectorFailures > 0) {
        knobs.vectorFailures -= 1
        return sendJson(response, 503, wire.errorBody(503, 'Service Unavailable', 'The server is busy.'))
      }
      const counts = texts.map((text) => createTokenizer(false).encode(text).length)
      const prompt_tokens = counts.reduce((sum, count) => sum + count, 0)
      const data = texts.map((text, index) => ({
        index,
        object: 'embedding',
        embedding: toVector(text, knobs.vectorLength, encoding_format),
      }))
      const usage = { prompt_tokens, total_tokens: prompt_tokens, completion_tokens: 0, prompt_tokens_details: null }
      sendJson(
        response,
        200,
        JSON.stringify({
          id: `embd-${crypto.randomUUID()}`,
          object: 'list',
          created: 1_760_000_000,
          model: model ?? knobs.model,
          data,
          usage,
        }),
      )
    },
    'POST /sleep'(response) {
      knobs.sleepState = 'asleep'
      response.writeHead(200, { 'content-length': 0 }).end()
    },
    'POST /wake_up'(response) {
      knobs.sleepState = 'awake'
      engine.schedule()
      response.writeHead(200, { 'content-length': 0 }).end()
    },
    'GET /is_sleeping': (response) =>
      sendJson(response, 200, JSON.stringify({ is_sleeping: knobs.sleepState === 'asleep' })),
  }

  await listen()
  const double: VllmDouble = {
    get url() {
      return `http://127.0.0.1:${port}`
    },
    get port() {
      return port
    },
    knobs,
    records: engine.records,
    embedded,
    running: () => engine.running.size,
    waiting: () => engine.waiting.length,
    async idle() {
      if (engine.running.size + engine.waiting.length > 0)
        await new Promise<void>((resolve) => idleWaiters.push(resolve))
    },
    async terminate() {
      engine.draining = true
      if (knobs.shutdownTimeout > 0)
        await Promise.race([double.idle(), new Promise((resolve) => setTimeout(resolve, knobs.shutdownTimeout))])
      for (const generation of [...engine.running, ...engine.waiting]) generation.abort()
      await close()
    },
    async kill() {
      for (const generation of [...engine.running, ...engine.waiting]) generation.reset()
      server.closeAllConnections()
      await close()
    },
    async restart() {
      engine.dead = false
      engine.draining = false
      await listen()
    },
  }
  return double

  async function close(): Promise<void> {
    if (!server.listening) return
    const closing = server
    const closed = once(closing, 'close')
    closing.close()
    closing.closeIdleConnections()
    const late = setTimeout(() => closing.closeAllConnections(), 100)
    await closed
    clearTimeout(late)
  }
}

function createEngine(knobs: Knobs): Engine {
  const engine: Engine = {
    knobs,
    records: [],
    running: new Set(),
    waiting: [],
    dead: false,
    draining: false,
    finished: {},
    firstTokens: 0,
    betweenTokens: 0,
    promptTokens: 0,
    generatedTokens: 0,
    schedule() {
      while (engine.waiting[0] && hasRoom(engine)) {
        const next = engine.waiting.shift() as Generation
        engine.running.add(next)
        next.run()
      }
    },
    settle() {},
  }
  return engine
}

/** A sleeping engine takes requests and starts none. */
const hasRoom = ({ knobs, running }: Engine): boolean =>
  knobs.sleepState === 'awake' &&
  running.size < knobs.maxNumSeqs &&
  [...running].reduce((sum, { held }) => sum + held, 0) < knobs.kvTokens

const toMetricValues = (engine: Engine): wire.MetricValues => ({
  model: engine.knobs.model,
  running: engine.running.size,
  waiting: engine.waiting.length,
  awake: engine.knobs.sleepState === 'awake',
  kvUsage: [...engine.running].reduce((sum, { held }) => sum + held, 0) / engine.knobs.kvTokens,
  kvTokens: engine.knobs.kvTokens,
  promptTokens: engine.promptTokens,
  generatedTokens: engine.generatedTokens,
  finished: engine.finished,
  firstTokens: engine.firstTokens,
  betweenTokens: engine.betweenTokens,
})

/** Eight numbers, or their little-endian floats in base64. */
/** Texts with words in common get vectors that are near each other. */
function toVector(text: string, length: number, format: string | undefined): number[] | string {
  const vector = Array.from({ length }, () => 0.01)
  for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
    let hash = 2_166_136_261
    for (let at = 0; at < word.length; at++) hash = Math.imul(hash ^ word.charCodeAt(at), 16_777_619) >>> 0
    for (let index = 0; index < length; index++) vector[index]! += Math.sin(hash + index * (1 + (hash % 7)))
  }
  return format === 'base64' ? Buffer.from(new Float32Array(vector).buffer).toString('base64') : vector
}

function sendJson(response: ServerResponse, status: number, body: string): void {
  if (response.destroyed) return
  response
    .writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
    .end(body)
}
