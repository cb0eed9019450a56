import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { runCli } from '../support/cli.ts'
import type { Split, Table } from '#edge/table.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, says, startHostileOrigin } from '../support/hostile-origin.ts'
import type { Behaviour, HostileOrigin } from '../support/hostile-origin.ts'
import { ask, field } from '../support/raw-client.ts'

/** Two sides of one upstream: who gets what, and what changes while requests run. */
const token = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='
const open: { close(): Promise<void> }[] = []
let gateways: TestGateway[] = []

afterEach(async () => {
  for (const gateway of gateways.splice(0)) {
    await gateway.settled()
    expect(gateway.output()).not.toContain('internal error')
    expect(gateway.output()).not.toContain(token)
    await gateway.stop()
  }
  await Promise.all(open.splice(0).map((one) => one.close()))
})

async function startOrigin(behave: Behaviour = ok): Promise<HostileOrigin> {
  const origin = await startHostileOrigin(behave)
  open.push(origin)
  return origin
}

const toTable = (blue: string[], green: string[], split: Partial<Split> = {}, weights = [1, 1]): Table => ({
  name: 'shop',
  upstreams: {
    app: {
      split: {
        sides: {
          blue: { servers: blue, weight: weights[0] ?? 0 },
          green: { servers: green, weight: weights[1] ?? 0 },
        },
        ...split,
      },
    },
  },
  sites: [{ hosts: ['a.example'], routes: [{ path: '/*', proxy: { to: 'app' } }] }],
})

async function start(table: Table, options: Parameters<typeof startTestGateway>[1] = {}): Promise<TestGateway> {
  const gateway = await startTestGateway(table, { adminToken: token, ...options })
  gateways.push(gateway)
  return gateway
}

const get = (fields = ''): string => `GET /x HTTP/1.1\r\nHost: a.example\r\n${fields}\r\n`
const keptBy = (number: string): string => get(`Cookie: side=${number}\r\n`)
const sticky = { cookie: 'side' }
const fails: Behaviour = says('HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n')
const status503: Behaviour = says('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n')

const put = (gateway: TestGateway, name: string, body: unknown, authorization = `Bearer ${token}`): Promise<Response> =>
  fetch(`${gateway.adminUrl}/splits/${encodeURIComponent(name)}`, {
    method: 'PUT',
    headers: { authorization },
    body: JSON.stringify(body),
  })

async function eventually(isThere: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 1_000; i++) {
    if (await isThere()) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  throw new Error('it has not come about')
}

describe('sides', () => {
  it('get their kept clients, each the same one, and are named in the log and the metrics', async () => {
    const [blue, green] = [await startOrigin(), await startOrigin()]
    const gateway = await start(toTable([blue.url], [green.url], { sticky }, [3, 1]))
    for (let i = 0; i < 3; i++)
      for (const number of ['0000', '7499', '7500', '9999']) await ask(gateway.port, keptBy(number))
    expect([blue.requests.length, green.requests.length]).toEqual([6, 6])
    expect(gateway.log().at(-1)).toMatchObject({ upstream: 'shop/app:green', server: green.url })
    for (const side of ['blue', 'green'])
      expect(await gateway.metric(`daemun_split_requests_total{upstream="shop/app",side="${side}"}`)).toBe(6)
    expect(await gateway.metric('daemun_split_weight{upstream="shop/app",side="blue"}')).toBe(3)
    expect(await gateway.metric(`daemun_upstream_server_up{upstream="shop/app:green",server="${green.url}"}`)).toBe(1)
  })

  it('keep their retries to themselves', async () => {
    const [blue, bad, good] = [await startOrigin(), await startOrigin(status503), await startOrigin()]
    const table = toTable([blue.url], [bad.url, good.url], { sticky })
    const [route] = table.sites[0]?.routes ?? []
    if (route?.proxy) route.proxy.retry = { statuses: [503] }
    const gateway = await start(table)
    for (let i = 0; i < 6; i++) expect((await ask(gateway.port, keptBy('9999'))).status).toBe(200)
    expect([blue.requests.length, good.requests.length]).toEqual([0, 6])
    expect(bad.requests.length).toBeGreaterThan(0)
  })

  it('pass on the cookies of their servers beside the one that keeps clients', async () => {
    const origin = await startOrigin(says('HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nContent-Length: 0\r\n\r\n'))
    const gateway = await start(toTable([origin.url], [origin.url], { sticky }))
    const { fields } = await ask(gateway.port, get())
    const cookies = fields.filter(([name]) => name.toLowerCase() === 'set-cookie').map(([, value]) => value)
    expect(cookies).toEqual(['own=1', expect.stringMatching(/^side=\d{4}; /)])
  })
})

describe('a change while requests run', () => {
  it('needs the token', async () => {
    const origin = await startOrigin()
    const gateway = await start(toTable([origin.url], [origin.url]))
    const weights = { blue: 1, green: 0 }
    expect((await put(gateway, 'app', { weights }, '')).status).toBe(401)
    expect((await put(gateway, 'app', { weights }, `Bearer ${token}x`)).status).toBe(401)
    expect(await (await fetch(`${gateway.adminUrl}/splits`)).json()).toMatchObject([{ weights: { blue: 1, green: 1 } }])
    expect((await put(gateway, 'app', { weights })).status).toBe(200)
  })

  it('holds from the next request on, moves kept clients, and is said once with who and from what', async () => {
    const [blue, green] = [await startOrigin(), await startOrigin()]
    const gateway = await start(toTable([blue.url], [green.url], { sticky }))
    await ask(gateway.port, keptBy('9999'))
    const answer = await put(gateway, 'shop/app', { weights: { blue: 100, green: 0 } })
    expect(await answer.json()).toMatchObject({ upstream: 'shop/app', state: 'by hand' })
    await ask(gateway.port, keptBy('9999'))
    expect([blue.requests.length, green.requests.length]).toEqual([1, 1])
    expect(gateway.output()).toContain(
      'split shop/app: from blue 1, green 1 to blue 100, green 0 by hand from 127.0.0.1: asked for',
    )
    expect(await gateway.metric('daemun_split_weight{upstream="shop/app",side="green"}')).toBe(0)
  })

  it.each([
    ['apps', { weights: { blue: 1, green: 1 } }, 404, "there is no split 'apps': known: shop/app"],
    ['app', { weights: { blue: 1 } }, 400, "shop/app: say the weight of 'green' too: blue=… green=…"],
    [
      'app',
      { weights: { blue: 1, green: '1' } },
      400,
      'send {"weights": {"blue": 90, "green": 10}} or {"rollout": true}',
    ],
    ['app', 'nonsense', 400, 'send {"weights": {"blue": 90, "green": 10}} or {"rollout": true}'],
    ['app', { rollout: true }, 409, "shop/app: the table says of no rollout: add 'rollout' to the split"],
    ['app', { weights: { blue: 1, ['x'.repeat(20_000)]: 1 } }, 413, undefined],
  ])('of %s to %j is refused with %i', async (name, body, status, detail) => {
    const origin = await startOrigin()
    const gateway = await start(toTable([origin.url], [origin.url]))
    const answer = await put(gateway, name, body)
    expect(answer.status).toBe(status)
    if (detail) expect(await answer.json()).toMatchObject({ detail })
  })

  it('is asked for with daemun split', async () => {
    const origin = await startOrigin()
    const gateway = await start(toTable([origin.url], [origin.url]))
    const admin = ['--admin', gateway.adminUrl.replace('http://', '')]
    const env = { DAEMUN_ADMIN_TOKEN: token }
    const [shown, changed, refused, without] = await Promise.all([
      runCli(['split', ...admin]),
      runCli(['split', 'app', 'blue=90', 'green=10', ...admin], { env }),
      runCli(['split', 'app', 'blue=90', 'gren=10', ...admin], { env }),
      runCli(['split', 'app', 'blue=90', 'green=10', ...admin]),
    ])
    expect([shown.code, shown.stderr]).toEqual([0, ''])
    expect(shown.stdout).toMatch(/^shop\/app {2}blue \d+, green \d+ {2}/)
    expect(changed).toEqual({
      code: 0,
      stdout: 'shop/app  blue 90, green 10  by hand from 127.0.0.1: asked for\n',
      stderr: '',
    })
    expect([refused.code, refused.stderr]).toEqual([2, "✗ shop/app: there is no side 'gren': did you mean 'green'?\n"])
    expect([without.code, without.stderr]).toEqual([
      2,
      '✗ changes need DAEMUN_ADMIN_TOKEN, in the environment or in .env: the one that the gateway has\n',
    ])
  })

  it('outlives the process where there is a folder for it, and a file that is none is said', async () => {
    const stateDirectory = join(mkdtempSync(join(tmpdir(), 'daemun-state-')), 'made')
    const origin = await startOrigin()
    const table = toTable([origin.url], [origin.url])
    const first = await start(table, { stateDirectory })
    await put(first, 'app', { weights: { blue: 7, green: 3 } })
    const weightOf = (gateway: TestGateway): Promise<number> =>
      gateway.metric('daemun_split_weight{upstream="shop/app",side="blue"}')
    expect(await weightOf(await start(table, { stateDirectory }))).toBe(7)
    const file = join(stateDirectory, 'splits.json')
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ 'shop/app': { weights: [7, 3], state: 'by hand' } })
    writeFileSync(file, '{"shop/app": {"weights": "all"}}')
    const broken = await start(table, { stateDirectory })
    expect(await weightOf(broken)).toBe(1)
    expect(broken.output()).toContain('splits.json is not used')
    rmSync(join(stateDirectory, '..'), { recursive: true })
  })
})

describe('a rollout', () => {
  const rollout = { to: 'green', steps: [50, 100], everyMs: 1_000, minRequests: 5 }

  it('is taken back when every answer is 5xx; kept clients move to the stable side then, and not before', async () => {
    const [blue, green] = [await startOrigin(), await startOrigin(fails)]
    const gateway = await start(toTable([blue.url], [green.url], { sticky, rollout }, [1, 0]), { judgeMs: 20 })
    for (let i = 0; i < 4; i++) {
      expect((await ask(gateway.port, keptBy('9999'))).status).toBe(500)
      expect((await ask(gateway.port, keptBy('0000'))).status).toBe(200)
    }
    await ask(gateway.port, keptBy('9999'))
    await eventually(() => gateway.output().includes('to blue 100, green 0 by the rollout: green failed 5 of 5'))
    expect((await ask(gateway.port, keptBy('9999'))).status).toBe(200)
    expect(await gateway.metric('daemun_split_failures_total{upstream="shop/app",side="green"}')).toBe(5)
  })

  it('goes to the end while all is well, and can be begun anew', async () => {
    const [blue, green] = [await startOrigin(), await startOrigin()]
    const gateway = await start(toTable([blue.url], [green.url], { sticky, rollout }, [1, 0]), { judgeMs: 20 })
    await eventually(async () => {
      await ask(gateway.port, keptBy('9999'))
      return gateway.output().includes('to blue 0, green 100 by the rollout')
    })
    expect((await ask(gateway.port, keptBy('0000'))).status).toBe(200)
    expect(green.requests.length).toBeGreaterThan(5)
    expect((await put(gateway, 'app', { rollout: true })).status).toBe(200)
    expect(gateway.output()).toContain('to blue 50, green 50 by hand from 127.0.0.1: it begins')
  })

  it('answers a request that names a side from there, whatever became of it', async () => {
    const [blue, green] = [await startOrigin(), await startOrigin(fails)]
    const gateway = await start(toTable([blue.url], [green.url], { force: { header: 'x-side' } }, [1, 0]))
    const answer = await ask(gateway.port, get('X-Side: green\r\n'))
    expect([answer.status, field(answer, 'x-side')]).toEqual([500, 'green'])
    expect(green.requests[0]?.head).not.toMatch(/x-side/i)
  })
})
