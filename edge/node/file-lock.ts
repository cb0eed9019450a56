import { DatabaseSync } from 'node:sqlite'

export interface FileLock {
  release(): void
}

/**
 * Takes a lock that one process at a time can have; 'taken': another one has it. It is a byte-range lock that SQLite
 * takes on an empty file: the operating system lets go of it however its holder dies, so that none is ever stale.
 * Throws when there can be no such file.
 */
export function takeFileLock(path: string): FileLock | 'taken' {
  const database = new DatabaseSync(path)
  try {
    database.exec('BEGIN EXCLUSIVE')
    return { release: () => database.close() }
  } catch (error) {
    database.close()
    // SQLITE_BUSY
    if (error instanceof Error && 'errcode' in error && error.errcode === 5) return 'taken'
    throw error
  }
}
