import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WorkerError } from '#gpu-worker/error.ts'
import { limits } from '#gpu-worker/limits.ts'
import { createRandom, normal } from '#gpu-worker/recommender/random.ts'
import type { Vectors } from '#gpu-worker/recommender/text-vectors.ts'
import { createTextIndex } from '#gpu-worker/recommender/text-index.ts'
import { normaliseRows } from '#gpu-worker/recommender/text-vectors.ts'
import { createTelemetry } from '#gpu-worker/telemetry.ts'
import { embed, embedPatiently } from '#gpu-worker/vectors/embed.ts'
import type { Search, SearchedFilms } from '#gpu-worker/vectors/film-search.ts'
import { createFilmSearch } from '#gpu-worker/vectors/film-search.ts'
import type { Near, Question } from '#gpu-worker/vectors/film-table.ts'
import { toHistogram } from '#gpu-worker/vectors/plan.ts'
import { projectVectors } from '#gpu-worker/vectors/projection.ts'

const films = Array.from({ length: 40 }, (_, index) => ({
  release_date: '2001-01-01',
  runtime: 100,
  genres: ['Drama'],
  providers: [],
  adult: index < 4,
}))
const nearOf = (...ids: number[]): Near[] => ids.map((movie_id, place) => ({ movie_id, likeness: 1 - place / 100 }))

/** Searches whose answers are given by hand. */
function createStand({ requestsMax = 10, hasIndex = false, random = (): number => 1 } = {}) {
  const telemetry = createTelemetry([], () => 0)
  const asked: { question: Question; answer(near: Near[] | undefined): void; fail(error: Error): void }[] = []
  const bounds = { requestsMax, tokensMax: 1e6, bytesMax: 1e6 }
  const always = { ...limits, vectorIndexFilmsMin: 0, vectorExactFilmsMax: 0 }
  const search = createFilmSearch({ searchesMax: 1, bounds, limits: always, telemetry, now: Date.now, random })
  const searched: SearchedFilms = {
    nearest: (question) => new Promise((resolve, reject) => asked.push({ question, answer: resolve, fail: reject })),
    histogram: toHistogram(films),
    hasIndex,
  }
  const ask = (more: Partial<Search> = {}) =>
    search.search(searched, {
      caller: { tenant: 'a', band: 'standard' },
      of: 1,
      filter: {},
      count: 3,
      deadlineAt: Date.now() + 5_000,
      signal: new AbortController().signal,
      ...more,
    })
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  return { ask, asked, search, turn, metrics: () => telemetry.toText(), stop: telemetry.stop }
}

describe('searches for films', () => {
  it('wait in a line of their own, the more urgent first', async () => {
    const { ask, asked, search, turn, stop } = createStand()
    const first = ask({ of: 1 })
    const second = ask({ of: 2, caller: { tenant: 'a', band: 'batch' } })
    const third = ask({ of: 3, caller: { tenant: 'b', band: 'interactive' } })
    await turn()
    expect([asked.length, search.pool.running(), search.pool.waiting().requests]).toEqual([1, 1, 2])
    asked[0]!.answer(nearOf(7, 8, 9))
    expect(await first).toEqual(nearOf(7, 8, 9))
    await turn()
    asked[1]!.answer([])
    expect([asked[1]!.question.of, await third]).toEqual([3, []])
    await turn()
    asked[2]!.answer(undefined)
    expect(await second).toBeUndefined()
    stop()
  })

  it('are refused when too many wait or when there is no time, and leave with their client', async () => {
    const { ask, asked, search, turn, metrics, stop } = createStand({ requestsMax: 1 })
    const first = ask()
    const leaving = new AbortController()
    const second = ask({ signal: leaving.signal })
    await turn()
    await expect(ask()).rejects.toMatchObject({
      code: 'queue_full',
      status: 429,
      retryAfterSeconds: expect.any(Number),
    })
    leaving.abort(new Error('left'))
    await expect(second).rejects.toThrow('left')
    expect(search.pool.waiting().requests).toBe(0)
    await expect(ask({ deadlineAt: Date.now() })).rejects.toMatchObject({ code: 'deadline_exceeded_estimate' })
    asked[0]!.fail(Object.assign(new Error('canceling statement due to statement timeout'), { code: '57014' }))
    await expect(first).rejects.toMatchObject({ code: 'deadline_exceeded', status: 504 })
    const third = ask()
    await turn()
    asked[1]!.fail(Object.assign(new Error('connect'), { code: 'ECONNREFUSED' }))
    await expect(third).rejects.toMatchObject({ code: 'upstream_unavailable', status: 503, retryAfterSeconds: 5 })
    expect(search.pool.running()).toBe(0)
    expect(metrics()).toContain('worker_admission_total{outcome="queue_full"} 1')
    stop()
  })

  it('say what they take by the rows that they compare', async () => {
    const { ask, asked, search, turn, stop } = createStand()
    const work = ask()
    await turn()
    expect([asked[0]!.question.plan, search.pool.lanes[0]!.tokens]).toEqual(['exact', 2])
    asked[0]!.answer([])
    await work
    stop()
  })

  it('are done again exactly in the same slot when the index found too few', async () => {
    const { ask, asked, turn, metrics, stop } = createStand({ hasIndex: true })
    const work = ask()
    await turn()
    expect(asked[0]!.question.plan).toBe('hnsw')
    asked[0]!.answer(nearOf(7))
    await turn()
    expect(asked[1]!.question.plan).toBe('exact')
    asked[1]!.answer(nearOf(7, 8, 9))
    expect(await work).toEqual(nearOf(7, 8, 9))
    expect(metrics()).toContain('worker_vector_short_total 1')
    stop()
  })

  it('are done again for some, behind everybody else, to know what the index misses', async () => {
    const { ask, asked, search, turn, metrics, stop } = createStand({ hasIndex: true, random: () => 0 })
    const work = ask({ count: 4 })
    await turn()
    asked[0]!.answer(nearOf(7, 8, 9, 10))
    expect(await work).toHaveLength(4)
    await turn()
    expect(asked[1]!.question).toMatchObject({ plan: 'exact', count: 4 })
    asked[1]!.answer(nearOf(7, 9, 10, 11))
    await search.close()
    expect(metrics()).toMatch(/worker_vector_recall_at_10_sum 0\.75\n.*_count 1/)
    expect(metrics()).toMatch(/worker_vector_search_seconds_count\{plan="hnsw"\} 1/)
    stop()
  })
})

describe('texts by /v1/embeddings', () => {
  let url = ''
  let answer: (response: ServerResponse, body: { model: string; input: string[] }) => void
  const fields: IncomingMessage['headers'][] = []
  const server = createServer(async (request, response) => {
    fields.push(request.headers)
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    answer(response, JSON.parse(Buffer.concat(chunks).toString()))
  })
  beforeAll(async () => {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => {
    server.closeAllConnections()
    server.close()
  })

  const send = (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) =>
    response.writeHead(status, headers).end(JSON.stringify(body))
  const refusal = (code: string) => ({ error: { code, message: 'No.' } })
  const data = (...vectors: number[][]) => ({ data: vectors.map((embedding, index) => ({ index, embedding })) })
  const asking = () => ({ url, model: 'm', withinMs: 1_000, signal: new AbortController().signal })
  const once1 = (texts: string[]) => embed(texts, { ...asking(), authorization: 'Bearer t' })

  it('are of length 1, in the order of the texts, and in the time that is left', async () => {
    answer = (response, { model, input }) => {
      expect([model, input]).toEqual(['m', ['a', 'b']])
      send(response, 200, { data: data([3, 4], [0, 2]).data.toReversed() })
    }
    const [a, b] = await once1(['a', 'b'])
    expect([...a!].map((value) => value.toFixed(3))).toEqual(['0.600', '0.800'])
    expect([...b!]).toEqual([0, 1])
    expect(fields.at(-1)).toMatchObject({ authorization: 'Bearer t', 'x-envoy-expected-rq-timeout-ms': '1000' })
  })

  it.each([
    ['too few', data([1])],
    ['different lengths', data([1], [1, 2])],
    ['no direction', data([0, 0], [1, 1])],
    ['no numbers', { data: [{ index: 0, embedding: ['x'] }] }],
    ['nothing', {}],
  ])('with an answer of %s are refused', async (_, body) => {
    answer = (response) => send(response, 200, body)
    await expect(once1(['a', 'b'])).rejects.toMatchObject({ code: 'upstream_invalid' })
  })

  it('are refused in the words of the worker', async () => {
    answer = (response) => send(response, 429, refusal('queue_full'), { 'retry-after': '7' })
    await expect(once1(['a'])).rejects.toEqual(new WorkerError('queue_full', 'No.', { retryAfterSeconds: 7 }))
  })

  it('are tried again later and later, as long as it may help', async () => {
    const waits: number[] = []
    const patience = { limits, random: () => 1, pause: async (ms: number) => void waits.push(ms) }
    const patiently = () => embedPatiently(['a'], { ...asking(), authorize: async () => 'Bearer t' }, patience)
    let refusals = 3
    answer = (response) => {
      refusals -= 1
      if (refusals === 2) return send(response, 429, refusal('queue_full'), { 'retry-after': '7' })
      return refusals >= 0 ? send(response, 503, refusal('upstream_unavailable')) : send(response, 200, data([1, 0]))
    }
    expect(await patiently()).toHaveLength(1)
    expect(waits).toEqual([7_000, 1_000, 2_000])
    answer = (response) => send(response, 503, refusal('upstream_unavailable'))
    await expect(patiently()).rejects.toMatchObject({ code: 'upstream_unavailable' })
    expect(waits).toHaveLength(3 + limits.embedAttemptsMax - 1)
    answer = (response) => send(response, 404, refusal('model_not_found'))
    await expect(patiently()).rejects.toMatchObject({ code: 'model_not_found' })
    expect(waits).toHaveLength(3 + limits.embedAttemptsMax - 1)
  })
})

describe('shorter vectors', () => {
  /** Points in a plane of three of forty dimensions, with a little noise, off the origin. */
  function makePlane(count: number): Vectors {
    const random = createRandom(9)
    const axes = Array.from({ length: 3 }, () => Array.from({ length: 40 }, () => normal(random)))
    const values = new Float32Array(count * 40)
    for (let row = 0; row < count; row += 1) {
      const weights = axes.map(() => normal(random))
      for (let i = 0; i < 40; i += 1)
        values[row * 40 + i] = 5 + axes.reduce((sum, axis, at) => sum + axis[i]! * weights[at]!, 0.01 * normal(random))
    }
    return { dimension: 40, values }
  }

  it('keep who is near whom, about their mean', () => {
    const plane = makePlane(200)
    const projected = projectVectors(plane, { dimension: 3 })
    const mean = Array.from({ length: 40 }, (_, i) => {
      let sum = 0
      for (let row = 0; row < 200; row += 1) sum += plane.values[row * 40 + i]!
      return sum / 200
    })
    const centred = normaliseRows({ dimension: 40, values: plane.values.map((value, at) => value - mean[at % 40]!) })
    const all = Array.from({ length: 200 }, (_, place) => place)
    const [whole, short] = [createTextIndex(centred), createTextIndex(projected)]
    for (const index of [0, 17, 99]) {
      const [before, after] = [whole.toEach(index, all), short.toEach(index, all)]
      for (const [other, value] of after.entries()) expect(Math.abs(value - before[other]!)).toBeLessThan(0.02)
    }
  })

  it('are what they were when they are short already, and the same each time', () => {
    const plane = makePlane(20)
    expect(projectVectors(plane, { dimension: 40 })).toBe(plane)
    expect(projectVectors(plane, { dimension: 3 })).toEqual(projectVectors(plane, { dimension: 3 }))
  })
})
