import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startOrigins } from '#origin/systems.ts'
import type { TestUser } from './client.ts'
import { createClient } from './client.ts'
import { copyFreshDatabase } from '../support/fresh-database.ts'
import { makeFolder } from './engines.ts'

const program = fileURLToPath(new URL('../../origin/main.ts', import.meta.url))
const secret = 'f3b1c2d4e5a60718293a4b5c6d7e8f90'
const start_ts = '2026-01-31T09:00:00Z'

type Run = { process: ChildProcess; url: string; exit: Promise<number | null> }
const folder = makeFolder()
const runs: ChildProcess[] = []

beforeAll(() => copyFreshDatabase(join(folder.path, 'postgres')))
afterEach(async () => {
  const alive = runs.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)
  await Promise.all(alive.map((run) => (run.kill('SIGKILL'), once(run, 'exit'))))
})

afterAll(() => folder.remove())

describe('the origin program', () => {
  it('keeps what it acknowledged through kill -9, refuses a second copy, and drains on SIGTERM', async () => {
    const first = await start()
    const user = await createClient(first.url).signUp('phone')
    const acknowledged = await uploadUntilKilled(first, user)
    expect(acknowledged.length).toBeGreaterThan(20)

    const second = await start()
    const stored = await downloadAll(createClient(second.url), user)
    expect(acknowledged.filter((id) => !stored.has(id))).toEqual([])

    const copy = launch()
    expect(await copy.exit).toBe(1)
    expect(await copy.errors).toContain(`${join(folder.path, 'postgres')} is in use by process ${second.process.pid}`)

    // Twice, as it comes when a terminal and the program that started this one both pass it on.
    second.process.kill('SIGTERM')
    second.process.kill('SIGTERM')
    expect(await second.exit).toBe(0)

    const environment = { HOMEWORK_HELPER_JWT_SECRET: secret }
    const { origins, stop } = await startOrigins({
      systems: ['homework-helper'],
      dataDirectory: folder.path,
      environment,
      log: () => {},
    })
    const url = expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/)
    expect(origins).toEqual([{ system: 'homework-helper', url, embedded: ['postgres'] }])
    expect((await downloadAll(createClient(origins[0]!.url), user)).size).toBe(stored.size)
    await stop()
    await expect(fetch(origins[0]!.url)).rejects.toThrow()
  }, 60_000)

  it('exits with 2 and every fault of its configuration at once', async () => {
    const { exit, errors } = launch({
      HOMEWORK_HELPER_JWT_SECRET: 'changeme',
      JWT_ALGORITHM: 'none',
      CORS_ORIGINS: '*',
    })
    expect(await exit).toBe(2)
    const text = await errors
    for (const name of ['HOMEWORK_HELPER_JWT_SECRET', 'JWT_ALGORITHM', 'CORS_ORIGINS']) expect(text).toContain(name)
    expect(text).not.toContain('changeme')
  })
})

async function uploadUntilKilled({ process, exit }: Run, user: TestUser): Promise<string[]> {
  const acknowledged: string[] = []
  const upload = async () => {
    for (;;) {
      const id = crypto.randomUUID()
      const { status } = await user.post('/api/v1/sessions', { id, start_ts })
      if (status === 201) acknowledged.push(id)
      if (acknowledged.length === 60) process.kill('SIGKILL')
    }
  }
  await Promise.all(Array.from({ length: 4 }, () => upload().catch(() => 'the server is gone')))
  await exit
  return acknowledged
}

async function downloadAll(
  { request }: ReturnType<typeof createClient>,
  { id, token }: TestUser,
): Promise<Set<string>> {
  const { body } = await request('GET', `/api/v1/sync/${id}?limit=1000`, undefined, { token })
  return new Set(body.sessions.map((session: { id: string }) => session.id))
}

async function start(): Promise<Run> {
  const { child, exit, errors } = launch()
  for await (const line of createInterface({ input: child.stdout! })) {
    const entry = JSON.parse(line)
    if (entry.event === 'listening') return { process: child, url: entry.url, exit }
  }
  throw new Error(`the program did not start: ${await errors}`)
}

function launch(environment: Record<string, string> = {}) {
  const env = { HOMEWORK_HELPER_JWT_SECRET: secret, API_PORT: '0', DATA_DIRECTORY: folder.path, ...environment }
  const child = spawn(process.execPath, [program, 'homework-helper'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  runs.push(child)
  const exit = once(child, 'exit').then(([code]) => code as number | null)
  const errors = child.stderr.toArray().then((chunks) => Buffer.concat(chunks).toString())
  return { child, exit, errors }
}
