import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { copyFreshDatabase } from '../support/fresh-database.ts'

const directory = mkdtempSync(join(tmpdir(), 'daemun-embedded-'))
const children = new Set<ChildProcess>()

/** What runs from the first fact to the last. */
let system: Awaited<ReturnType<typeof start>>

afterAll(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(directory, { recursive: true, force: true })
})

describe('the embedded system', () => {
  it('takes a newcomer from registering to rows that outlive an ordinary stop and a kill', async () => {
    const first = await start()
    const registered = await ask(first.port, 'POST', '/api/v1/auth/register', {
      username: 'mina',
      email: 'mina@example.com',
      password: 'a long password',
    })
    expect(registered.status).toBe(201)
    const login = await ask(first.port, 'POST', '/api/v1/auth/login', { username: 'mina', password: 'a long password' })
    const token = String(login.body['access_token'])
    const session = { game_name: 'Star Rail', start_ts: '2026-11-21T01:00:00Z' }
    expect((await ask(first.port, 'POST', '/api/v1/sessions', session, token)).status).toBe(201)

    first.child.kill('SIGINT')
    expect(await once(first.child, 'exit')).toEqual([0, null])

    // The token outlives the restart too: its secret was kept.
    const second = await start()
    expect((await ask(second.port, 'POST', '/api/v1/sessions', { ...session, game_name: 'ZZZ' }, token)).status).toBe(
      201,
    )
    second.child.kill('SIGKILL')
    await once(second.child, 'exit')

    system = await start()
    const synced = await ask(system.port, 'GET', `/api/v1/sync/${registered.body['id']}`, undefined, token)
    expect((synced.body['sessions'] as { game_name: string }[]).map(({ game_name }) => game_name)).toEqual([
      'Star Rail',
      'ZZZ',
    ])
  }, 120_000)

  it('prints five URLs, answers 502 for services that are not there, and keeps its secrets to itself', async () => {
    const { port, output } = system
    for (const name of ['homework-helper', 'cowrite', 'moviesir', 'maratang', 'spc'])
      expect(output()).toContain(`http://${name}.localhost:${port}/`)
    const answer = await ask(port, 'POST', '/api/auth/login', {}, undefined, 'cowrite.localhost')
    expect(answer.status).toBe(502)
    expect(answer.body).toMatchObject({
      statusCode: 502,
      message: expect.any(String),
      requestId: expect.any(String),
      route: 'cowrite /api/auth/*',
    })
    expect(statSync(join(directory, 'secrets.json')).mode & 0o077).toBe(0)
    const logOf = () => readFileSync(join(directory, 'access.log'), 'utf8')
    await expect.poll(logOf).toContain('cowrite /api/auth/*')
    const secrets = Object.values(
      JSON.parse(readFileSync(join(directory, 'secrets.json'), 'utf8')) as Record<string, string>,
    )
    const logged = logOf() + output()
    for (const secret of secrets) expect(logged).not.toContain(secret)
  }, 120_000)

  it('refuses to start a second copy on the same data, and says why', async () => {
    const second = run()
    const [code] = (await once(second.child, 'exit')) as [number]
    expect(code).not.toBe(0)
    expect(second.output()).toMatch(/postgres/)
    expect(second.output()).toMatch(/\bpid\b|process \d+/i)
    expect(second.output()).not.toMatch(/\n\s+at /)
  }, 120_000)

  it('says so in a line when its port is taken', async () => {
    const { port } = system
    const elsewhere = join(directory, 'other')
    await copyFreshDatabase(join(elsewhere, 'postgres'))
    const other = run({ PORT: String(port), DATA_DIRECTORY: elsewhere })
    const [code] = (await once(other.child, 'exit')) as [number]
    expect(code).toBe(2)
    expect(other.output()).toContain(`cannot listen on 127.0.0.1:${port}`)
  }, 120_000)

  it('ends in good order when it is told to', async () => {
    system.child.kill('SIGTERM')
    expect(await once(system.child, 'exit')).toEqual([0, null])
  }, 120_000)
})

interface Running {
  child: ChildProcess
  output(): string
}

function run(environment: Record<string, string> = {}): Running {
  const child = spawn(process.execPath, ['compose/embedded.ts'], {
    env: { PATH: process.env['PATH'] ?? '', PORT: '0', DATA_DIRECTORY: directory, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.add(child)
  child.once('exit', () => children.delete(child))
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (text += chunk.toString()))
  return { child, output: () => text }
}

async function start(): Promise<Running & { port: number }> {
  const running = run()
  const up = new Promise<void>((resolve, reject) => {
    running.child.stdout?.on('data', () => {
      if (running.output().includes('Ctrl-C')) resolve()
    })
    running.child.once('exit', () => reject(new Error(running.output())))
  })
  await up
  return { ...running, port: Number(/homework-helper\.localhost:(\d+)/.exec(running.output())?.[1]) }
}

interface Answer {
  status: number
  body: Record<string, unknown>
}

function ask(
  port: number,
  method: string,
  path: string,
  body?: unknown,
  token?: string,
  host = 'homework-helper.localhost',
): Promise<Answer> {
  const text = body === undefined ? undefined : JSON.stringify(body)
  const headers = {
    host: `${host}:${port}`,
    ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    ...(token !== undefined && { authorization: `Bearer ${token}` }),
  }
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, method, path, headers }, (answer) => {
      let received = ''
      answer.on('data', (chunk: Buffer) => (received += chunk.toString()))
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, body: JSON.parse(received) as Record<string, unknown> }),
      )
    })
    asked.on('error', reject)
    asked.end(text)
  })
}
