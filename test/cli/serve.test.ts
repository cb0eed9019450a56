import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createFolder, runCli, serveCli } from '../support/cli.ts'
import type { Served } from '../support/cli.ts'
import { readPrometheus } from '../support/prometheus.ts'

let origin: Server
let release: () => void = () => {}
const waiting = { count: 0 }
const folder = createFolder({})
const running: Served[] = []

beforeAll(async () => {
  origin = createServer((request, response) => {
    if (!request.url?.startsWith('/slow')) return response.end(`origin saw ${request.url}`)
    waiting.count++
    response.write('first, ')
    release = () => response.end('last')
    return undefined
  })
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
  const { port } = origin.address() as AddressInfo
  const table = {
    name: 'shop',
    upstreams: { core: { servers: [`http://127.0.0.1:${port}`] } },
    sites: [
      {
        hosts: ['shop.example'],
        routes: [
          { path: '/hello', respond: { status: 200, body: 'hello' } },
          { path: '/limited', limit: { by: 'address', requests: 1, per: '1 d' }, respond: { status: 200 } },
          { path: '/*', proxy: { to: 'core' } },
        ],
      },
    ],
  }
  writeFileSync(`${folder.path}/shop.ts`, `export default ${JSON.stringify(table)}\n`)
})

afterEach(async () => {
  await Promise.all(running.splice(0).map(async ({ child, closed }) => (child.kill('SIGKILL'), closed)))
})
afterAll(() => {
  folder.remove()
  origin.closeAllConnections()
  origin.close()
})

async function serve(args: string[] = [], env: Record<string, string> = {}): Promise<Served> {
  const served = await serveCli([...args, 'shop.ts'], { folder: folder.path, env })
  running.push(served)
  return served
}

/** One request on a connection of its own, as text; ends when the gateway closes it or `until` came. */
function ask(
  port: number,
  target: string,
  { host = 'shop.example', address = '127.0.0.1', keep = false } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, address)
    let text = ''
    socket.write(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${keep ? '' : 'Connection: close\r\n'}\r\n`)
    socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    socket.once('close', () => resolve(text))
    socket.once('error', reject)
  })
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 10))
}

describe('serve', () => {
  it('says where it listens, serves, and logs a line for each request', async () => {
    const served = await serve()
    expect(served.stderr()).toMatch(/^daemun takes requests on port \d+, operators on http:\/\/127\.0\.0\.1:\d+\n/)
    expect(await ask(served.port, '/hello')).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*hello$/)
    expect(await ask(served.port, '/x?token=hunter2')).toContain('origin saw /x?token=hunter2')
    expect(await served.stop()).toBe(0)
    const lines = served
      .stdout()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines).toMatchObject([
      { path: '/hello', status: 200, route: 'shop /hello' },
      { path: '/x', query: '?token=[redacted]', status: 200, upstream: 'shop/core' },
    ])
  })

  it('answers at .localhost twins in development only', async () => {
    const development = await serve()
    expect(await ask(development.port, '/hello', { host: 'shop.localhost' })).toContain('200 OK')
    expect(development.stderr()).toContain('*.localhost')
    const production = await serve([], { NODE_ENV: 'production' })
    expect(await ask(production.port, '/hello', { host: 'shop.localhost' })).toContain('421 ')
    expect(await ask(production.port, '/hello')).toContain('200 OK')
    expect(production.stderr()).not.toContain('localhost;')
  })

  it.each([
    ['[::1]:0', '::1'],
    ['127.0.0.1:0', '127.0.0.1'],
    [':0', '127.0.0.1'],
    ['0', '127.0.0.1'],
    ['0.0.0.0:0', '127.0.0.1'],
    ['localhost:0', 'localhost'],
  ])('listens on %s', async (http, address) => {
    const served = await serve(['--http', http])
    expect(await ask(served.port, '/hello', { address })).toContain('200 OK')
  })

  it.each([['--http'], ['--admin']])('says that the port of %s is taken, and ends with 2', async (option) => {
    const { port } = origin.address() as AddressInfo
    const other = option === '--http' ? ['--admin', ':0'] : ['--http', ':0']
    expect(await runCli(['serve', 'shop.ts', option, `127.0.0.1:${port}`, ...other], { folder: folder.path })).toEqual({
      code: 2,
      stdout: '',
      stderr: `✗ cannot listen on 127.0.0.1:${port}: another program listens there already; stop it or choose another port\n`,
    })
  })

  it('says that an address is not one of this machine, and ends with 2', async () => {
    const { code, stderr } = await runCli(['serve', 'shop.ts', '--http', '203.0.113.1:0', '--admin', ':0'], {
      folder: folder.path,
    })
    expect([code, stderr]).toEqual([2, '✗ cannot listen on 203.0.113.1:0: this machine has no such address\n'])
  })

  it('does not start with a faulty table', async () => {
    const { code, stderr } = await runCli(['serve'], { folder: folder.path })
    expect(code).toBe(2)
    expect(stderr).toContain('needs the variable HOMEWORK_HELPER_JWT_SECRET')
  })

  it('does not start with an environment that it cannot read', async () => {
    const env = { DAEMUN_TRUSTED_HOPS: '10.0.0.0/8,home' }
    const { code, stderr } = await runCli(['serve', 'shop.ts'], { folder: folder.path, env })
    expect([code, stderr]).toEqual([
      2,
      "✗ DAEMUN_TRUSTED_HOPS has 'home', which is no network: write it as 10.0.0.0/8 or 127.0.0.1\n",
    ])
  })

  it('does not start with a token for changes that others know', async () => {
    const env = { DAEMUN_ADMIN_TOKEN: 'changeme' }
    const { code, stderr } = await runCli(['serve', 'shop.ts'], { folder: folder.path, env })
    expect([code, stderr]).toEqual([
      2,
      "✗ DAEMUN_ADMIN_TOKEN is a published example: make one with 'openssl rand -base64 48'\n",
    ])
  })
})

describe('a stop', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)(
    'by %s lets open requests end, takes no new ones, and exits with 0',
    async (signal) => {
      const served = await serve()
      const { count } = waiting
      const slow = ask(served.port, '/slow', { keep: true })
      await until(() => waiting.count > count)
      const asked = performance.now()
      served.child.kill(signal)
      await until(async () => (await fetch(`${served.adminUrl}/readyz`)).status === 503)
      await expect(ask(served.port, '/hello')).rejects.toThrow('ECONNREFUSED')
      release()
      const text = await slow
      expect(text).toContain('first, ')
      expect(text).toContain('last')
      expect(text.endsWith('0\r\n\r\n')).toBe(true)
      expect(await served.closed).toBe(0)
      expect(performance.now() - asked).toBeLessThan(3_000)
      expect(served.stdout()).toContain('"path":"/slow"')
    },
  )

  it('does not wait for idle connections', async () => {
    const served = await serve()
    const idle = ask(served.port, '/hello', { keep: true })
    await until(() => served.stdout().includes('/hello'))
    const asked = performance.now()
    expect(await served.stop()).toBe(0)
    expect(performance.now() - asked).toBeLessThan(2_000)
    expect(await idle).toContain('hello')
  })
})

describe('an error that nobody catches', () => {
  it.each([
    ['thrown', "throw new Error('planted')"],
    ['of a promise', "void Promise.reject(new Error('planted'))"],
  ])('(%s) is said once and without secrets, lets open requests end, and exits with 1', async (_, breaks) => {
    writeFileSync(`${folder.path}/break-on-signal.cjs`, `process.on('SIGUSR2', () => { ${breaks} })`)
    const token = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='
    const served = await serve([], { NODE_OPTIONS: '--require=./break-on-signal.cjs', DAEMUN_ADMIN_TOKEN: token })
    const { count } = waiting
    const slow = ask(served.port, '/slow?token=planted-token', { keep: true })
    await until(() => waiting.count > count)
    served.child.kill('SIGUSR2')
    await until(() => served.stderr().includes('broken, ends: Error: planted\n    at '))
    served.child.kill('SIGUSR2')
    await until(async () => (await fetch(`${served.adminUrl}/readyz`)).status === 503)
    await expect(ask(served.port, '/hello')).rejects.toThrow('ECONNREFUSED')
    release()
    expect(await slow).toMatch(/first, [^]*last[^]*0\r\n\r\n$/)
    expect(await served.closed).toBe(1)
    expect(served.stderr().split('broken, ends')).toHaveLength(2)
    const output = served.stdout() + served.stderr()
    expect(output).toContain('"path":"/slow"')
    for (const secret of [token, 'planted-token']) expect(output).not.toContain(secret)
  })
})

describe('the admin listener', () => {
  it('answers healthz, readyz and metrics, and nothing else', async () => {
    const served = await serve()
    await ask(served.port, '/limited')
    await ask(served.port, '/limited')
    const get = async (path: string): Promise<[number, string]> => {
      const response = await fetch(`${served.adminUrl}${path}`)
      return [response.status, await response.text()]
    }
    expect(await get('/healthz')).toEqual([200, 'ok\n'])
    expect(await get('/readyz')).toEqual([200, 'ready\n'])
    expect((await get('/'))[0]).toBe(200)
    expect((await get('/hello'))[0]).toBe(404)
    const { families, samples } = readPrometheus((await get('/metrics'))[1])
    expect(families).toMatchObject({ daemun_requests_total: 'counter', daemun_client_connections: 'gauge' })
    const value = (name: string, labels: object): number | undefined =>
      samples.find((sample) => sample.name === name && JSON.stringify(sample.labels) === JSON.stringify(labels))?.value
    expect(
      value('daemun_requests_total', { table: 'shop', site: 'shop.example', route: 'shop /limited', status: '200' }),
    ).toBe(1)
    expect(
      value('daemun_requests_total', { table: 'shop', site: 'shop.example', route: 'shop /limited', status: '429' }),
    ).toBe(1)
    expect(
      value('daemun_limit_verdicts_total', {
        table: 'shop',
        site: 'shop.example',
        route: 'shop /limited',
        verdict: 'refused',
      }),
    ).toBe(1)
    expect(value('daemun_open_requests', {})).toBe(0)
  })

  it('has its own type, for scrapers', async () => {
    const served = await serve()
    const response = await fetch(`${served.adminUrl}/metrics`)
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  })
})

describe('the access log', () => {
  it('costs no request and no stop when nobody reads it', async () => {
    const served = await serve()
    served.child.stdout?.pause()
    const target = `/hello?${'x,'.repeat(3_000)}`
    for (let round = 0; round < 40; round++)
      await Promise.all(Array.from({ length: 5 }, () => ask(served.port, target)))
    expect(await ask(served.port, '/hello')).toContain('200 OK')
    const asked = performance.now()
    served.child.kill('SIGTERM')
    const code = await new Promise((resolve) => served.child.once('exit', resolve))
    expect(code).toBe(0)
    expect(performance.now() - asked).toBeLessThan(5_000)
  })
})
