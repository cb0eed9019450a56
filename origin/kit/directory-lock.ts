import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { OriginError } from './error.ts'

export type DirectoryLock = { release(): void }

/**
 * Takes `<directory>.lock` for this process, or throws `directory_in_use` naming the directory, the owner and
 * what to do. The lock is a byte-range lock that SQLite takes on an empty file, so the operating system lets go
 * of it however the process dies, on every platform, and a process id that was reused cannot fool it.
 */
export function lockDirectory(directory: string): DirectoryLock {
  mkdirSync(dirname(directory), { recursive: true })
  const lock = new DatabaseSync(`${directory}.lock`)
  try {
    lock.exec('BEGIN EXCLUSIVE')
  } catch (cause) {
    lock.close()
    if (!isBusy(cause)) throw cause
    throw new OriginError('directory_in_use', inUseMessage(directory), { cause })
  }
  writeFileSync(ownerFile(directory), JSON.stringify({ pid: process.pid, startedAt: startedAt() }))
  return {
    release() {
      rmSync(ownerFile(directory), { force: true })
      lock.close()
    },
  }
}

// SQLITE_BUSY
function isBusy(cause: unknown): boolean {
  return cause instanceof Error && 'errcode' in cause && cause.errcode === 5
}

function inUseMessage(directory: string): string {
  const { pid, startedAt: started } = readOwner(directory)
  return [
    `The data directory ${directory} is in use by process ${pid}, started ${started}.`,
    'Two copies writing to it would destroy it.',
    `Stop that process (kill ${pid}), give this copy another directory, or set DATABASE_URL to a PostgreSQL server.`,
  ].join(' ')
}

// The owner file is beside the lock, not in it: opening and closing the lock file by hand would drop the lock.
function readOwner(directory: string): { pid: number | string; startedAt: string } {
  try {
    return JSON.parse(readFileSync(ownerFile(directory), 'utf8'))
  } catch {
    return { pid: 'unknown', startedAt: 'at an unknown time' }
  }
}

function ownerFile(directory: string): string {
  return `${directory}.owner.json`
}

function startedAt(): string {
  return new Date(Date.now() - process.uptime() * 1000).toISOString()
}
