import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { VllmDouble } from '../support/vllm/double.ts'
import { startVllmDouble } from '../support/vllm/double.ts'
import { defaultKnobs } from '../support/vllm/knobs.ts'
import type { TestWorker } from './worker.ts'
import { hello, startTestWorker } from './worker.ts'

let double: VllmDouble
let worker: TestWorker
let server = ''
beforeAll(async () => {
  double = await startVllmDouble()
  server = new URL(double.url).host
  worker = await startTestWorker({ VLLM_URL: double.url, VLLM_MAX_NUM_SEQS: '32' })
})
afterAll(async () => {
  await worker.stop()
  await double.kill()
})

/** What is left of requests that have all ended. */
const leftovers = async () => ({
  open: await worker.metric('worker_open_requests'),
  running: await worker.metric(`worker_running_requests{provider="vllm",server="${server}"}`),
  reserved: await worker.metric(`worker_reserved_tokens{provider="vllm",server="${server}"}`),
  waiting: await worker.metric('worker_waiting_requests{provider="vllm"}'),
})

describe('clients that leave', () => {
  it('a thousand times, anywhere in their answers, leave no slot behind and pay what the server has counted', async () => {
    Object.assign(double.knobs, { itl: { mean: 1, sd: 0 }, outputTokens: 20 })
    const first = double.records.length
    const ended = worker.entries.filter(({ event }) => event === 'request').length
    let random = 1
    const next = (): number => (random = (random * 48_271) % 2_147_483_647) / 2_147_483_647

    async function leaveSomewhere(id: string): Promise<void> {
      const { asked, answer } = await worker.open(
        '/v1/chat/completions',
        { ...hello, stream: true },
        { headers: { 'x-request-id': id } },
      )
      let left = Math.floor(next() * 24)
      asked.on('error', () => {})
      answer.on('error', () => {})
      for await (const _ of answer) if (left-- <= 0) break
      asked.destroy()
    }
    const ids = Array.from({ length: 1_000 }, (_, index) => `leaving-${index}`)
    await Promise.all(
      Array.from({ length: 48 }, async () => {
        for (let id = ids.pop(); id !== undefined; id = ids.pop()) await leaveSomewhere(id)
      }),
    )
    const entries = (await worker.logged(ended + 1_000)).slice(ended)
    await double.idle()
    const paid = new Map(entries.map((entry) => [String(entry['requestId']), Number(entry['completionTokens'])]))
    const wrong = double.records
      .slice(first)
      .filter(({ body }) => body['max_tokens'] !== 1)
      .map(({ id, tokens }) => ({ id, tokens, paid: paid.get(id.replace('chatcmpl-', '')) }))
      .filter((one) => one.paid !== one.tokens)
    expect(wrong).toEqual([])
    expect(entries.filter(({ ended: how }) => how === 'left').length).toBeGreaterThan(700)
    expect(await leftovers()).toEqual({ open: 0, running: 0, reserved: 0, waiting: 0 })
    Object.assign(double.knobs, defaultKnobs)
  }, 60_000)

  it('stop the server within two tokens', async () => {
    Object.assign(double.knobs, { itl: { mean: 20, sd: 0 }, outputTokens: 1_000 })
    const { asked, answer } = await worker.open('/v1/chat/completions', { ...hello, stream: true })
    let chunks = 0
    for await (const _ of answer) if (++chunks === 5) break
    asked.destroy()
    const tokensThen = double.records.at(-1)?.tokens ?? 0
    await double.idle()
    expect(double.records.at(-1)?.abortedAtToken).toBeLessThanOrEqual(tokensThen + 2)
    Object.assign(double.knobs, defaultKnobs)
  })

  it('of whole answers and from the queue leave nothing behind either', async () => {
    Object.assign(double.knobs, { itl: { mean: 5, sd: 0 }, outputTokens: 200 })
    const token = await worker.token()
    const ended = worker.entries.filter(({ event }) => event === 'request').length
    const controllers = Array.from({ length: 64 }, () => new AbortController())
    const asked = controllers.map(({ signal }) =>
      fetch(`${worker.url}/v1/chat/completions`, {
        method: 'POST',
        body: JSON.stringify(hello),
        signal,
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      }).catch(() => undefined),
    )
    while ((await worker.metric('worker_waiting_requests{provider="vllm"}')) < 30)
      await new Promise((resolve) => setTimeout(resolve, 5))
    for (const controller of controllers) controller.abort()
    await Promise.all(asked)
    const entries = (await worker.logged(ended + 64)).slice(ended)
    await double.idle()
    expect(entries.every(({ status }) => status === 499)).toBe(true)
    // Who has waited only pays nothing.
    expect(entries.filter(({ completionTokens }) => completionTokens === 0).length).toBeGreaterThanOrEqual(30)
    expect(await leftovers()).toEqual({ open: 0, running: 0, reserved: 0, waiting: 0 })
    Object.assign(double.knobs, defaultKnobs)
  })
})

describe('a client that reads nothing', () => {
  it('holds back its server, not the worker’s memory, and is let go after a while', async () => {
    const patient = await startTestWorker({ VLLM_URL: double.url }, { clientStallMs: 300 })
    Object.assign(double.knobs, { outputTokens: 100_000, modelLengthMax: 200_000, mergeDeltas: true })
    const before = double.records.length
    const { asked, answer } = await patient.open('/v1/chat/completions', { ...hello, stream: true, max_tokens: 30_000 })
    answer.pause()
    asked.on('error', () => {})
    answer.on('error', () => {})
    const [entry] = await patient.logged(1)
    expect(entry).toMatchObject({ status: 499, ended: 'left' })
    await double.idle()
    expect(double.records.length).toBe(before + 1)
    Object.assign(double.knobs, defaultKnobs)
    await patient.stop()
  })
})

describe('deadlines', () => {
  it('from the gateway end an answer, before it began with 504 and after it with an event', async () => {
    Object.assign(double.knobs, { itl: { mean: 20, sd: 0 }, outputTokens: 1_000 })
    const ended = worker.entries.filter(({ event }) => event === 'request').length
    const headers = { 'x-envoy-expected-rq-timeout-ms': '300' }
    const whole = await worker.ask('/v1/chat/completions', hello, { headers })
    expect([whole.status, whole.body.error.code]).toEqual([504, 'deadline_exceeded'])
    const stream = await worker.ask('/v1/chat/completions', { ...hello, stream: true }, { headers })
    expect(stream.text).toContain('"code":"deadline_exceeded"')
    expect(stream.text).not.toContain('[DONE]')
    await worker.logged(ended + 2)
    await double.idle()
    expect(await leftovers()).toEqual({ open: 0, running: 0, reserved: 0, waiting: 0 })
    Object.assign(double.knobs, defaultKnobs)
  })

  it('that have passed do not reach the model', async () => {
    const before = double.records.length
    const late = await worker.ask('/v1/chat/completions', hello, { headers: { 'x-envoy-expected-rq-timeout-ms': '0' } })
    expect(late.status).toBeGreaterThanOrEqual(503)
    expect(double.records.length).toBe(before)
  })
})

describe('a long wait', () => {
  it('in the queue keeps a stream alive with comments, and what fails then is an event', async () => {
    const held = await startTestWorker(
      { VLLM_URL: double.url, VLLM_MAX_NUM_SEQS: '1' },
      { holdMs: 100, commentMs: 100 },
    )
    Object.assign(double.knobs, { itl: { mean: 20, sd: 0 }, outputTokens: 40 })
    const running = held.ask('/v1/chat/completions', hello)
    while (double.running() === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    const waited = await held.ask('/v1/chat/completions', { ...hello, stream: true })
    await running
    expect(waited.text.startsWith(': queued\n\n: queued\n\n')).toBe(true)
    expect(waited.text.endsWith('data: [DONE]\n\n')).toBe(true)
    await held.stop()
    Object.assign(double.knobs, defaultKnobs)
  })
})
