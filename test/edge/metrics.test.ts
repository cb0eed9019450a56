import { describe, expect, it } from 'vitest'
import { createMetrics } from '#edge/metrics.ts'
import type { Metrics } from '#edge/metrics.ts'
import type { Limiter, Outcome } from '#edge/runtime.ts'
import { createDecisions, signToken, toTable } from '../support/decisions.ts'
import type { Asked } from '../support/decisions.ts'
import { readPrometheus } from '../support/prometheus.ts'

const done: Outcome = { status: 200, bytes: 0, end: 'done' }
const table = toTable([
  { path: '/a', respond: { status: 200 } },
  { path: '/limited', limit: { by: 'address', requests: 1, per: '1 d' }, respond: { status: 200 } },
  {
    path: '/closed',
    limit: { by: { header: 'x-key' }, requests: 1, per: '1 d', whenDown: 'closed' },
    respond: { status: 200 },
  },
  { path: '/auth/*', auth: { jwt: 'access', claims: { role: 'admin' } }, proxy: { to: 'core' } },
  { path: '/optional', auth: { jwt: 'access', optional: true }, proxy: { to: 'core' } },
])

async function createMeter(overrides: { limiter?: Limiter } = {}) {
  const decisions = await createDecisions(table, overrides)
  const metrics = createMetrics()
  async function finish(asked: Asked, outcome: Partial<Outcome> = {}, durationMs = 1): Promise<void> {
    metrics.begin()
    const plan = await decisions.ask(asked)
    metrics.finish(plan, { ...done, ...(plan.kind === 'answer' && { status: plan.status }), ...outcome }, durationMs)
  }
  return { metrics, finish }
}

const seriesOf = (metrics: Metrics, name: string): Record<string, number> =>
  Object.fromEntries(
    readPrometheus(metrics.toText([]))
      .samples.filter((sample) => sample.name === name)
      .map(({ labels, value }) => [Object.values(labels).join(' ').trim(), value]),
  )

describe('the metrics', () => {
  it('are Prometheus text before anything happened', () => {
    const { families, samples } = readPrometheus(createMetrics().toText([{ name: 'daemun_x', help: 'X.', value: 1 }]))
    expect(families).toMatchObject({
      daemun_requests_total: 'counter',
      daemun_request_duration_seconds: 'histogram',
      daemun_x: 'gauge',
    })
    expect(samples).toEqual([
      { name: 'daemun_open_requests', labels: {}, value: 0 },
      { name: 'daemun_x', labels: {}, value: 1 },
    ])
  })

  it('count requests by table, site, route and status', async () => {
    const { metrics, finish } = await createMeter()
    await finish({ url: 'https://shop.example/a' })
    await finish({ url: 'https://shop.example/a' })
    await finish({ url: 'https://shop.example/a' }, { status: 0, end: 'client_gone' })
    await finish({ url: 'https://shop.example/nowhere' })
    await finish({ url: 'https://other.example/' })
    expect(seriesOf(metrics, 'daemun_requests_total')).toEqual({
      'shop shop.example shop /a 200': 2,
      'shop shop.example shop /a 0': 1,
      'shop shop.example  404': 1,
      '421': 1,
    })
    expect(seriesOf(metrics, 'daemun_refusals_total')).toEqual({ 'shop not_found': 1, unknown_host: 1 })
    expect(seriesOf(metrics, 'daemun_cut_answers_total')).toEqual({ 'shop client_gone': 1 })
  })

  it('count what is being served', async () => {
    const { metrics, finish } = await createMeter()
    metrics.begin()
    metrics.begin()
    await finish({ url: 'https://shop.example/a' })
    expect(seriesOf(metrics, 'daemun_open_requests')).toEqual({ '': 2 })
  })

  it('put durations into cumulative buckets, whose last is all of them', async () => {
    const { metrics, finish } = await createMeter()
    for (const durationMs of [0, 1, 1.5, 300, 60_000, 60_001])
      await finish({ url: 'https://shop.example/a' }, {}, durationMs)
    const { samples } = readPrometheus(metrics.toText([]))
    const buckets = samples
      .filter(({ name }) => name.endsWith('_bucket'))
      .map(({ labels, value }) => [labels['le'], value])
    expect(buckets).toEqual([
      ['0.001', 2],
      ['0.0025', 3],
      ['0.005', 3],
      ['0.01', 3],
      ['0.025', 3],
      ['0.05', 3],
      ['0.1', 3],
      ['0.25', 3],
      ['0.5', 4],
      ['1', 4],
      ['2.5', 4],
      ['5', 4],
      ['10', 4],
      ['60', 5],
      ['+Inf', 6],
    ])
    expect(seriesOf(metrics, 'daemun_request_duration_seconds_count')).toEqual({ 'shop shop.example shop /a': 6 })
    expect(seriesOf(metrics, 'daemun_request_duration_seconds_sum')['shop shop.example shop /a']).toBeCloseTo(120.3035)
  })

  it('count what limits say', async () => {
    const { metrics, finish } = await createMeter()
    for (let times = 0; times < 3; times++) await finish({ url: 'https://shop.example/limited' })
    await finish({ url: 'https://shop.example/a' })
    expect(seriesOf(metrics, 'daemun_limit_verdicts_total')).toEqual({
      'shop shop.example shop /limited allowed': 1,
      'shop shop.example shop /limited refused': 2,
    })
    const down = await createMeter({ limiter: { take: () => ({ outcome: 'down', remaining: 0, resetAt: 0 }) } })
    await down.finish({ url: 'https://shop.example/closed' })
    expect(seriesOf(down.metrics, 'daemun_limit_verdicts_total')).toEqual({ 'shop shop.example shop /closed down': 1 })
  })

  it('count what is said of tokens', async () => {
    const { metrics, finish } = await createMeter()
    const bearer = async (claims: object) => ({ authorization: `Bearer ${await signToken({ ...claims })}` })
    await finish({ url: 'https://shop.example/auth', headers: await bearer({ role: 'admin' }) })
    await finish({ url: 'https://shop.example/auth', headers: await bearer({ role: 'user' }) })
    await finish({ url: 'https://shop.example/auth' })
    await finish({ url: 'https://shop.example/auth', headers: { authorization: 'Bearer x' } })
    await finish({ url: 'https://shop.example/optional' })
    expect(seriesOf(metrics, 'daemun_auth_verdicts_total')).toEqual({
      'shop shop.example shop /auth/* verified': 1,
      'shop shop.example shop /auth/* forbidden': 1,
      'shop shop.example shop /auth/* refused': 2,
      'shop shop.example shop /optional anonymous': 1,
    })
  })

  it('count the errors of upstreams', async () => {
    const { metrics, finish } = await createMeter()
    const refusal = { code: 'upstream_unreachable', detail: '' } as const
    await finish({ url: 'https://shop.example/optional' }, { status: 502, refusal })
    expect(seriesOf(metrics, 'daemun_upstream_errors_total')).toEqual({ 'shop/core upstream_unreachable': 1 })
    expect(seriesOf(metrics, 'daemun_refusals_total')).toEqual({})
  })

  it('count what was no request', () => {
    const metrics = createMetrics()
    metrics.refuse('malformed_request')
    expect(seriesOf(metrics, 'daemun_refusals_total')).toEqual({ malformed_request: 1 })
  })

  it('give each series one line, also when rows have one name', async () => {
    const rows = [
      { path: '/*', matchHeaders: { 'x-side': 'a' }, respond: { status: 200 } },
      { path: '/*', respond: { status: 200 } },
    ]
    const decisions = await createDecisions(toTable(rows))
    const metrics = createMetrics()
    for (const headers of [{ 'x-side': 'a' }, { 'x-side': 'b' }])
      metrics.finish(await decisions.ask({ url: 'https://shop.example/', headers }), done, 1)
    expect(seriesOf(metrics, 'daemun_requests_total')).toEqual({ 'shop shop.example shop /* 200': 2 })
  })

  it('do not grow with what clients send', async () => {
    const { metrics, finish } = await createMeter()
    await finish({ url: 'https://shop.example/auth/1' })
    await finish({ url: 'https://h1.example/x', method: 'PUT' })
    const { length } = metrics.toText([]).split('\n')
    for (let n = 2; n < 50; n++) {
      await finish({ url: `https://shop.example/auth/${n}?${n}`, headers: { [`x-${n}`]: 'x' }, peer: `192.0.2.${n}` })
      await finish({ url: `https://h${n}.example/x`, method: `M${n}` })
    }
    expect(metrics.toText([]).split('\n')).toHaveLength(length)
  })

  it('escape what stands in labels', async () => {
    const decisions = await createDecisions(toTable([{ path: "/'$&", respond: { status: 200 } }]))
    const plan = await decisions.ask({ url: "https://shop.example/'$&" })
    const site = plan.exchange.site
    if (!site || !plan.exchange.route) throw new Error('no route')
    plan.exchange.route = { ...plan.exchange.route, id: 'a "quoted" \\ and\nbroken' }
    const metrics = createMetrics()
    metrics.finish(plan, done, 1)
    const sample = readPrometheus(metrics.toText([])).samples.find(({ name }) => name === 'daemun_requests_total')
    expect(sample?.labels['route']).toBe('a "quoted" \\ and\nbroken')
  })
})
