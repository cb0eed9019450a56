import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingHttpHeaders, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { VllmDouble } from '../support/vllm/double.ts'
import { startVllmDouble } from '../support/vllm/double.ts'
import type { TestWorker } from './worker.ts'
import { hello, readEvents, readText, startTestWorker } from './worker.ts'

/** A server that says what it is told to, and remembers what it was asked. */
interface Scripted {
  url: string
  answers: { status?: number; headers?: Record<string, string>; body: string | string[] }[]
  // oxlint-disable-next-line typescript/no-explicit-any
  asked: { path: string; headers: IncomingHttpHeaders; body: any }[]
  server: Server
}

async function startScripted(): Promise<Scripted> {
  const scripted: Scripted = { url: '', answers: [], asked: [], server: createServer() }
  scripted.server.on('request', (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      scripted.asked.push({
        path: request.url ?? '',
        headers: request.headers,
        body: JSON.parse(Buffer.concat(chunks).toString()),
      })
      const { status = 200, headers = {}, body } = scripted.answers.shift() ?? { status: 500, body: '{}' }
      const isStream = Array.isArray(body)
      response.writeHead(status, {
        'content-type': isStream ? 'text/event-stream; charset=utf-8' : 'application/json',
        ...headers,
      })
      if (!isStream) return void response.end(body)
      void writeBitByBit(response, body)
    })
  })
  scripted.server.listen(0, '127.0.0.1')
  await once(scripted.server, 'listening')
  scripted.url = `http://127.0.0.1:${(scripted.server.address() as AddressInfo).port}`
  return scripted
}

/** Each in a packet of its own, as a model has them. */
async function writeBitByBit(response: ServerResponse, parts: string[]): Promise<void> {
  for (const part of parts) {
    response.write(part)
    await new Promise((resolve) => setTimeout(resolve, 3))
  }
  response.end()
}

const anthropicEvent = (event: { type: string; [key: string]: unknown }): string =>
  `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`
const message = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'claude-x',
  content: [{ type: 'text', text: '안녕, "friend".' }],
  stop_reason: 'end_turn',
  usage: { input_tokens: 10, cache_read_input_tokens: 30, cache_creation_input_tokens: 5, output_tokens: 7 },
}
const messageEvents = [
  anthropicEvent({
    type: 'message_start',
    message: { ...message, content: [], stop_reason: null, usage: { ...message.usage, output_tokens: 1 } },
  }),
  anthropicEvent({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } }),
  anthropicEvent({ type: 'ping' }),
  anthropicEvent({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: '안녕, ' } }),
  anthropicEvent({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: '"friend".' } }),
  anthropicEvent({ type: 'content_block_stop', index: 0 }),
  anthropicEvent({ type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 7 } }),
  anthropicEvent({ type: 'message_stop' }),
]
const askAnthropic = { model: 'claude-x', messages: [{ role: 'user', content: 'hi' }] }

let remote: Scripted
beforeAll(async () => void (remote = await startScripted()))
afterEach(() => {
  remote.answers = []
  remote.asked = []
})
afterAll(() => {
  remote.server.closeAllConnections()
  remote.server.close()
})

describe('Anthropic', () => {
  let worker: TestWorker
  beforeAll(async () => {
    worker = await startTestWorker({
      LLM_PROVIDER: 'anthropic',
      ANTHROPIC_API_KEY: 'key-a',
      ANTHROPIC_MODEL: 'claude-x',
      ANTHROPIC_BASE_URL: remote.url,
    })
  })
  afterAll(() => worker.stop())

  it('is asked in its own words', async () => {
    remote.answers.push({ body: JSON.stringify(message) })
    await worker.ask('/v1/chat/completions', {
      ...askAnthropic,
      max_tokens: 50,
      temperature: 1.5,
      stop: 'END',
      tools: [{ type: 'function', function: { name: 'find', description: 'finds', parameters: { type: 'object' } } }],
      tool_choice: 'required',
      messages: [
        { role: 'system', content: 'Be brief.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look' },
            { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } },
          ],
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 't1', type: 'function', function: { name: 'find', arguments: '{"a":1}' } }],
        },
        { role: 'tool', tool_call_id: 't1', content: 'found' },
        { role: 'user', content: 'and?' },
      ],
    })
    const [{ path, headers, body } = { path: '', headers: {}, body: {} }] = remote.asked
    expect([path, headers['x-api-key'], headers['anthropic-version']]).toEqual(['/v1/messages', 'key-a', '2023-06-01'])
    expect(body).toEqual({
      model: 'claude-x',
      max_tokens: 50,
      system: 'Be brief.',
      temperature: 1,
      stop_sequences: ['END'],
      tools: [{ name: 'find', description: 'finds', input_schema: { type: 'object' } }],
      tool_choice: { type: 'any' },
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look' },
            { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AAAA' } },
          ],
        },
        { role: 'assistant', content: [{ type: 'tool_use', id: 't1', name: 'find', input: { a: 1 } }] },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 't1', content: 'found' },
            { type: 'text', text: 'and?' },
          ],
        },
      ],
    })
  })

  it('answers in OpenAI’s, with what came from its cache counted as prompt', async () => {
    remote.answers.push({ body: JSON.stringify(message) })
    const { body, headers } = await worker.ask('/v1/chat/completions', askAnthropic)
    expect(headers['x-llm-provider']).toBe('anthropic')
    expect(body.choices[0]).toMatchObject({
      finish_reason: 'stop',
      message: { role: 'assistant', content: '안녕, "friend".' },
    })
    expect(body.usage).toEqual({ prompt_tokens: 45, total_tokens: 52, completion_tokens: 7 })
  })

  it('streams in OpenAI’s, however its bytes are cut', async () => {
    const bytes = Buffer.from(messageEvents.join(''))
    remote.answers.push({
      body: Array.from(
        { length: Math.ceil(bytes.length / 7) },
        (_, index) => bytes.subarray(index * 7, index * 7 + 7) as unknown as string,
      ),
    })
    const { text } = await worker.ask('/v1/chat/completions', {
      ...askAnthropic,
      stream: true,
      stream_options: { include_usage: true },
    })
    const events = readEvents(text)
    expect(readText(text)).toBe('안녕, "friend".')
    expect(events.map((event) => event.choices?.[0]?.finish_reason ?? null).filter(Boolean)).toEqual(['stop'])
    expect(events.at(-2).usage).toEqual({ prompt_tokens: 45, total_tokens: 52, completion_tokens: 7 })
    expect(events.at(-1)).toBe('[DONE]')
  })

  it('calls tools in OpenAI’s, bit by bit', async () => {
    remote.answers.push({
      body: [
        messageEvents[0] ?? '',
        anthropicEvent({
          type: 'content_block_start',
          index: 0,
          content_block: { type: 'tool_use', id: 't1', name: 'find', input: {} },
        }),
        anthropicEvent({
          type: 'content_block_delta',
          index: 0,
          delta: { type: 'input_json_delta', partial_json: '{"a":' },
        }),
        anthropicEvent({
          type: 'content_block_delta',
          index: 0,
          delta: { type: 'input_json_delta', partial_json: '1}' },
        }),
        anthropicEvent({ type: 'message_delta', delta: { stop_reason: 'tool_use' }, usage: { output_tokens: 7 } }),
        anthropicEvent({ type: 'message_stop' }),
      ],
    })
    const { text } = await worker.ask('/v1/chat/completions', { ...askAnthropic, stream: true })
    const calls = readEvents(text).flatMap((event) => event.choices?.[0]?.delta?.tool_calls ?? [])
    expect(calls[0]).toEqual({ index: 0, id: 't1', type: 'function', function: { name: 'find', arguments: '' } })
    expect(calls.map((call) => call.function.arguments).join('')).toBe('{"a":1}')
  })

  it('that fails inside a stream is asked again before its first word, and after it the client is told', async () => {
    const overloaded = anthropicEvent({ type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } })
    remote.answers.push({ body: [messageEvents[0] ?? '', overloaded] }, { body: messageEvents })
    const again = await worker.ask('/v1/chat/completions', { ...askAnthropic, stream: true })
    expect([again.headers['x-llm-attempts'], readText(again.text)]).toEqual(['2', '안녕, "friend".'])
    remote.answers.push({ body: [...messageEvents.slice(0, 4), overloaded] })
    const broken = await worker.ask('/v1/chat/completions', { ...askAnthropic, stream: true })
    expect(readEvents(broken.text).at(-1).error.code).toBe('upstream_failed')
    remote.answers.push({ body: messageEvents.slice(0, 5) })
    const cut = await worker.ask('/v1/chat/completions', { ...askAnthropic, stream: true })
    expect(cut.text).not.toContain('[DONE]')
  })

  it('that wants others to wait is asked again when it says, and not at all when it does not', async () => {
    const error = JSON.stringify({ type: 'error', error: { type: 'rate_limit_error', message: 'slow down' } })
    remote.answers.push(
      { status: 429, headers: { 'retry-after': '0' }, body: error },
      { body: JSON.stringify(message) },
    )
    expect((await worker.ask('/v1/chat/completions', askAnthropic)).status).toBe(200)
    remote.asked = []
    remote.answers.push({ status: 429, body: error })
    const refused = await worker.ask('/v1/chat/completions', askAnthropic)
    expect([refused.status, refused.body.error.code, remote.asked.length]).toEqual([503, 'overloaded', 1])
  })

  it('says what is wrong with a request, in OpenAI’s shape; what is wrong with our key stays here', async () => {
    remote.answers.push({
      status: 400,
      body: JSON.stringify({ type: 'error', error: { type: 'invalid_request_error', message: 'too long' } }),
    })
    const refused = await worker.ask('/v1/chat/completions', askAnthropic)
    expect([refused.status, refused.body.error]).toEqual([
      400,
      { message: 'too long', type: 'invalid_request_error', param: null, code: 400 },
    ])
    remote.answers.push({
      status: 401,
      body: JSON.stringify({
        type: 'error',
        error: { type: 'authentication_error', message: 'invalid x-api-key key-a' },
      }),
    })
    const hidden = await worker.ask('/v1/chat/completions', askAnthropic)
    expect(hidden.status).toBe(502)
    expect(hidden.text + JSON.stringify(worker.entries)).not.toContain('key-a')
  })
})

describe('a chain', () => {
  let double: VllmDouble
  let worker: TestWorker
  const answer = JSON.stringify({
    id: 'c1',
    object: 'chat.completion',
    model: 'gpt-x',
    choices: [{ index: 0, message: { role: 'assistant', content: 'from elsewhere' }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
  })
  beforeAll(async () => {
    double = await startVllmDouble()
    worker = await startTestWorker({
      LLM_PROVIDER: 'vllm,openai',
      VLLM_URL: double.url,
      OPENAI_API_KEY: 'key-o',
      OPENAI_MODEL: 'gpt-x',
      OPENAI_BASE_URL: `${remote.url}/v1`,
    })
  })
  afterEach(async () => {
    double.knobs.injectAt = undefined
    await double.kill()
    await double.restart()
    const server = new URL(double.url).host
    while ((await worker.metric(`worker_server_ready{provider="vllm",server="${server}"}`)) !== 1)
      await new Promise((resolve) => setTimeout(resolve, 20))
  })
  afterAll(async () => {
    await worker.stop()
    await double.kill()
  })

  it('asks the next when the first has failed, with the model and the members that it knows', async () => {
    double.knobs.injectAt = { token: 0, kind: 'http500' }
    remote.answers.push({ body: answer })
    const { headers, body } = await worker.ask('/v1/chat/completions', { ...hello, top_k: 5, priority: 2 })
    expect([headers['x-llm-provider'], headers['x-llm-model'], headers['x-llm-attempts']]).toEqual([
      'openai',
      'gpt-x',
      '2',
    ])
    expect(body.choices[0].message.content).toBe('from elsewhere')
    expect(remote.asked[0]).toMatchObject({ path: '/v1/chat/completions', headers: { authorization: 'Bearer key-o' } })
    expect(remote.asked[0]?.body).toEqual({ model: 'gpt-x', messages: hello.messages, max_completion_tokens: 1_024 })
  })

  it('asks nobody elsewhere for a tenant that stays here', async () => {
    await double.kill()
    const refused = await worker.ask('/v1/chat/completions', hello, { token: await worker.token({ local: true }) })
    expect([refused.status, remote.asked.length]).toEqual([503, 0])
    remote.answers.push({ body: answer })
    expect((await worker.ask('/v1/chat/completions', hello)).headers['x-llm-provider']).toBe('openai')
  })

  it('asks nobody else once the first word has been said', async () => {
    Object.assign(double.knobs, { injectAt: { token: 5, kind: 'truncateNoDone' }, itl: { mean: 2, sd: 0 } })
    const broken = await worker.ask('/v1/chat/completions', { ...hello, stream: true })
    expect(readEvents(broken.text).at(-1).error.code).toBe('upstream_failed')
    expect(remote.asked).toEqual([])
  })

  it('begins with whoever has the model that is named', async () => {
    remote.answers.push({ body: answer })
    expect((await worker.ask('/v1/chat/completions', { ...hello, model: 'gpt-x' })).headers['x-llm-provider']).toBe(
      'openai',
    )
  })

  it('takes usage where OpenAI and others put it, and passes none on that was not asked for', async () => {
    const chunk = (more: object): string =>
      `data: ${JSON.stringify({ id: 'c1', object: 'chat.completion.chunk', model: 'gpt-x', ...more })}\n\n`
    const delta = (content: string, finish: string | null = null) => [
      { index: 0, delta: { content }, finish_reason: finish },
    ]
    const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
    for (const last of [chunk({ choices: [], usage }), chunk({ choices: [{ index: 0, delta: {} }], usage })]) {
      const before = worker.entries.length
      remote.answers.push({
        body: [
          chunk({ choices: delta('one '), usage: null }),
          chunk({ choices: delta('two', 'stop'), usage: null }),
          last,
          'data: [DONE]\n\n',
        ],
      })
      const { text } = await worker.ask('/v1/chat/completions', { ...hello, model: 'gpt-x', stream: true })
      expect(readText(text)).toBe('one two')
      expect(text).not.toContain('"completion_tokens"')
      expect(worker.entries.slice(before).find(({ event }) => event === 'request')).toMatchObject({
        promptTokens: 3,
        completionTokens: 2,
      })
    }
  })
})

describe('a model for vectors beside the one for text', () => {
  let chat: VllmDouble
  let embedding: VllmDouble
  let worker: TestWorker
  beforeAll(async () => {
    chat = await startVllmDouble({ tasks: 'generate' })
    embedding = await startVllmDouble({ tasks: 'embed', model: 'bge-m3' })
    worker = await startTestWorker({ VLLM_URL: chat.url, GPU_WORKER_EMBEDDING_URL: embedding.url })
  })
  afterAll(async () => {
    await worker.stop()
    await chat.kill()
    await embedding.kill()
  })

  it('is asked for vectors, and the other for text', async () => {
    const vectors = await worker.ask('/v1/embeddings', { model: 'bge-m3', input: 'a film about a gate' })
    expect([vectors.status, vectors.headers['x-llm-provider'], vectors.body.model]).toEqual([
      200,
      'embeddings',
      'bge-m3',
    ])
    const text = await worker.ask('/v1/chat/completions', hello)
    expect([text.status, text.headers['x-llm-provider']]).toEqual([200, 'vllm'])
    const models = await (
      await fetch(`${worker.url}/v1/models`, { headers: { authorization: `Bearer ${await worker.token()}` } })
    ).json()
    expect(models.data.map(({ id }: { id: string }) => id)).toEqual(['kanana-8b', 'bge-m3'])
  })

  it('is proven by a vector, and is no reason not to be ready when it is away', async () => {
    expect(embedding.embedded[0]).toEqual(['1, 2, 3'])
    await embedding.kill()
    const refused = await worker.ask('/v1/embeddings', { model: 'bge-m3', input: 'x' })
    expect([502, 503]).toContain(refused.status)
    expect((await fetch(`${worker.url}/ready`)).status).toBe(200)
    expect((await worker.ask('/v1/chat/completions', hello)).status).toBe(200)
    await embedding.restart()
  })

  it('has no stand-in: another model’s vectors cannot be compared with its own', async () => {
    await chat.kill()
    await expect.poll(async () => (await worker.ask('/v1/chat/completions', hello)).status).toBe(503)
    await expect
      .poll(async () => (await worker.ask('/v1/embeddings', { model: 'bge-m3', input: 'x' })).status)
      .toBe(200)
  })
})
