import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readGpuWorkerConfig } from '#gpu-worker/config.ts'
import { startGpuWorker } from '#gpu-worker/start.ts'
import type { TestWorker } from './worker.ts'
import { readEvents, readText, startTestWorker } from './worker.ts'

const secret = 'another secret of thirty-two bytes and more'
const ask = { model: 'demo', messages: [{ role: 'user', content: '어느 대문?' }] }

describe('the demo', () => {
  let worker: TestWorker
  beforeAll(async () => void (worker = await startTestWorker({ LLM_PROVIDER: 'demo' })))
  afterAll(() => worker.stop())

  it('says in a field and in its text that it is no model, and says the same to the same', async () => {
    const [first, second] = await Promise.all([
      worker.ask('/v1/chat/completions', ask),
      worker.ask('/v1/chat/completions', ask),
    ])
    expect(first.headers['x-llm-provider']).toBe('demo')
    expect(first.body.choices[0].message.content).toMatch(
      /^\[demo: no language model is configured here\] .*어느 대문\?/,
    )
    expect(second.body.choices).toEqual(first.body.choices)
  })

  it('streams the same text, and stops where it is told to', async () => {
    const whole = await worker.ask('/v1/chat/completions', ask)
    const stream = await worker.ask('/v1/chat/completions', { ...ask, stream: true })
    expect(readText(stream.text)).toBe(whole.body.choices[0].message.content)
    const short = await worker.ask('/v1/chat/completions', { ...ask, stream: true, max_tokens: 3 })
    expect(readEvents(short.text).at(-2).choices[0].finish_reason).toBe('length')
    const text = await worker.ask('/v1/completions', { model: 'demo', prompt: 'once' })
    expect(text.body.choices[0].text).toContain('once')
  })

  it('has vectors that point alike where texts share words', async () => {
    const { body } = await worker.ask('/v1/embeddings', {
      model: 'demo',
      input: ['a gate of stone', 'the stone gate', 'deep water'],
    })
    const [a, b, c] = body.data.map(({ embedding }: { embedding: number[] }) => embedding)
    const dot = (x: number[], y: number[]): number => x.reduce((sum, value, at) => sum + value * (y[at] ?? 0), 0)
    expect(dot(a, a)).toBeCloseTo(1)
    expect(dot(a, b)).toBeGreaterThan(dot(a, c) + 0.3)
  })

  it('does not answer in the name of another model', async () => {
    const refused = await worker.ask('/v1/chat/completions', { ...ask, model: 'gpt-5' })
    expect([refused.status, refused.body.error.code]).toEqual([404, 'model_not_found'])
  })
})

describe('the configuration', () => {
  const read = (environment: Record<string, string>) => () =>
    readGpuWorkerConfig({ GPU_WORKER_SECRET: secret, ...environment })

  it.each([
    [{ GPU_WORKER_SECRET: '' }, 'GPU_WORKER_SECRET: is missing'],
    [{ GPU_WORKER_SECRET: 'changeme-changeme-changeme-changeme' }, 'GPU_WORKER_SECRET: is a published example'],
    [{}, 'VLLM_URL: is missing'],
    [{ VLLM_URL: 'localhost:9000' }, 'VLLM_URL: must list addresses'],
    [{ LLM_PROVIDER: 'vlm' }, 'LLM_PROVIDER: must list some of'],
    [{ LLM_PROVIDER: 'vllm,demo', VLLM_URL: 'http://127.0.0.1:9' }, 'LLM_PROVIDER: demo stands alone'],
    [
      { LLM_PROVIDER: 'openai', OPENAI_API_KEY: 'k', OPENAI_MODEL: 'm', GPU_WORKER_EMBEDDING_MODEL: 'e' },
      'GPU_WORKER_EMBEDDING_MODEL: no provider of LLM_PROVIDER gives vectors',
    ],
    [{ LLM_PROVIDER: 'demo', NODE_ENV: 'production' }, 'LLM_PROVIDER: demo is no model, and this is production'],
  ])('%j is refused: %s', (environment, fault) => {
    expect(read(environment)).toThrow(fault)
  })

  it('takes the demo in production when it is meant', () => {
    expect(read({ LLM_PROVIDER: 'demo', NODE_ENV: 'production', LLM_DEMO_IN_PRODUCTION: '1' })).not.toThrow()
  })

  it('starts on no address without a secret, and on a public one with a warning', async () => {
    const entries: Record<string, unknown>[] = []
    const config = readGpuWorkerConfig({
      GPU_WORKER_SECRET: secret,
      LLM_PROVIDER: 'demo',
      GPU_WORKER_HOST: '0.0.0.0',
      GPU_WORKER_PORT: '0',
    })
    const running = await startGpuWorker({ config, log: (entry) => void entries.push(entry) })
    await running.stop()
    expect(entries).toContainEqual(
      expect.objectContaining({ event: 'warning', message: expect.stringContaining('no private address') }),
    )
  })
})
