import type { ChildProcess } from 'node:child_process'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import postgres from 'postgres'
import { findFreePort } from './free-port.ts'

/** A PostgreSQL server, or a database on one, that belongs to the test that opened it; `stop` may come twice. */
export type TestPostgres = { url: string; stop(): Promise<void> }

/** Why no real server can be used here; undefined when one can. For `describe.skipIf` and the line it prints. */
export const missingPostgres: string | undefined =
  process.env.TEST_DATABASE_URL || findBinaries()
    ? undefined
    : 'no PostgreSQL here: install it (Debian: postgresql) or set TEST_DATABASE_URL'

/**
 * Makes a database nobody else uses: on the server of TEST_DATABASE_URL when that is set, else on a private
 * server started from the binaries found, in a temporary folder. `stop` removes it.
 */
export async function startPostgres(): Promise<TestPostgres> {
  const url = process.env.TEST_DATABASE_URL
  if (url) return createThrowAwayDatabase(url)
  const binaries = findBinaries()
  if (!binaries) throw new Error(missingPostgres)
  return startPrivateServer(binaries)
}

async function createThrowAwayDatabase(url: string): Promise<TestPostgres> {
  const name = `daemun_test_${crypto.randomUUID().replaceAll('-', '')}`
  const sql = postgres(url, { max: 1, onnotice() {} })
  await sql`create database ${sql(name)}`
  let stopped = false
  return {
    url: Object.assign(new URL(url), { pathname: `/${name}` }).href,
    async stop() {
      if (stopped) return
      stopped = true
      await sql`drop database ${sql(name)} with (force)`
      await sql.end()
    },
  }
}

async function startPrivateServer(binaries: string): Promise<TestPostgres> {
  const directory = mkdtempSync(join(tmpdir(), 'daemun-postgres-'))
  const owner = findOwner()
  if (owner) chownSync(directory, owner.uid, owner.gid)
  const data = join(directory, 'data')
  const initdb = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']
  execFileSync(join(binaries, 'initdb'), initdb, { ...owner, cwd: directory, stdio: 'ignore' })

  const port = await findFreePort()
  const settings = ['fsync=off', 'listen_addresses=127.0.0.1', `port=${port}`, `unix_socket_directories=${directory}`]
  const words = ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]
  const server = spawn(join(binaries, 'postgres'), words, {
    ...owner,
    cwd: directory,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const killNow = () => server.kill('SIGKILL')
  process.once('exit', killNow)
  await untilReady(server)
  return { url: `postgresql://postgres@127.0.0.1:${port}/postgres`, stop }

  async function stop(): Promise<void> {
    if (server.exitCode !== null) return
    const exited = once(server, 'exit')
    server.kill('SIGINT')
    await exited
    process.off('exit', killNow)
    rmSync(directory, { recursive: true, force: true })
  }
}

// The server refuses to run as root.
function findOwner(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const idOf = (flag: string, user: string) =>
    Number(execFileSync('id', [flag, user], { stdio: ['ignore', 'pipe', 'ignore'] }))
  for (const user of ['postgres', 'nobody']) {
    try {
      return { uid: idOf('-u', user), gid: idOf('-g', user) }
    } catch {}
  }
  return { uid: 65_534, gid: 65_534 }
}

async function untilReady(server: ChildProcess): Promise<void> {
  const said: string[] = []
  const lines = createInterface({ input: server.stderr! })
  await new Promise<void>((resolve, reject) => {
    server.once('exit', () => reject(new Error(`postgres did not start:\n${said.join('\n')}`)))
    lines.on('line', (line) => {
      said.push(line)
      if (line.includes('ready to accept connections')) resolve()
    })
  })
}

function findBinaries(): string | undefined {
  const onPath = (process.env.PATH ?? '').split(delimiter)
  return [...debianDirectories(), ...onPath].find((directory) =>
    ['postgres', 'initdb'].every((name) => directory && existsSync(join(directory, name))),
  )
}

function debianDirectories(): string[] {
  const root = '/usr/lib/postgresql'
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : []
  return versions.map((version) => join(root, version, 'bin'))
}
