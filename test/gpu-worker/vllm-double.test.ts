import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { readPrometheus } from '../support/prometheus.ts'
import type { VllmDouble } from '../support/vllm/double.ts'
import { startVllmDouble } from '../support/vllm/double.ts'
import { defaultKnobs } from '../support/vllm/knobs.ts'
import { chatBody, chatDelta, doneEvent, errorEvent, roleEvent, usageEvent } from '../support/vllm/wire.ts'

let double: VllmDouble
beforeAll(async () => void (double = await startVllmDouble()))
afterEach(() => void Object.assign(double.knobs, defaultKnobs))
afterAll(() => double.kill())

const answer = { id: 'chatcmpl-8f1c', created: 1_760_000_000, model: 'kanana-8b' }
const post = (path: string, body: unknown, headers = {}): Promise<Response> =>
  fetch(double.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', connection: 'close', ...headers },
    body: JSON.stringify(body),
  })
const get = (path: string): Promise<Response> => fetch(double.url + path, { headers: { connection: 'close' } })
const chat = (more = {}, headers = {}): Promise<Response> =>
  post('/v1/chat/completions', { model: 'kanana-8b', messages: [{ role: 'user', content: 'hi' }], ...more }, headers)
const eventsOf = async (more = {}): Promise<string[]> =>
  (await (await chat({ stream: true, ...more })).text()).split('\n\n').filter(Boolean)
const parse = (event: string | undefined) => JSON.parse((event ?? '').slice(6))

describe('events are vLLM 0.25.1’s, byte for byte', () => {
  it('role, delta, finish, usage', () => {
    const delta = { logprobs: null, finish: null, ids: null, usage: undefined, isLast: false }
    expect(roleEvent(answer, null, undefined)).toBe(
      'data: {"id":"chatcmpl-8f1c","object":"chat.completion.chunk","created":1760000000,"model":"kanana-8b","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}\n\n',
    )
    expect(chatDelta(answer, { ...delta, text: '안녕' })).toBe(
      'data: {"id":"chatcmpl-8f1c","object":"chat.completion.chunk","created":1760000000,"model":"kanana-8b","choices":[{"index":0,"delta":{"content":"안녕"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n',
    )
    expect(chatDelta(answer, { ...delta, text: '.', finish: 'stop', isLast: true })).toBe(
      'data: {"id":"chatcmpl-8f1c","object":"chat.completion.chunk","created":1760000000,"model":"kanana-8b","choices":[{"index":0,"delta":{"content":"."},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}],"system_fingerprint":"vllm-0.25.1-1a2b3c4d"}\n\n',
    )
    expect(usageEvent(answer, 'chat.completion.chunk', { prompt: 11, completion: 7 })).toBe(
      'data: {"id":"chatcmpl-8f1c","object":"chat.completion.chunk","created":1760000000,"model":"kanana-8b","choices":[],"usage":{"prompt_tokens":11,"total_tokens":18,"completion_tokens":7},"system_fingerprint":"vllm-0.25.1-1a2b3c4d"}\n\n',
    )
    expect(errorEvent('Internal server error')).toBe(
      'data: {"error": {"message": "Internal server error", "type": "InternalServerError", "param": null, "code": 500}}\n\n',
    )
    expect(doneEvent).toBe('data: [DONE]\n\n')
  })

  it('a whole answer', () => {
    expect(chatBody(answer, '안녕.', 'stop', { prompt: 11, completion: 7 }, null, null)).toBe(
      '{"id":"chatcmpl-8f1c","object":"chat.completion","created":1760000000,"model":"kanana-8b","choices":[{"index":0,"message":{"role":"assistant","content":"안녕.","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.25.1-1a2b3c4d","usage":{"prompt_tokens":11,"total_tokens":18,"completion_tokens":7,"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,"metrics":null}',
    )
  })
})

describe('a stream', () => {
  it('begins with its role, shares the last chunk between text and finish, and ends with [DONE]', async () => {
    const events = await eventsOf()
    expect(parse(events[0]).choices[0].delta).toEqual({ role: 'assistant', content: '' })
    const last = parse(events.at(-2))
    expect(last.choices[0].finish_reason).toBe('stop')
    expect(last.choices[0].delta.content).not.toBe('')
    expect(events.at(-1)).toBe('data: [DONE]')
  })

  it('says the usage of every chunk when asked, counting from nothing', async () => {
    const events = await eventsOf({ stream_options: { include_usage: true, continuous_usage_stats: true } })
    const counts = events.slice(0, -1).map((event) => parse(event).usage.completion_tokens)
    expect(counts).toEqual([0, ...Array.from({ length: 16 }, (_, index) => index + 1), 16])
    expect(parse(events.at(-2)).choices).toEqual([])
    expect(events.at(-3)).not.toContain('system_fingerprint')
  })

  it('withholds the text of a character that is not whole, and loses none', async () => {
    const whole = await (await chat()).json()
    Object.assign(double.knobs, { splitUtf8Across: true, outputTokens: 40, chunkBoundary: '1byte' })
    const events = await eventsOf({ return_token_ids: true })
    const texts = events.slice(1, -1).map((event) => parse(event).choices[0].delta.content as string)
    expect(texts.some((text) => text === '')).toBe(true)
    expect(texts.join('')).not.toContain('\ufffd')
    expect(texts.join('').startsWith(whole.choices[0].message.content.slice(0, 10))).toBe(true)
    expect(events.slice(1, -1).flatMap((event) => parse(event).choices[0].token_ids)).toHaveLength(40)
  })

  it('goes on from the ids of a prompt that ends in an answer', async () => {
    const events = await eventsOf({ return_token_ids: true })
    const promptIds = parse(events[0]).prompt_token_ids
    const ids = events.slice(1, -1).flatMap((event) => parse(event).choices[0].token_ids)
    const rest = await (
      await post('/v1/completions', { model: 'kanana-8b', prompt: [...promptIds, ...ids.slice(0, 6)] })
    ).json()
    const text = events.slice(1, -1).map((event) => parse(event).choices[0].delta.content)
    expect(rest.choices[0].text).toBe(text.slice(6).join(''))
    const detokenized = await (await post('/detokenize', { tokens: ids.slice(0, 6) })).json()
    expect(detokenized.prompt).toBe(text.slice(0, 6).join(''))
  })

  it('merges what a slow reader has not taken', async () => {
    Object.assign(double.knobs, { mergeDeltas: true, outputTokens: 40_000, modelLengthMax: 50_000 })
    const socket = connect(double.port, '127.0.0.1')
    const body = JSON.stringify({ messages: [{ role: 'user', content: 'hi' }], stream: true })
    socket.pause()
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    )
    while ((double.records.at(-1)?.tokens ?? 0) < 40_000 || double.running() > 0)
      await new Promise((resolve) => setTimeout(resolve, 10))
    const record = double.records.at(-1)
    expect(record?.finish).toBe('stop')
    expect(record?.maxSocketBuffered).toBeLessThan(1_000_000)
    expect(record?.bytesSent).toBeLessThan(40_000 * 200)
    socket.destroy()
  })
})

describe('what goes wrong', () => {
  it.each([
    [
      { model: 'x' },
      404,
      { message: 'The model `x` does not exist.', type: 'NotFoundError', param: 'model', code: 404 },
    ],
    [
      { temperature: 3 },
      400,
      {
        message: 'temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)',
        type: 'BadRequestError',
        param: 'temperature',
        code: 400,
      },
    ],
    [{ max_tokens: 9_000 }, 400, { type: 'BadRequestError', param: 'input_tokens', code: 400 }],
    [{ messages: undefined }, 400, { type: 'Bad Request', param: 'body.messages', code: 400 }],
    [{ priority: 1 }, 400, { type: 'BadRequestError', code: 400 }],
  ])('%j is refused in its words', async (more, status, error) => {
    const refused = await chat(more)
    expect(refused.status).toBe(status)
    expect(await refused.json()).toMatchObject({ error })
  })

  it('says Unauthorized as a text, and 404 and 405 by their phrases', async () => {
    double.knobs.apiKey = 'right'
    const refused = await chat()
    expect([refused.status, await refused.text()]).toEqual([401, '{"error":"Unauthorized"}'])
    expect((await post('/tokenize', { prompt: 'hi' })).status).toBe(200)
    expect(await (await get('/nowhere')).json()).toMatchObject({
      error: { type: 'Not Found', code: 404 },
    })
    expect((await fetch(`${double.url}/version`, { method: 'POST' })).status).toBe(405)
  })

  it('errors and aborts come with status 200 and end with [DONE]', async () => {
    double.knobs.injectAt = { token: 3, kind: 'errorEvent' }
    expect((await eventsOf()).slice(-2)).toEqual([errorEvent('Internal server error').trim(), 'data: [DONE]'])
    double.knobs.injectAt = { token: 3, kind: 'abort' }
    const aborted = await eventsOf()
    expect(parse(aborted.at(-2)).choices[0].finish_reason).toBe('abort')
    expect(aborted.at(-1)).toBe('data: [DONE]')
    const whole = await chat()
    expect([whole.status, (await whole.json()).choices[0].finish_reason]).toEqual([200, 'abort'])
  })

  it('a dead engine is unhealthy; a sleeping one is healthy and answers nobody', async () => {
    double.knobs.injectAt = { token: 1, kind: 'engineDead' }
    expect((await eventsOf()).join('')).toContain('EngineCore encountered an issue')
    expect((await get('/health')).status).toBe(503)
    expect((await chat()).status).toBe(500)
    await double.kill()
    await double.restart()
    Object.assign(double.knobs, defaultKnobs)
    expect((await post('/sleep?level=1', {})).status).toBe(200)
    expect((await get('/health')).status).toBe(200)
    const held = chat()
    while (double.waiting() === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    await post('/wake_up', {})
    expect((await held).status).toBe(200)
  })

  it('0.25 lets its queue grow without end, 0.29 says 503', async () => {
    Object.assign(double.knobs, { maxNumSeqs: 1, maxNumQueuedReqs: 1, outputTokens: 4, itl: { mean: 5, sd: 0 } })
    const statuses = async (): Promise<number[]> =>
      (await Promise.all([1, 2, 3, 4].map(() => chat()))).map(({ status }) => status).sort()
    expect(await statuses()).toEqual([200, 200, 200, 200])
    double.knobs.version = '0.29'
    expect((await statuses()).slice(0, 1)).toEqual([200])
    expect(await statuses()).toContain(503)
  })

  it('X-Return-Error asks for an error', async () => {
    expect((await chat({}, { 'x-return-error': '429' })).status).toBe(429)
  })

  it('a client that leaves ends its request, and everything goes back to nothing', async () => {
    Object.assign(double.knobs, { itl: { mean: 5, sd: 0 }, outputTokens: 1_000, modelLengthMax: 2_000 })
    const leave = new AbortController()
    const left = await fetch(`${double.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'hi' }], stream: true }),
      signal: leave.signal,
    })
    await left.body?.getReader().read()
    leave.abort()
    await double.idle()
    expect(double.records.at(-1)?.abortedAtToken).toBeGreaterThan(0)
    expect(double.records.at(-1)?.abortedAtToken).toBeLessThan(1_000)
  })
})

it('metrics count as vLLM’s own test wants it, and parse', async () => {
  const counted = await startVllmDouble({ outputTokens: 10 })
  for (let times = 0; times < 10; times++)
    await fetch(`${counted.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"messages":[{"role":"user","content":"hi"}]}',
    })
  const { samples } = readPrometheus(await (await fetch(`${counted.url}/metrics`)).text())
  const value = (name: string): number | undefined => samples.find((sample) => sample.name === name)?.value
  expect(value('vllm:generation_tokens_total')).toBe(100)
  expect(value('vllm:time_to_first_token_seconds_count')).toBe(10)
  expect(value('vllm:inter_token_latency_seconds_count')).toBe(90)
  expect(value('vllm:num_requests_running')).toBe(0)
  await counted.kill()
})

it('terminates as vLLM does: what runs is aborted with status 200', async () => {
  const ending = await startVllmDouble({ itl: { mean: 20, sd: 0 }, outputTokens: 1_000 })
  const asked = await fetch(`${ending.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"messages":[{"role":"user","content":"hi"}],"stream":true}',
  })
  const text = asked.text()
  await ending.terminate()
  expect(await text).toContain('"finish_reason":"abort"')
})
