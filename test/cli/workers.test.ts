import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import type { Status } from '#edge/status.ts'
import { createFolder, runCli, serveCli } from '../support/cli.ts'
import type { Served } from '../support/cli.ts'
import { get } from '../support/get.ts'
import type { Got } from '../support/get.ts'
import type { Points } from '#edge/history.ts'
import { startLoad } from '../support/steady-load.ts'

/** `serve --workers`: what workers share, and what becomes of one that ends, hangs or breaks. */
const token = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='
const env = { DAEMUN_ADMIN_TOKEN: token }
const folder = createFolder({})
let origin: Server
/** The other side of splits; it fails where it is asked for /canary. */
let green: Server
let served: Served

beforeAll(async () => {
  origin = createServer((request, response) => response.end(`asked by ${String(request.headers['x-asked-by'])}`))
  new WebSocketServer({ server: origin }).on('connection', (socket) =>
    socket.on('message', (data) => socket.send(String(data))),
  )
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
  green = createServer((request, response) => {
    response.statusCode = request.url === '/canary' ? 500 : 200
    response.end('green')
  })
  await new Promise<void>((resolve) => green.listen(0, '127.0.0.1', resolve))
  writeTable(1)
  served = await serveCli(['shop.ts', '--workers', '2'], { folder: folder.path, env })
})
afterEach(() => {
  expect(served.stderr()).not.toContain('internal error')
})
afterAll(async () => {
  expect(await served.stop()).toBe(0)
  expect(workersOf(served)).toEqual([])
  for (const server of [origin, green]) {
    server.closeAllConnections()
    server.close()
  }
  folder.remove()
})

/** Both directions of the row /* say which generation it is of. */
function writeTable(generation: number): void {
  const set = { 'X-Asked-By': `generation ${generation}` }
  const sides = {
    blue: { servers: [toUrl(origin)], weight: 100 },
    green: { servers: [toUrl(green)], weight: 0 },
  }
  const table = {
    name: 'shop',
    upstreams: {
      origin: { servers: [toUrl(origin)] },
      app: { split: { sides } },
      canary: {
        split: {
          sides,
          sticky: { cookie: 'side' },
          rollout: { to: 'green', steps: [50, 100], everyMs: 60_000, minRequests: 1_000 },
        },
      },
    },
    sites: [
      {
        hosts: ['shop.example'],
        routes: [
          { path: '/side', proxy: { to: 'app' } },
          { path: '/canary', proxy: { to: 'canary' } },
          { path: '/ws', proxy: { to: 'origin', websocket: true } },
          { path: '/limited', limit: { by: 'address', requests: 10, per: '1 d' }, respond: { status: 200 } },
          {
            path: '/*',
            requestHeaders: { set },
            responseHeaders: { set: { 'X-Body': `asked by generation ${generation}` } },
            proxy: { to: 'origin' },
          },
        ],
      },
    ],
  }
  writeFileSync(join(folder.path, 'shop.ts'), `export default ${JSON.stringify(table)}\n`)
}

const toUrl = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const workersOf = ({ child }: Served): number[] => {
  try {
    return execFileSync('pgrep', ['-P', String(child.pid)], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map(Number)
  } catch {
    return []
  }
}

const ask = (path: string) => get(served.port, `http://shop.example${path}`)

/** On a connection of its own, which any worker may take. */
const askAnew = (path: string, headers: Record<string, string> = {}) =>
  get(served.port, `http://shop.example${path}`, headers, 'GET', false)

/** Asks each worker once: the others stand still for that moment. */
async function askEach(path: string, headers?: Record<string, string>): Promise<Got[]> {
  const all = workersOf(served)
  const answers: Got[] = []
  for (const one of all) {
    const others = all.filter((pid) => pid !== one)
    for (const other of others) process.kill(other, 'SIGSTOP')
    try {
      answers.push(await askAnew(path, headers))
    } finally {
      for (const other of others) process.kill(other, 'SIGCONT')
    }
  }
  return answers
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20))
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${served.adminUrl}/metrics`)).text()
  const line = text.split('\n').find((one) => one.startsWith(`${name} `))
  return Number(line?.slice(name.length + 1) ?? 0)
}

const readStatus = async (): Promise<Status> => (await fetch(`${served.adminUrl}/status`)).json() as Promise<Status>

const requests = (): Promise<number> =>
  metric('daemun_requests_total{table="shop",site="shop.example",route="shop /*",status="200"}')

const post = (path: string): Promise<Response> =>
  fetch(`${served.adminUrl}${path}`, { method: 'POST', headers: { authorization: `Bearer ${token}` } })

/** Machines are busy. */
vi.setConfig({ testTimeout: 60_000 })

describe('workers', () => {
  it('share the port, and one listener for operators', async () => {
    expect(workersOf(served)).toHaveLength(2)
    await until(() => served.stderr().includes('limits are counted'))
    expect(served.stderr()).toContain('2 workers share the ports\nlimits are counted in the supervisor;')
    const before = await requests()
    for (let count = 0; count < 20; count++) expect((await ask('/')).status).toBe(200)
    await until(async () => (await requests()) === before + 20)
    expect(await metric('daemun_workers')).toBe(2)
    expect((await fetch(`${served.adminUrl}/readyz`)).status).toBe(200)
    expect((await fetch(`${served.adminUrl}/nothing`)).status).toBe(404)
  })

  it('are shown to operators as one: sums, histories and the errors of all', async () => {
    await until(async () => (await readStatus()).traffic !== null)
    const { traffic: before } = await readStatus()
    for (let count = 0; count < 20; count++)
      for (const { status: refused } of await askEach('/bad%00')) expect(refused).toBe(400)
    await until(async () => ((await readStatus()).traffic?.requests ?? 0) >= (before?.requests ?? 0) + 40)
    const status = await readStatus()
    expect(status).toMatchObject({ processId: served.child.pid, state: 'ready', tables: { generation: 1 } })
    expect(status.workers?.map(({ processId }) => processId).toSorted()).toEqual(workersOf(served).toSorted())
    expect(status.workers?.map(({ state }) => state)).toEqual(['ready', 'ready'])
    expect(status.refusedRequests).toHaveLength(40)
    expect(status.traffic?.clientErrors).toBe((before?.clientErrors ?? 0) + 40)
    expect(status.traffic?.p99Ms).toBeGreaterThan(0)
    const points = (await (await fetch(`${served.adminUrl}/status/history`)).json()) as Points
    const seen = points.clientErrorsPerSecond.reduce<number>(
      (sum, value) => sum + (value ?? 0) * (points.stepMs / 1_000),
      0,
    )
    expect(seen).toBeGreaterThan(39)
    expect(await (await fetch(served.adminUrl)).text()).toContain('<html')
    const explained = await fetch(`${served.adminUrl}/explain`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ url: 'http://shop.example/limited' }),
    })
    expect(await explained.text()).toMatch(/row +shop \/limited/)
  })

  it('count limits together', async () => {
    const statuses = await Promise.all(Array.from({ length: 30 }, async () => (await ask('/limited')).status))
    expect(statuses.filter((status) => status === 200)).toHaveLength(10)
    expect(statuses.filter((status) => status === 429)).toHaveLength(20)
  })

  it('write whole lines to one log', async () => {
    const marker = 'x'.repeat(3_000)
    await Promise.all(Array.from({ length: 40 }, () => ask(`/${marker}`)))
    await until(() => served.stdout().split(marker).length === 41)
    for (const line of served.stdout().trim().split('\n'))
      expect(JSON.parse(line)).toMatchObject({ status: expect.any(Number) })
  })

  it('take up the weights of a split all together, and those that come later begin with them', async () => {
    const split = (...weights: string[]) =>
      runCli(['split', 'app', ...weights, '--admin', new URL(served.adminUrl).host], { env })
    const bodies = async () => (await askEach('/side')).map(({ body }) => body.toString())
    expect(await bodies()).toEqual(['asked by undefined', 'asked by undefined'])
    expect((await split('blue=0', 'green=100')).code).toBe(0)
    expect(await bodies()).toEqual(['green', 'green'])
    const before = workersOf(served)
    expect((await post('/workers')).status).toBe(200)
    await until(() => workersOf(served).length === 2 && !workersOf(served).some((pid) => before.includes(pid)))
    expect(await bodies()).toEqual(['green', 'green'])
    expect((await split('blue=100', 'green=0')).code).toBe(0)
    expect(await bodies()).toEqual(['asked by undefined', 'asked by undefined'])
  })

  it('are judged together in a rollout: it is taken back for what no worker has seen enough of', async () => {
    const kept = { cookie: 'side=9999' }
    // Five failures are needed. Each worker has three.
    for (let count = 0; count < 3; count++)
      expect((await askEach('/canary', kept)).map(({ status }) => status)).toEqual([500, 500])
    await until(() => served.stderr().includes('to blue 100, green 0 by the rollout: green failed 6 of 6'))
    expect((await askEach('/canary', kept)).map(({ status }) => status)).toEqual([200, 200])
  })

  it('are followed by another one when they are killed: nothing is refused, and what they counted is kept', async () => {
    await until(async () => (await metric('daemun_open_requests')) === 0)
    const load = startLoad(served.port, { connections: 4, fresh: true })
    const [victim = 0] = workersOf(served)
    await until(() => load.answered() > 50)
    process.kill(victim, 'SIGKILL')
    await until(() => served.stderr().includes(`worker ${victim} ended (SIGKILL); another one starts`))
    await until(async () => (await metric('daemun_workers')) === 2)
    const { failed, answered } = await load.stop()
    // Only what was with it: each connection has one request at most.
    expect(failed).toBeLessThanOrEqual(4)
    expect(answered).toBeGreaterThan(50)
    expect(workersOf(served)).not.toContain(victim)
    expect(await metric('daemun_worker_ends_total{why="crashed"}')).toBeGreaterThanOrEqual(1)
  })

  it('are ended and followed by another one when their event loop stands still', async () => {
    await until(async () => (await readStatus()).workers?.every(({ answered }) => answered) ?? false)
    const [victim = 0] = workersOf(served)
    process.kill(victim, 'SIGSTOP')
    // Until then it is named, and what it told last is in the sums.
    const { workers } = await readStatus()
    expect(workers?.filter(({ answered }) => !answered).map(({ processId }) => processId)).toContain(victim)
    expect(await metric('daemun_workers_silent')).toBeGreaterThanOrEqual(1)
    expect((await post('/purge')).status).toBe(503)
    await until(() => served.stderr().includes(`worker ${victim} has not answered for 10000 ms and is ended`))
    await until(async () => (await metric('daemun_workers')) === 2)
    expect(workersOf(served)).not.toContain(victim)
  })

  it('take up a reload all together: no request fails, none sees two tables, no WebSocket is cut', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${served.port}/ws`, { headers: { Host: 'shop.example' } })
    await new Promise((resolve) => socket.once('open', resolve))
    const load = startLoad(served.port, { connections: 8 })
    for (let generation = 2; generation <= 11; generation++) {
      writeTable(generation)
      expect((await post('/reload')).status).toBe(200)
      expect((await ask('/')).body.toString()).toBe(`asked by generation ${generation}`)
    }
    const { failed, mixed, answered } = await load.stop()
    expect({ failed, mixed }).toEqual({ failed: 0, mixed: 0 })
    expect(answered).toBeGreaterThan(100)
    const said = new Promise((resolve) => socket.once('message', (data) => resolve(String(data))))
    socket.send('still there')
    expect(await said).toBe('still there')
    socket.terminate()
  })

  it('are replaced one after another: no request fails, also of clients that do not look before they write', async () => {
    const before = workersOf(served)
    const load = startLoad(served.port, { connections: 8 })
    const { code, stdout } = await runCli(['reload', '--replace', '--admin', new URL(served.adminUrl).host], { env })
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^✓ generation \d+ is served\n✓ 2 workers are new\n$/)])
    await until(() => workersOf(served).length === 2 && !workersOf(served).some((pid) => before.includes(pid)))
    const { failed, answered } = await load.stop()
    expect(failed).toBe(0)
    expect(answered).toBeGreaterThan(100)
  })

  it('that break hand over before they end with the requests they have', async () => {
    writeFileSync(
      join(folder.path, 'break-on-signal.cjs'),
      "if (process.argv[1].endsWith('worker-process.ts')) process.on('SIGUSR2', () => { throw new Error('planted') })",
    )
    const other = await serveCli(['shop.ts', '--workers', '2'], {
      folder: folder.path,
      env: { NODE_OPTIONS: '--require=./break-on-signal.cjs' },
    })
    const load = startLoad(other.port, { connections: 4 })
    const [victim = 0] = workersOf(other)
    process.kill(victim, 'SIGUSR2')
    await until(() => workersOf(other).length === 2 && !workersOf(other).includes(victim))
    expect(await load.stop()).toMatchObject({ failed: 0, mixed: 0 })
    expect(other.stderr()).toContain(`worker ${victim}: broken, ends: Error: planted`)
    expect(await other.stop()).toBe(0)
  })

  it('of a version that does not start change nothing for those that serve', async () => {
    writeFileSync(
      join(folder.path, 'fail-when-told.cjs'),
      "if (process.argv[1].endsWith('worker-process.ts') && require('node:fs').existsSync('bad-version')) process.exit(3)",
    )
    const other = await serveCli(['shop.ts', '--workers', '2'], {
      folder: folder.path,
      env: { NODE_OPTIONS: '--require=./fail-when-told.cjs' },
    })
    const before = workersOf(other)
    writeFileSync(join(folder.path, 'bad-version'), '')
    other.child.kill('SIGUSR2')
    await until(() => other.stderr().includes('a worker did not start'))
    expect((await get(other.port, 'http://shop.example/')).status).toBe(200)
    expect(workersOf(other)).toEqual(expect.arrayContaining(before))
    rmSync(join(folder.path, 'bad-version'))
    expect(await other.stop()).toBe(0)
  })

  it('that never start are given up with 1', async () => {
    writeFileSync(
      join(folder.path, 'fail-in-worker.cjs'),
      "if (process.argv[1].endsWith('worker-process.ts')) process.exit(3)",
    )
    const { code, stderr } = await runCli(['serve', 'shop.ts', '--workers', '2', '--http', ':0', '--admin', ':0'], {
      folder: folder.path,
      env: { NODE_OPTIONS: '--require=./fail-in-worker.cjs' },
    })
    expect(code).toBe(1)
    expect(stderr).toContain('a worker did not start')
  })
})
