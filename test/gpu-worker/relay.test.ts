import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { VllmDouble } from '../support/vllm/double.ts'
import { startVllmDouble } from '../support/vllm/double.ts'
import { readPrometheus } from '../support/prometheus.ts'
import { defaultKnobs } from '../support/vllm/knobs.ts'
import type { TestWorker } from './worker.ts'
import { hello, readEvents, readText, startTestWorker } from './worker.ts'

let double: VllmDouble
let worker: TestWorker

beforeAll(async () => {
  double = await startVllmDouble()
  worker = await startTestWorker({ VLLM_URL: double.url })
})
afterAll(async () => {
  await worker.stop()
  await double.kill()
})

describe('one request', () => {
  it('gets the answer of the model as it is', async () => {
    const answer = await worker.ask('/v1/chat/completions', hello)
    expect(answer.status).toBe(200)
    expect(answer.body.choices[0].finish_reason).toBe('stop')
    expect(answer.body.usage.completion_tokens).toBe(16)
    expect(answer.headers).toMatchObject({ 'x-llm-provider': 'vllm', 'x-llm-attempts': '1' })
  })

  it('gets a stream with the same text, and no usage it has not asked for', async () => {
    const whole = await worker.ask('/v1/chat/completions', hello)
    const stream = await worker.ask('/v1/chat/completions', { ...hello, stream: true })
    expect(stream.headers['content-type']).toBe('text/event-stream; charset=utf-8')
    expect(readText(stream.text)).toBe(whole.body.choices[0].message.content)
    const events = readEvents(stream.text)
    expect(events.at(-1)).toBe('[DONE]')
    expect(stream.text).not.toContain('usage')
  })
})

describe('what a request may not', () => {
  const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    worker.ask(path, body, { headers })

  it.each([
    ['no token', { authorization: '' }],
    ['another kind of credentials', { authorization: 'Basic dGVzdDp0ZXN0' }],
    ['a token of another secret', { authorization: 'Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl' }],
  ])('with %s it gets 401', async (_, headers) => {
    const before = double.records.length
    const refused = await post('/v1/chat/completions', hello, headers)
    expect([refused.status, refused.body.error.code]).toEqual([401, 'unauthenticated'])
    expect(double.records.length).toBe(before)
  })

  it.each([
    ['/v1/chat/completions', 'not json', 400, 'invalid_request', null],
    ['/v1/chat/completions', '[]', 400, 'invalid_request', null],
    ['/v1/chat/completions', {}, 400, 'invalid_request', 'messages'],
    ['/v1/chat/completions', { messages: [] }, 400, 'invalid_request', 'messages'],
    ['/v1/chat/completions', { ...hello, stream: 'yes' }, 400, 'invalid_request', 'stream'],
    ['/v1/chat/completions', { ...hello, n: 1e9 }, 400, 'invalid_request', 'n'],
    ['/v1/chat/completions', { ...hello, max_tokens: 1e9 }, 400, 'invalid_request', 'max_tokens'],
    ['/v1/completions', { model: 'kanana-8b' }, 400, 'invalid_request', 'prompt'],
    ['/v1/completions', { model: 'kanana-8b', prompt: [1, 'two'] }, 400, 'invalid_request', 'prompt'],
    ['/v1/embeddings', { model: 'kanana-8b', input: [] }, 400, 'invalid_request', 'input'],
    [
      '/v1/chat/completions',
      {
        ...hello,
        messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'http://169.254.169.254/' } }] }],
      },
      400,
      'invalid_request',
      'messages',
    ],
    [
      '/v1/chat/completions',
      {
        ...hello,
        messages: [
          { role: 'user', content: [{ type: 'video_url', text: 'x', video_url: { url: 'http://10.0.0.1/' } }] },
        ],
      },
      400,
      'invalid_request',
      'messages',
    ],
    ['/v1/completions', { prompt: 'x', prompt_embeds: 'AAAA' }, 400, 'invalid_request', 'prompt_embeds'],
    ['/v1/chat/completions', { ...hello, chat_template: '{{ 1 }}' }, 400, 'invalid_request', 'chat_template'],
    [
      '/v1/chat/completions',
      { ...hello, kv_transfer_params: { remote_host: '10.0.0.1' } },
      400,
      'invalid_request',
      'kv_transfer_params',
    ],
    ['/v1/nowhere', {}, 404, 'not_found', null],
  ])('%s with %j gets %i %s', async (path, body, status, code, param) => {
    const before = double.records.length
    const refused = await post(path, body)
    expect([refused.status, refused.body.error.code, refused.body.error.param]).toEqual([status, code, param])
    expect(double.records.length).toBe(before)
  })

  it('another method gets 405, another type 415, a large body 413', async () => {
    expect((await fetch(`${worker.url}/v1/completions`)).status).toBe(405)
    expect((await post('/v1/chat/completions', hello, { 'content-type': 'text/plain' })).status).toBe(415)
    expect((await post('/v1/chat/completions', 'x'.repeat(5_000_000))).status).toBe(413)
  })

  it('what the model’s server says of it is passed on in its words', async () => {
    const refused = await post('/v1/chat/completions', { ...hello, model: 'x' })
    expect([refused.status, refused.body.error.type]).toEqual([404, 'NotFoundError'])
    const long = await post('/v1/chat/completions', { ...hello, max_tokens: 9_000 })
    expect([long.status, long.body.error.param]).toEqual([400, 'input_tokens'])
  })
})

describe('a schema for structured output', () => {
  const deep = (levels: number, word: string): unknown =>
    levels === 0 ? { type: 'string' } : { [word]: [deep(levels - 1, word)] }
  it.each([
    ['choices inside choices', deep(5, 'oneOf')],
    ['many parts', { enum: Array.from({ length: 2_000 }, () => ({})) }],
    ['many levels', JSON.parse(`${'{"properties":{"a":'.repeat(40)}{}${'}}'.repeat(40)}`)],
    ['a repeated repetition', { type: 'string', pattern: '(a+)+$' }],
    ['many bytes', { enum: ['x'.repeat(70_000)] }],
  ])('of %s does not reach the model, and the next request does', async (_, schema) => {
    const before = double.records.length
    const refused = await worker.ask('/v1/chat/completions', {
      ...hello,
      response_format: { type: 'json_schema', json_schema: { name: 'a', schema } },
    })
    expect([refused.status, refused.body.error.code]).toEqual([400, 'schema_too_costly'])
    expect(double.records.length).toBe(before)
    const small = { type: 'object', properties: { a: { anyOf: [{ type: 'string' }, { type: 'null' }] } } }
    expect(
      (
        await worker.ask('/v1/chat/completions', {
          ...hello,
          response_format: { type: 'json_schema', json_schema: { name: 'a', schema: small } },
        })
      ).status,
    ).toBe(200)
  })

  it('as a grammar of one’s own is not taken', async () => {
    const refused = await worker.ask('/v1/chat/completions', { ...hello, guided_grammar: 'root ::= "a"' })
    expect(refused.body.error.code).toBe('schema_too_costly')
  })
})

describe('what the model’s server is told', () => {
  it('is the body as it came, with a bound, a salt of the tenant, and the counting that the client has not asked for', async () => {
    const text = `{"messages":[{"role":"user","content":"a \\u0041"}],"model":"kanana-8b", "stream":true,"temperature":0.50}`
    await worker.ask('/v1/chat/completions', text)
    const { body } = double.records.at(-1) ?? {}
    expect(body).toMatchObject({
      temperature: 0.5,
      stream: true,
      max_tokens: 1_024,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    })
    expect(body?.['cache_salt']).toMatch(/^[\w-]{43}$/)
  })

  it('salts differ by tenant, and whoever shares its prefix has none', async () => {
    const saltOf = async (caller: { tenant: string; sharedPrefix?: boolean }, more = {}): Promise<unknown> => {
      await worker.ask('/v1/chat/completions', { ...hello, ...more }, { token: await worker.token(caller) })
      return double.records.at(-1)?.body['cache_salt']
    }
    const first = await saltOf({ tenant: 'a' })
    expect(await saltOf({ tenant: 'a' })).toBe(first)
    expect(await saltOf({ tenant: 'b' })).not.toBe(first)
    // Nobody gets at another's by naming it.
    expect(await saltOf({ tenant: 'b' }, { cache_salt: first })).not.toBe(first)
    expect(await saltOf({ tenant: 'a', sharedPrefix: true })).toBeUndefined()
  })

  it('priority is the worker’s business', async () => {
    expect((await worker.ask('/v1/chat/completions', { ...hello, priority: 5 })).status).toBe(200)
  })

  it('carries the request id and the trace', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    const answer = await worker.ask('/v1/chat/completions', hello, { headers: { 'x-request-id': 'r-1', traceparent } })
    expect(answer.headers['x-request-id']).toBe('r-1')
    expect(double.records.at(-1)?.headers).toMatchObject({ 'x-request-id': 'r-1', traceparent })
  })
})

describe('streams', () => {
  it.each(['event', 'random', '1byte'] as const)(
    'come out the same however their bytes are cut: %s',
    async (chunkBoundary) => {
      Object.assign(double.knobs, { chunkBoundary, splitUtf8Across: true, outputTokens: 60 })
      const stream = await worker.ask('/v1/chat/completions', { ...hello, stream: true })
      const direct = await (
        await fetch(`${double.url}/v1/chat/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-request-id': String(stream.headers['x-request-id']) },
          body: JSON.stringify({ ...hello, stream: true }),
        })
      ).text()
      Object.assign(double.knobs, defaultKnobs)
      // Usage was asked for to count with: the fingerprint moves to its event then, and that one is taken out.
      expect(stream.text).toBe(direct.replace(',"system_fingerprint":"vllm-0.25.1-1a2b3c4d"', ''))
    },
  )

  it('tell the usage to whoever asks, each as it asked', async () => {
    const once = await worker.ask('/v1/chat/completions', {
      ...hello,
      stream: true,
      stream_options: { include_usage: true },
    })
    const events = readEvents(once.text)
    expect(events.at(-2).usage.completion_tokens).toBe(16)
    expect(events.slice(0, -2).filter((event) => event.usage !== undefined)).toEqual([])
    const always = await worker.ask('/v1/chat/completions', {
      ...hello,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    })
    expect(
      readEvents(always.text)
        .slice(0, -1)
        .every((event) => event.usage !== undefined),
    ).toBe(true)
  })

  it('of completions come too', async () => {
    const stream = await worker.ask('/v1/completions', { model: 'kanana-8b', prompt: 'once', stream: true })
    const whole = await worker.ask('/v1/completions', { model: 'kanana-8b', prompt: 'once' })
    expect(readText(stream.text)).toBe(whole.body.choices[0].text)
  })
})

describe('the rest of the surface', () => {
  it('embeds one text or several', async () => {
    const one = await worker.ask('/v1/embeddings', { model: 'kanana-8b', input: 'a film about a gate' })
    expect(one.body.data).toHaveLength(1)
    const two = await worker.ask('/v1/embeddings', {
      model: 'kanana-8b',
      input: ['one', 'two'],
      encoding_format: 'base64',
    })
    expect(two.body.data.map(({ embedding }: { embedding: unknown }) => typeof embedding)).toEqual(['string', 'string'])
  })

  it('lists the models to whoever has a token', async () => {
    expect((await fetch(`${worker.url}/v1/models`)).status).toBe(401)
    const listed = await fetch(`${worker.url}/v1/models`, {
      headers: { authorization: `Bearer ${await worker.token()}` },
    })
    expect(await listed.json()).toMatchObject({ object: 'list', data: [{ id: 'kanana-8b', max_model_len: 8_192 }] })
  })

  it('is alive, ready, and counts in Prometheus’ format with the names of OpenTelemetry', async () => {
    expect((await fetch(`${worker.url}/health`)).status).toBe(200)
    expect((await fetch(`${worker.url}/ready`)).status).toBe(200)
    const { families } = readPrometheus(await (await fetch(`${worker.url}/metrics`)).text())
    for (const name of [
      'gen_ai_server_request_duration_seconds',
      'gen_ai_server_time_to_first_token_seconds',
      'gen_ai_client_token_usage',
    ])
      expect(families[name]).toBe('histogram')
    for (const name of ['worker_admission_total', 'worker_upstream_attempts_total', 'worker_abort_as_200_total'])
      expect(families[name]).toBe('counter')
    expect(await worker.metric('worker_open_requests')).toBe(0)
  })

  it('says of each request what it cost, and nothing of what it said', async () => {
    const before = worker.entries.length
    await worker.ask('/v1/chat/completions', { ...hello, messages: [{ role: 'user', content: 'a planted secret' }] })
    const [entry] = worker.entries.slice(before).filter(({ event }) => event === 'request')
    expect(entry).toMatchObject({ tenant: 'test', status: 200, provider: 'vllm', completionTokens: 16, attempts: 1 })
    expect(JSON.stringify(worker.entries)).not.toContain('planted')
    expect(JSON.stringify(worker.entries)).not.toContain('Bearer')
  })
})

describe('a budget', () => {
  it('is held back before a request and paid by what it took, also by one that is left', async () => {
    const counted = await startTestWorker({ VLLM_URL: double.url, GPU_WORKER_TOKENS_PER_MINUTE: '3000' })
    const ask = () => counted.ask('/v1/chat/completions', { ...hello, max_tokens: 1_000 })
    // Each could take a thousand and takes few: one at a time there is room for all.
    for (let times = 0; times < 5; times++) expect((await ask()).status).toBe(200)
    Object.assign(double.knobs, { itl: { mean: 10, sd: 0 }, outputTokens: 1_000 })
    const { asked, answer } = await counted.open('/v1/chat/completions', { ...hello, stream: true, max_tokens: 2_000 })
    const refused = await ask()
    expect([refused.status, refused.body.error.code, refused.body.error.type]).toEqual([
      429,
      'insufficient_quota',
      'insufficient_quota',
    ])
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    answer.on('error', () => {})
    asked.on('error', () => {})
    asked.destroy()
    await counted.logged(7)
    await double.idle()
    Object.assign(double.knobs, defaultKnobs)
    expect((await ask()).status).toBe(200)
    await counted.stop()
  })
})
