import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import type { Status } from '#edge/status.ts'
import { createFolder, runCli, serveCli } from '../support/cli.ts'
import type { Served } from '../support/cli.ts'
import { get } from '../support/get.ts'
import type { Points } from '#edge/history.ts'
import { startLoad } from '../support/steady-load.ts'

/** `serve --workers`: what workers share, and what becomes of one that ends, hangs or breaks. */
const token = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='
const env = { DAEMUN_ADMIN_TOKEN: token }
const folder = createFolder({})
let origin: Server
let served: Served

beforeAll(async () => {
  origin = createServer((request, response) => response.end(`asked by ${String(request.headers['x-asked-by'])}`))
  new WebSocketServer({ server: origin }).on('connection', (socket) =>
    socket.on('message', (data) => socket.send(String(data))),
  )
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
  writeTable(1)
  served = await serveCli(['shop.ts', '--workers', '2'], { folder: folder.path, env })
})
afterEach(() => {
  expect(served.stderr()).not.toContain('internal error')
})
afterAll(async () => {
  expect(await served.stop()).toBe(0)
  expect(workersOf(served)).toEqual([])
  origin.closeAllConnections()
  origin.close()
  folder.remove()
})

/** Both directions of the row /* say which generation it is of. */
function writeTable(generation: number): void {
  const set = { 'X-Asked-By': `generation ${generation}` }
  const table = {
    name: 'shop',
    upstreams: { origin: { servers: [`http://127.0.0.1:${(origin.address() as AddressInfo).port}`] } },
    sites: [
      {
        hosts: ['shop.example'],
        routes: [
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
    // Connections of their own, so that both workers get some.
    for (let count = 0; count < 40; count++)
      expect((await get(served.port, 'http://shop.example/bad%00')).status).toBe(400)
    await until(async () => ((await readStatus()).traffic?.requests ?? 0) >= (before?.requests ?? 0) + 40)
    const status = await readStatus()
    expect(status).toMatchObject({ processId: served.child.pid, state: 'ready', tables: { generation: 1 } })
    expect(status.workers?.map(({ processId }) => processId).toSorted()).toEqual(workersOf(served).toSorted())
    expect(status.workers?.every(({ answered, state }) => answered && state === 'ready')).toBe(true)
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
    expect(workers?.filter(({ answered }) => !answered).map(({ processId }) => processId)).toEqual([victim])
    expect(await metric('daemun_workers_silent')).toBe(1)
    expect((await post('/purge')).status).toBe(503)
    await until(() => served.stderr().includes(`worker ${victim} has not answered for 10000 ms and is ended`))
    await until(async () => (await metric('daemun_workers')) === 2)
    expect(workersOf(served)).not.toContain(victim)
  }, 40_000)

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
