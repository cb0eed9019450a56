import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createResumeLog, findSeenIds } from '#gpu-worker/relay/resume.ts'
import type { VllmDouble } from '../support/vllm/double.ts'
import { startVllmDouble } from '../support/vllm/double.ts'
import type { Injection } from '../support/vllm/knobs.ts'
import { defaultKnobs } from '../support/vllm/knobs.ts'
import type { TestWorker } from './worker.ts'
import { hello, readEvents, readText, startTestWorker } from './worker.ts'

const stream = { ...hello, stream: true, stream_options: { include_usage: true } }

describe('a stream that breaks off at one server', () => {
  let doubles: VllmDouble[]
  let worker: TestWorker
  beforeAll(async () => {
    doubles = [await startVllmDouble(), await startVllmDouble()]
    const urls = doubles.map(({ url }) => url).join(',')
    worker = await startTestWorker({ VLLM_URL: urls }, { gapMs: 400, gapFactor: 0, retryFloor: 1_000 })
  })
  afterEach(async () => {
    for (const double of doubles) {
      Object.assign(double.knobs, defaultKnobs)
      await double.kill()
      await double.restart()
    }
    while (
      (await worker.metric(`worker_server_ready{provider="vllm",server="${new URL(doubles[0]?.url ?? '').host}"}`)) !==
        1 ||
      (await worker.metric(`worker_server_ready{provider="vllm",server="${new URL(doubles[1]?.url ?? '').host}"}`)) !==
        1
    )
      await new Promise((resolve) => setTimeout(resolve, 20))
  })
  afterAll(async () => {
    await worker.stop()
    await Promise.all(doubles.map((double) => double.kill()))
  })

  /** Whichever is asked first fails after so many tokens; the other is well. */
  const injectOnce = (token: number, kind: Injection['kind'], more = {}): void => {
    let left: number | undefined = 1
    for (const { knobs } of doubles) {
      Object.assign(knobs, { injectAt: { token, kind }, ...more })
      const shared = { get: () => left, set: (value: number | undefined) => (left = value) }
      Object.defineProperty(knobs, 'injectTimes', { ...shared, configurable: true, enumerable: true })
    }
  }

  it.each(['errorEvent', 'abort', 'reset', 'stall', 'truncateNoDone', 'garbageLine', 'engineDead'] as const)(
    '%s: goes on at the other, token by token, and the client sees one answer',
    async (kind) => {
      Object.assign(doubles[0]?.knobs ?? {}, { outputTokens: 40, itl: { mean: 2, sd: 0 } })
      Object.assign(doubles[1]?.knobs ?? {}, { outputTokens: 40, itl: { mean: 2, sd: 0 } })
      const whole = readText((await worker.ask('/v1/chat/completions', stream)).text)
      injectOnce(11, kind)
      const resumed = await worker.ask('/v1/chat/completions', stream)
      const events = readEvents(resumed.text)
      expect(readText(resumed.text)).toBe(whole)
      expect(events.at(-1)).toBe('[DONE]')
      expect(new Set(events.slice(0, -1).map(({ id }) => id)).size).toBe(1)
      expect(events.filter((event) => event.choices?.[0]?.delta?.role !== undefined)).toHaveLength(1)
      expect(events.at(-2).usage.completion_tokens).toBe(40)
      expect(resumed.text).not.toContain('_ids":[')
    },
  )

  it('in the middle of a character: goes on where tokens and text agree, and else says that it broke off', async () => {
    const knobs = { outputTokens: 60, splitUtf8Across: true, itl: { mean: 2, sd: 0 } }
    for (const double of doubles) Object.assign(double.knobs, knobs)
    const whole = readText((await worker.ask('/v1/chat/completions', stream)).text)
    const ends: string[] = []
    for (const token of [2, 3, 4, 5, 6]) {
      injectOnce(token, 'truncateNoDone', knobs)
      const { text } = await worker.ask('/v1/chat/completions', stream)
      const seen = readText(text)
      expect(whole.startsWith(seen)).toBe(true)
      const isWhole = text.endsWith('data: [DONE]\n\n')
      expect(isWhole ? seen : readEvents(text).at(-1).error.code).toBe(isWhole ? whole : 'upstream_failed')
      ends.push(isWhole ? 'whole' : 'broken off')
    }
    // Two bytes to a token and three to a character: they agree after every third token.
    expect(ends).toEqual(['broken off', 'whole', 'whole', 'broken off', 'whole'])
  })

  it('is not tried where an answer depends on more than its tokens', async () => {
    for (const more of [
      { tools: [{ type: 'function', function: { name: 'a', parameters: {} } }] },
      { seed: 7 },
      { stop: ['x'] },
      { logprobs: true },
      { presence_penalty: 1 },
    ]) {
      injectOnce(5, 'reset', { itl: { mean: 2, sd: 0 } })
      const broken = await worker.ask('/v1/chat/completions', { ...stream, ...more })
      expect(readEvents(broken.text).at(-1).error.code).toBe('upstream_failed')
    }
  })

  it('costs the tenant one answer', async () => {
    injectOnce(9, 'reset', { itl: { mean: 2, sd: 0 } })
    const before = worker.entries.length
    await worker.ask('/v1/chat/completions', stream)
    const [entry] = worker.entries.slice(before).filter(({ event }) => event === 'request')
    expect(entry).toMatchObject({ completionTokens: 16, attempts: 2 })
    expect(await worker.metric('worker_resumed_total{provider="vllm"}')).toBeGreaterThan(0)
    expect(await worker.metric('worker_gpu_waste_tokens_total{reason="resume"}')).toBeGreaterThan(0)
  })
})

describe('what is kept to go on from', () => {
  const event = (content: string): string =>
    `data: {"id":"a","choices":[{"index":0,"delta":{"content":${JSON.stringify(content)}}}]}\n\n`
  const asLatin1 = (text: string): string => Buffer.from(text).toString('latin1')

  it('is the text as the client reads it, whatever is in it', () => {
    const log = createResumeLog(10_000)
    const texts = ['', 'a "quoted" \\ word', '안녕', '\n\u0001', '\\"', '👩‍🚀']
    texts.forEach((text, index) => log.note(asLatin1(event(text)), index === 0 ? [1, 2] : undefined, [index + 10]))
    expect(log.point()).toEqual({
      promptIds: [1, 2],
      ids: [10, 11, 12, 13, 14, 15],
      text: texts.join(''),
      head: 'data: {"id":"a",',
    })
  })

  it('has an end', () => {
    const log = createResumeLog(100)
    log.note(event('x'), [1], [2])
    for (let index = 0; index < 20; index++) log.note(event('x'.repeat(20)), undefined, [3])
    expect(log.point()).toBeUndefined()
  })

  it('goes back to where ids and text agree, and gives up when they never do', async () => {
    const detokenize = async (ids: number[]): Promise<string> => ids.map((id) => String.fromCharCode(id)).join('')
    const point = { promptIds: [1], ids: [97, 98, 99, 100], text: 'ab', head: '' }
    expect(await findSeenIds(point, detokenize)).toEqual([97, 98])
    expect(await findSeenIds({ ...point, text: 'zz' }, detokenize)).toBeUndefined()
  })
})
