import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { VllmDouble } from '../support/vllm/double.ts'
import { startVllmDouble } from '../support/vllm/double.ts'
import type { Injection } from '../support/vllm/knobs.ts'
import { defaultKnobs } from '../support/vllm/knobs.ts'
import type { Answer, TestWorker } from './worker.ts'
import { hello, readEvents, readText, startTestWorker } from './worker.ts'

const kinds: Injection['kind'][] = [
  'errorEvent',
  'abort',
  'reset',
  'stall',
  'truncateNoDone',
  'garbageLine',
  'http500',
  'http503',
  'engineDead',
]
/** Stalls are noticed soon, and retries have no bound to speak of. */
const quick = { gapMs: 300, gapFactor: 0, firstTokenMs: 500, deadlineMs: 2_500, retryFloor: 1_000, holdMs: 60_000 }

/** What a client may take for a whole answer must be one; whatever else it gets must say that it is none. */
function judge(answer: Answer, stream: boolean, text: string): 'whole' | 'refused' | 'broken off' {
  if (answer.status !== 200) {
    expect(answer.status).toBeGreaterThanOrEqual(500)
    expect(answer.body.error.code).toEqual(expect.any(String))
    return 'refused'
  }
  if (!stream) {
    expect(answer.body.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: text } })
    return 'whole'
  }
  const events = readEvents(answer.text)
  if (events.at(-1) === '[DONE]') {
    expect(readText(answer.text)).toBe(text)
    expect(events.filter((event) => event.choices?.[0]?.finish_reason === 'stop')).toHaveLength(1)
    return 'whole'
  }
  expect(events.at(-1).error.code).toEqual(expect.any(String))
  expect(text.startsWith(readText(answer.text).replace(/\ufffd*$/, ''))).toBe(true)
  return 'broken off'
}

describe('one server that fails', () => {
  let double: VllmDouble
  let worker: TestWorker
  let text = ''
  beforeAll(async () => {
    double = await startVllmDouble()
    worker = await startTestWorker({ VLLM_URL: double.url }, quick)
    text = (await worker.ask('/v1/chat/completions', hello)).body.choices[0].message.content
  })
  afterEach(async () => {
    Object.assign(double.knobs, defaultKnobs)
    await double.kill()
    await double.restart()
    while ((await fetch(`${worker.url}/ready`)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 20))
    expect(
      await worker.metric('worker_running_requests{provider="vllm",server="' + new URL(double.url).host + '"}'),
    ).toBe(0)
    expect(await worker.metric('worker_open_requests')).toBe(0)
  })
  afterAll(async () => {
    await worker.stop()
    await double.kill()
  })

  describe.each(kinds)('%s', (kind) => {
    it.each([
      ['a whole answer', false, 0],
      ['a stream before its first token', true, 0],
      ['a stream after its seventh', true, 7],
    ] as const)('is never taken for the end of %s', async (_, stream, token) => {
      double.knobs.injectAt = { token, kind }
      const verdict = judge(await worker.ask('/v1/chat/completions', { ...hello, stream }), stream, text)
      expect(verdict).toBe(stream && token > 0 && !kind.startsWith('http') ? 'broken off' : 'refused')
    })
  })

  it('is asked again when it was restarted under a request', async () => {
    Object.assign(double.knobs, { injectAt: { token: 0, kind: 'reset' }, injectTimes: 1 })
    const answer = await worker.ask('/v1/chat/completions', hello)
    expect([answer.status, answer.headers['x-llm-attempts']]).toEqual([200, '2'])
  })

  it('and is gone gets no more requests until it has shown that it can answer', async () => {
    await double.kill()
    const refused = await worker.ask('/v1/chat/completions', hello)
    expect([refused.status, refused.body.error.code]).toEqual([503, 'upstream_unavailable'])
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    expect((await fetch(`${worker.url}/ready`)).status).toBe(503)
    expect((await fetch(`${worker.url}/health`)).status).toBe(200)
    await double.restart()
    while ((await fetch(`${worker.url}/ready`)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 20))
    expect(double.records.at(-1)?.body).toMatchObject({ max_tokens: 1, temperature: 0 })
    expect((await worker.ask('/v1/chat/completions', hello)).status).toBe(200)
  })

  it('and is told to stop aborts what runs with status 200: nobody takes that for an answer', async () => {
    Object.assign(double.knobs, { itl: { mean: 20, sd: 0 }, outputTokens: 200 })
    const before = await worker.metric('worker_abort_as_200_total{provider="vllm"}')
    const asked = [
      worker.ask('/v1/chat/completions', hello),
      worker.ask('/v1/chat/completions', { ...hello, stream: true }),
    ]
    while (double.running() < 2 || !double.records.slice(-2).every(({ tokens }) => tokens > 0))
      await new Promise((resolve) => setTimeout(resolve, 5))
    await double.terminate()
    const [whole, stream] = await Promise.all(asked)
    expect(whole?.status).toBe(503)
    expect(readEvents(stream?.text ?? '').at(-1).error.code).toBe('upstream_failed')
    expect(await worker.metric('worker_abort_as_200_total{provider="vllm"}')).toBe(before + 2)
    await double.restart()
  })

  it('and closes a kept connection in the moment it is used again does not lose the request', async () => {
    const { port } = double
    await worker.ask('/v1/chat/completions', hello)
    // Its idle connections go without a word, as after a restart behind the same address.
    await double.kill()
    await double.restart()
    expect(double.port).toBe(port)
    while ((await fetch(`${worker.url}/ready`)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 20))
    expect((await worker.ask('/v1/chat/completions', hello)).status).toBe(200)
  })

  it('of version 0.29, which refuses what it cannot queue, is asked again', async () => {
    Object.assign(double.knobs, { injectAt: { token: 0, kind: 'http503' }, injectTimes: 1 })
    const answer = await worker.ask('/v1/chat/completions', { ...hello, stream: true })
    expect([answer.status, answer.headers['x-llm-attempts']]).toEqual([200, '2'])
  })

  it('and says nothing of how full it is gets one request at a time', async () => {
    const deaf = await startTestWorker(
      { VLLM_URL: double.url },
      { ...quick, staleMs: 50, probeTimeoutMs: 100, deadlineMs: 30_000 },
    )
    Object.assign(double.knobs, { metricsStale: true, itl: { mean: 5, sd: 0 } })
    await new Promise((resolve) => setTimeout(resolve, 400))
    const asked = Array.from({ length: 4 }, () => deaf.ask('/v1/chat/completions', hello))
    let most = 0
    const watch = setInterval(() => (most = Math.max(most, double.running())), 1)
    const statuses = (await Promise.all(asked)).map(({ status }) => status)
    clearInterval(watch)
    expect([statuses, most]).toEqual([[200, 200, 200, 200], 1])
    await deaf.stop()
  })

  it('and sleeps is not asked, though it says that it is healthy', async () => {
    double.knobs.sleepState = 'asleep'
    while ((await fetch(`${worker.url}/ready`)).status !== 503) await new Promise((resolve) => setTimeout(resolve, 20))
    const before = double.records.length
    expect((await worker.ask('/v1/chat/completions', hello)).status).toBe(503)
    expect(double.records.length).toBe(before)
  })
})

describe('two servers of which one fails', () => {
  let bad: VllmDouble
  let good: VllmDouble
  let worker: TestWorker
  let text = ''
  beforeAll(async () => {
    bad = await startVllmDouble()
    good = await startVllmDouble()
    // A good server on a busy machine may be slow.
    const patient = { ...quick, gapMs: 5_000, firstTokenMs: 1_000, deadlineMs: 10_000 }
    worker = await startTestWorker({ VLLM_URL: `${bad.url},${good.url}` }, patient)
    text = (await worker.ask('/v1/chat/completions', hello)).body.choices[0].message.content
  })
  afterEach(async () => {
    Object.assign(bad.knobs, defaultKnobs)
    await bad.kill()
    await bad.restart()
    const server = new URL(bad.url).host
    while ((await worker.metric(`worker_server_ready{provider="vllm",server="${server}"}`)) !== 1)
      await new Promise((resolve) => setTimeout(resolve, 20))
  })
  afterAll(async () => {
    await worker.stop()
    await Promise.all([bad.kill(), good.kill()])
  })

  it.each(kinds)('%s before the first token: the other answers', async (kind) => {
    bad.knobs.injectAt = { token: 0, kind }
    for (const stream of [true, ...(kind === 'stall' ? [] : [false])]) {
      // Both are asked in turns: one of two requests meets the bad one.
      const answers = await Promise.all([1, 2].map(() => worker.ask('/v1/chat/completions', { ...hello, stream })))
      expect(answers.map((answer) => judge(answer, stream, text))).toEqual(['whole', 'whole'])
    }
  })
})
