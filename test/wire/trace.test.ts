import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { limits } from '#edge/limits.ts'
import { createTracer } from '#edge/node/tracer.ts'
import type { TracerOptions } from '#edge/node/tracer.ts'
import { readTracingConfig } from '#edge/node/tracing-config.ts'
import type { Outcome } from '#edge/runtime.ts'
import { startCollector } from '../support/collector.ts'
import type { Collector } from '../support/collector.ts'
import { createDecisions, toTable as toDecidedTable } from '../support/decisions.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { get } from '../support/get.ts'
import { startOrigin } from '../support/origin.ts'
import type { Echo, Origin } from '../support/origin.ts'

const id = '4bf92f3577b34da6a3ce929d0e0e4736'
const parent = '00f067aa0ba902b7'

let origin: Origin
let collector: Collector
let gateway: TestGateway
const reports: string[] = []

beforeAll(async () => {
  origin = await startOrigin()
})
afterAll(() => origin?.close())
beforeEach(async () => {
  collector = await startCollector()
})
afterEach(async () => {
  await gateway?.stop()
  await collector?.close()
  reports.length = 0
})

const toOptions = (environment: Record<string, string> = {}): TracerOptions => {
  const config = readTracingConfig({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...environment })
  if (!config) throw new Error('nothing is traced')
  return { ...config, report: (line) => void reports.push(line), delayMs: 5, retryMs: 5 }
}

async function start(environment?: Record<string, string>): Promise<void> {
  const upstreams = {
    app: { servers: [origin.url] },
    dead: { servers: ['http://127.0.0.1:1'] },
    half: { servers: ['http://127.0.0.1:1', { url: origin.url, backup: true }] },
  }
  const routes = [
    { path: '/echo/*', proxy: { to: 'app' } },
    { path: '/status/*', proxy: { to: 'app' } },
    { path: '/wire/*', proxy: { to: 'app' } },
    { path: '/dead', proxy: { to: 'dead' } },
    { path: '/half', proxy: { to: 'half', path: '/echo' } },
    { path: '/own', respond: { status: 200 } },
  ]
  const table = { name: 'shop', upstreams, sites: [{ hosts: ['shop.example'], routes }] }
  gateway = await startTestGateway(table, { tracer: createTracer(toOptions(environment)) })
}

const ask = (path: string, headers: Record<string, string> = {}) =>
  get(gateway.port, `http://shop.example${path}`, headers)

const askEcho = async (headers?: Record<string, string>): Promise<(name: string) => string | undefined> => {
  const { headers: sent } = JSON.parse(String((await ask('/echo/x?a=1&token=secret', headers)).body)) as Echo
  return (name) => sent[sent.findIndex((one) => one.toLowerCase() === name) + 1 || sent.length]
}

describe('a recorded trace', () => {
  it('begins at the gateway when nobody has begun it, and goes on at the upstream', async () => {
    await start()
    const field = await askEcho()
    const [server, client] = (await collector.has(2)).toSorted((a, b) => a.kind - b.kind)
    expect(field('traceparent')).toBe(`00-${server?.traceId}-${client?.spanId}-03`)
    expect(server).toMatchObject({
      name: 'GET /echo/*',
      kind: 2,
      parentSpanId: undefined,
      isError: false,
      attributes: {
        'http.request.method': 'GET',
        'http.route': '/echo/*',
        'http.response.status_code': 200,
        'url.scheme': 'http',
        'url.path': '/echo/x',
        'url.query': 'a=1&token=[redacted]',
        'server.address': 'shop.example',
        'client.address': '127.0.0.1',
        'daemun.table': 'shop',
      },
    })
    expect(client).toMatchObject({
      name: 'GET',
      kind: 3,
      parentSpanId: server?.spanId,
      traceId: server?.traceId,
      isError: false,
      attributes: {
        'url.full': `${origin.url}/echo/x?a=1&token=[redacted]`,
        'server.address': '127.0.0.1',
        'server.port': Number(new URL(origin.url).port),
        'http.response.status_code': 200,
        'daemun.upstream': 'shop/app',
      },
    })
    expect(client?.durationMs).toBeLessThanOrEqual(server?.durationMs ?? 0)
    const [line] = gateway.log()
    expect(line).toMatchObject({ trace: server?.traceId, id: server?.attributes['daemun.request_id'] })
  })

  it("goes on from the caller's span, with its state", async () => {
    await start()
    const field = await askEcho({ traceparent: `00-${id}-${parent}-01`, tracestate: 'rojo=1, congo=t61' })
    const [server, client] = (await collector.has(2)).toSorted((a, b) => a.kind - b.kind)
    expect(server).toMatchObject({ traceId: id, parentSpanId: parent, traceState: 'rojo=1, congo=t61' })
    expect(field('traceparent')).toBe(`00-${id}-${client?.spanId}-01`)
    expect(field('tracestate')).toBe('rojo=1, congo=t61')
  })

  it('is not recorded when the caller does not, and still goes on', async () => {
    await start()
    const field = await askEcho({ traceparent: `00-${id}-${parent}-02`, tracestate: '=broken' })
    expect(field('traceparent')).toMatch(new RegExp(`^00-${id}-(?!${parent})[\\da-f]{16}-02$`))
    expect(field('tracestate')).toBeUndefined()
    await ask('/own')
    expect((await collector.has(1)).map(({ name }) => name)).toEqual(['GET /own'])
  })

  it('tells of what went wrong', async () => {
    await start()
    for (const path of ['/dead', '/status/503', '/status/404', '/half', '/wire/cut']) await ask(path).catch(() => {})
    const spans = await collector.has(10)
    const errors = (kind: number) =>
      spans.filter((span) => span.kind === kind).map(({ isError, attributes }) => isError && attributes['error.type'])
    expect(errors(2)).toEqual(['upstream_unreachable', '503', false, false, 'upstream_cut'])
    expect(errors(3)).toEqual(['ECONNREFUSED', '503', '404', false, 'upstream_cut'])
    expect(spans.filter(({ attributes }) => attributes['http.request.resend_count'] === 1)).toHaveLength(1)
  })

  it('cannot be made to name methods that do not exist', async () => {
    await start()
    await get(gateway.port, 'http://shop.example/own', {}, 'PROPFIND')
    const [span] = await collector.has(1)
    expect(span).toMatchObject({ name: 'HTTP /own', attributes: { 'http.request.method': '_OTHER' } })
  })
})

describe('the collector', () => {
  it('is told who sends, with the fields that were asked for', async () => {
    await start({
      OTEL_SERVICE_NAME: 'front',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test,service.name=other',
      OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer%20planted-token, x-team=edge',
    })
    await ask('/own')
    await collector.has(1)
    expect(collector.requests[0]).toMatchObject({
      path: '/v1/traces',
      headers: { authorization: 'Bearer planted-token', 'x-team': 'edge', 'content-type': 'application/json' },
      resource: { 'service.name': 'front', 'deployment.environment.name': 'test' },
    })
    expect(gateway.output() + reports.join() + (await gateway.metrics())).not.toContain('planted')
  })

  it('delays nobody when it is silent', async () => {
    collector.status = undefined
    await start({ OTEL_EXPORTER_OTLP_TIMEOUT: '20' })
    for (let asked = 0; asked < 3; asked++) expect((await ask('/echo/x')).status).toBe(200)
    await expect.poll(() => reports).toEqual(['traces: the collector does not take spans: TimeoutError'])
  })

  it('gets the same spans again when it was down, once', async () => {
    collector.status = 503
    await start()
    await ask('/own')
    await expect.poll(() => reports).toEqual(['traces: the collector does not take spans: status 503'])
    collector.status = 200
    await ask('/own')
    await collector.has(2)
    expect(new Set(collector.spans().map(({ spanId }) => spanId)).size).toBe(2)
    await expect.poll(() => reports.at(-1)).toBe('traces: the collector takes spans again')
    expect(await gateway.metric('daemun_spans_sent_total')).toBe(2)
  })

  it('does not get again what it refuses', async () => {
    collector.status = 400
    await start()
    await ask('/own')
    await expect.poll(() => gateway.metric('daemun_spans_dropped_total')).toBe(1)
    expect(reports).toEqual(['traces: the collector refused 1 spans: status 400'])
  })

  it('gets what is left when the gateway stops', async () => {
    const tracer = createTracer({ ...toOptions(), delayMs: 60_000 })
    const decisions = await createDecisions(toDecidedTable([{ path: '/', respond: { status: 200 } }]), {
      tracing: tracer,
    })
    tracer.finish(await decisions.ask(), done, 1)
    expect(collector.spans()).toEqual([])
    await tracer.close()
    expect(collector.spans()).toHaveLength(1)
  })

  it('costs a bounded number of spans while it is away', async () => {
    collector.status = 503
    const tracer = createTracer({ ...toOptions(), delayMs: 60_000, retryMs: 60_000 })
    const decisions = await createDecisions(toDecidedTable([{ path: '/', respond: { status: 200 } }]), {
      tracing: tracer,
    })
    const plan = await decisions.ask()
    for (let ended = 0; ended < limits.spansMax + 7; ended++) tracer.finish(plan, done, 1)
    await tracer.close()
    const dropped = tracer.gauges().find(({ name }) => name === 'daemun_spans_dropped_total')
    expect(dropped?.value).toBe(limits.spansMax + 7)
  })
})

const done: Outcome = { status: 200, bytes: 0, end: 'done' }

describe('sampling', () => {
  it.each([
    ['always_on', undefined, false, true],
    ['always_off', undefined, true, false],
    ['parentbased_always_on', undefined, false, false],
    ['parentbased_always_off', undefined, true, true],
    ['parentbased_always_off', undefined, undefined, false],
    ['traceidratio', '0', true, false],
    ['parentbased_traceidratio', '0', true, true],
  ])('%s (%s) makes of a caller that says %s: %s', (sampler, argument, sampled, expected) => {
    const environment = { OTEL_TRACES_SAMPLER: sampler, ...(argument && { OTEL_TRACES_SAMPLER_ARG: argument }) }
    expect(createTracer(toOptions(environment)).sample(id, sampled)).toBe(expected)
  })

  it('takes the share that was asked for, the same traces each time', () => {
    const tracer = createTracer(toOptions({ OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.25' }))
    const ids = Array.from(
      { length: 256 },
      (_, index) => `${'0'.repeat(17)}1${index.toString(16).padStart(2, '0')}${'8'.repeat(12)}`,
    )
    expect(ids.filter((one) => tracer.sample(one, undefined))).toEqual(ids.slice(0, 64))
  })
})

describe('the settings of tracing', () => {
  it('turn it off', () => {
    const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318/' }
    expect(readTracingConfig({})).toBeUndefined()
    expect(readTracingConfig({ ...endpoint, OTEL_SDK_DISABLED: 'true' })).toBeUndefined()
    expect(readTracingConfig({ ...endpoint, OTEL_TRACES_EXPORTER: 'none' })).toBeUndefined()
    expect(readTracingConfig(endpoint)?.url).toBe('http://127.0.0.1:4318/v1/traces')
    expect(
      readTracingConfig({ ...endpoint, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://127.0.0.1:4318/own' })?.url,
    ).toBe('http://127.0.0.1:4318/own')
  })

  it.each([
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: '127.0.0.1:4318' }, 'which is no URL'],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, 'sent as http/json'],
    [{ OTEL_EXPORTER_OTLP_HEADERS: 'authorization: planted' }, 'fault in its part 1'],
    [{ OTEL_EXPORTER_OTLP_HEADERS: 'a=b,c=planted%zz' }, 'fault in its part 2'],
    [{ OTEL_EXPORTER_OTLP_HEADERS: 'a=planted%0d%0a' }, 'fault in its part 1'],
    [{ OTEL_EXPORTER_OTLP_TIMEOUT: '10s' }, 'write milliseconds'],
    [{ OTEL_TRACES_SAMPLER: 'sometimes' }, 'write one of always_on'],
    [{ OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '2' }, 'a share from 0 to 1'],
  ])('are refused when they are %j', (environment, message) => {
    const read = (): unknown =>
      readTracingConfig({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318', ...environment })
    expect(read).toThrow(message)
    expect(read).not.toThrow('planted')
  })
})
