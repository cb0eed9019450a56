import { describe, expect, it } from 'vitest'
import { redactQuery, toLogLine } from '#edge/log.ts'
import { createLogSink } from '#edge/node/log-sink.ts'
import type { Outcome } from '#edge/runtime.ts'
import { createDecisions, signToken, start, toTable } from '../support/decisions.ts'
import type { Asked } from '../support/decisions.ts'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const done: Outcome = { status: 200, bytes: 12, end: 'done' }
const decisions = await createDecisions(
  toTable([
    {
      path: '/api/*',
      auth: { jwt: 'access', from: ['bearer', { cookie: 'access' }, { query: 'token' }], optional: true },
      proxy: { to: 'core' },
    },
    { path: '/limited', limit: { by: 'address', requests: 1, per: '1 d' }, respond: { status: 200 } },
  ]),
)

async function lineOf(asked: Asked, outcome = done): Promise<string> {
  const line = toLogLine(await decisions.ask(asked), outcome, start + 1_234, 5.678)
  expect(line.endsWith('}\n')).toBe(true)
  expect(line.indexOf('\n')).toBe(line.length - 1)
  return line
}

const read = (line: string): Record<string, unknown> => JSON.parse(line)

describe('a line of the access log', () => {
  it('says what was asked, by whom, and how it ended', async () => {
    const token = await signToken()
    const line = await lineOf(
      { method: 'POST', url: 'https://SHOP.example:8443/api/x?a=1', headers: { authorization: `Bearer ${token}` } },
      { ...done, upstreamMs: 1.239, server: 'http://127.0.0.1:8100' },
    )
    expect(read(line)).toEqual({
      time: '2026-01-01T00:00:01.234Z',
      id: 'request-1',
      client: '203.0.113.9',
      method: 'POST',
      scheme: 'https',
      host: 'shop.example',
      path: '/api/x',
      query: '?a=1',
      status: 200,
      bytes: 12,
      ms: 5.68,
      table: 'shop',
      route: 'shop /api/*',
      upstream: 'shop/core',
      server: 'http://127.0.0.1:8100',
      upstreamMs: 1.24,
      subject: 'ada',
    })
  })

  it('names the limit that refused, and why an answer is not whole', async () => {
    await decisions.ask({ url: 'https://shop.example/limited' })
    expect(read(await lineOf({ url: 'https://shop.example/limited' }))).toMatchObject({
      error: 'rate_limited',
      limit: 'address 1/1 d',
    })
    const cut: Outcome = { status: 0, bytes: 3, end: 'client_gone', cause: 'ECONNRESET' }
    expect(read(await lineOf({ url: 'https://shop.example/api' }, cut))).toMatchObject({
      status: 0,
      end: 'client_gone',
      cause: 'ECONNRESET',
    })
  })

  it.each([
    ['a method', { method: 'GE"T\\' }],
    ['a host', { url: 'https://ho"st/' }],
    ['a path', { url: 'https://shop.example/a"b\\c' }],
    ['a query', { url: 'https://shop.example/?a="\\\u0001' }],
    ['a path of many bytes', { url: 'https://shop.example/\u{1F600}' }],
    ['an unknown host', { url: 'https://other.example/' }],
  ])('is one line of JSON whatever is in %s', async (_name, asked) => {
    expect(read(await lineOf(asked))).toMatchObject({ id: 'request-1' })
  })

  it('says the time to the millisecond, also when seconds pass', async () => {
    const plan = await decisions.ask()
    const times = [0, 7, 999, 1_000, 61_050].map((after) => read(toLogLine(plan, done, start + after, 1))['time'])
    expect(times).toEqual([
      '2026-01-01T00:00:00.000Z',
      '2026-01-01T00:00:00.007Z',
      '2026-01-01T00:00:00.999Z',
      '2026-01-01T00:00:01.000Z',
      '2026-01-01T00:01:01.050Z',
    ])
  })

  it('has no token in it, wherever it was sent', async () => {
    const token = await signToken()
    const [head = '', payload = '', signature = ''] = token.split('.')
    const asked: Asked[] = [
      { url: 'https://shop.example/api', headers: { authorization: `Bearer ${token}` } },
      { url: 'https://shop.example/api', headers: { cookie: `access=${token}` } },
      { url: `https://shop.example/api?token=${token}` },
      { url: `https://shop.example/api?x=1&TOKEN=${token}&y` },
      { url: `https://shop.example/api?${token}` },
      { url: `https://shop.example/api?x=1&${token}` },
      { url: `https://shop.example/api?x=${token}` },
      { url: `https://shop.example/api?x=a,${token}` },
      { url: `https://shop.example/api?x==${token}` },
      { url: `https://shop.example/api?x=${token.replaceAll('.', '%2E')}` },
      { url: `https://shop.example/api?${token}=` },
      { url: `https://shop.example/api/verify/${token}` },
      { url: `https://shop.example/api/${token}/x` },
      { url: `https://shop.example/nowhere/${token}` },
      { url: `https://other.example/?token=${token}` },
      { url: `https://shop.example/a//b?token=${token}` },
    ]
    for (const one of asked) {
      const line = await lineOf(one)
      for (const piece of [payload, signature, `${head}.`]) expect(line).not.toContain(piece)
    }
  })
})

describe('a query in the log', () => {
  it.each([
    ['?page=2&sort=name', '?page=2&sort=name'],
    ['?', '?'],
    ['?a&b=&=c', '?a&b=&=c'],
    ['?password=hunter2', '?password=[redacted]'],
    ['?a=1&api_key=k&b=2', '?a=1&api_key=[redacted]&b=2'],
    ['?a=1;secret=s;b=2', '?a=1;secret=[redacted];b=2'],
    ['?Access-Token=t', '?Access-Token=[redacted]'],
    ['?p%61ssword=x', '?p%61ssword=[redacted]'],
    ['?%zz=x', '?%zz=[redacted]'],
    ['?code=123456&state=x', '?code=[redacted]&state=[redacted]'],
    ['?email=a@b.example', '?email=[redacted]'],
    [`?q=${'a'.repeat(39)}`, `?q=${'a'.repeat(39)}`],
    [`?q=${'a'.repeat(40)}`, '?q=[redacted]'],
    ['?token=', '?token=[redacted]'],
    ['?token==x=y', '?token=[redacted]'],
  ])('%s is %s', (query, shown) => {
    expect(redactQuery(query)).toBe(shown)
  })

  it('is read in linear time', () => {
    const started = performance.now()
    for (const query of [
      `?${'a'.repeat(8_190)}`,
      `?${'a.'.repeat(4_095)}`,
      `?${'aaaaaaaa.'.repeat(900)}`,
      `?${'&'.repeat(8_190)}`,
      `?a=${'eyJ'.repeat(2_700)}`,
    ])
      redactQuery(query)
    expect(performance.now() - started).toBeLessThan(2_000)
  })
})

describe('the log sink', () => {
  it('writes lines in their order and whole, and is empty when flushed', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'daemun-log-'))
    const file = join(folder, 'access.log')
    const descriptor = openSync(file, 'w')
    const sink = createLogSink(descriptor)
    const lines = Array.from({ length: 5_000 }, (_, index) => `{"line":${index}}\n`)
    for (const line of lines) sink.write(line)
    await sink.flush()
    expect(readFileSync(file, 'utf8')).toBe(lines.join(''))
    expect(sink.dropped()).toBe(0)
    closeSync(descriptor)
    rmSync(folder, { recursive: true })
  })

  it('drops lines rather than keep more than it may, and says how many', async () => {
    const sink = createLogSink(-1)
    const line = 'x'.repeat(1_000_000)
    for (let times = 0; times < 10; times++) sink.write(line)
    // One is being written, five wait.
    expect(sink.dropped()).toBe(4)
    await sink.flush()
    expect(sink.dropped()).toBe(10)
  })

  it('counts every line of a batch that could not be written', async () => {
    const sink = createLogSink(-1)
    for (let times = 0; times < 3; times++) sink.write('{}\n')
    await sink.flush()
    expect(sink.dropped()).toBe(3)
  })
})
