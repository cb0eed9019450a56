import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { Redis } from 'ioredis'

const binary = findBinary(['redis-server', 'valkey-server'])
const givenUrl = process.env.TEST_REDIS_URL

/** Why tests on a Redis are skipped, for their title; undefined when they run. */
export const noRedis =
  (binary ?? givenUrl) ? undefined : 'skipped: no redis-server on PATH and TEST_REDIS_URL is not set'

/** The same for tests that kill or stop the server, which needs one of their own. */
export const noPrivateRedis = binary ? undefined : 'skipped: no redis-server on PATH'

export interface TestRedis {
  /** What `createRedisLimiter` and ioredis connect to. */
  url: string
  /** What every key of this test begins with. */
  prefix: string
  /** Deletes this test's keys and stops a private server. */
  stop(): Promise<void>
}

/** The server at TEST_REDIS_URL, or a private one. */
export async function openRedis(): Promise<TestRedis> {
  if (givenUrl === undefined) return startPrivateRedis()
  const prefix = createPrefix()
  return { url: givenUrl, prefix, stop: () => deleteKeys(givenUrl, `${prefix}*`) }
}

export interface PrivateRedis extends TestRedis {
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void
  /** Ends it as a crash would; its data is gone. */
  kill(): Promise<void>
  /** Starts it again at the same place. */
  restart(): Promise<void>
}

/** A server of the test's own: in a temporary folder, on a socket there, keeping nothing. */
export async function startPrivateRedis(): Promise<PrivateRedis> {
  const folder = mkdtempSync(join(tmpdir(), 'redis-'))
  const socket = join(folder, 's')
  let server = await start(folder, socket)
  const kill = async (): Promise<void> => {
    const ended = once(server, 'exit')
    if (server.kill('SIGKILL')) await ended
  }
  return {
    url: socket,
    prefix: createPrefix(),
    signal: (signal) => void server.kill(signal),
    kill,
    async restart() {
      server = await start(folder, socket)
    },
    async stop() {
      await kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function start(folder: string, socket: string): Promise<ChildProcess> {
  if (binary === undefined) throw new Error('there is no redis-server')
  const settings = ['--port', '0', '--unixsocket', socket, '--dir', folder, '--save', '', '--appendonly', 'no']
  const server = spawn(binary, settings, { stdio: ['ignore', 'pipe', 'inherit'] })
  const killWithTests = (): void => void server.kill('SIGKILL')
  process.once('exit', killWithTests)
  server.once('exit', () => process.off('exit', killWithTests))
  let output = ''
  for await (const chunk of server.stdout.iterator({ destroyOnReturn: false })) {
    output += String(chunk)
    if (output.includes('eady to accept connections')) {
      server.stdout.resume()
      return server
    }
  }
  throw new Error(`redis-server did not start:\n${output}`)
}

async function deleteKeys(url: string, pattern: string): Promise<void> {
  const redis = new Redis(url)
  for await (const keys of redis.scanStream({ match: pattern, count: 1_000 })) {
    if (Array.isArray(keys) && keys.length > 0) await redis.del(keys)
  }
  redis.disconnect()
}

const createPrefix = (): string => `daemun-test-${randomBytes(6).toString('hex')}`

function findBinary(names: string[]): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '')
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
