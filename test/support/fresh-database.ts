import { cpSync, existsSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { lockDirectory } from '#origin/kit/directory-lock.ts'
import type { DirectoryLock } from '#origin/kit/directory-lock.ts'
import { openEmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { OriginError } from '#origin/kit/error.ts'

const packages = new URL('../../node_modules/', import.meta.url)
const { version } = JSON.parse(readFileSync(new URL('@electric-sql/pglite/package.json', packages), 'utf8')) as {
  version: string
}
const kept = fileURLToPath(new URL(`.cache/daemun-test/pglite-${version}`, packages))

/**
 * Makes `directory` the one of an embedded database that was opened once and closed: a copy of a kept one, since
 * making one takes seconds of a core. What a database does on its first start is the fact of compose/embedded.test.ts.
 */
export async function copyFreshDatabase(directory: string): Promise<void> {
  if (!existsSync(kept)) await keepOne()
  cpSync(kept, directory, { recursive: true })
}

/** One process makes it, and the others wait. */
async function keepOne(): Promise<void> {
  const lock = await waitForLock()
  try {
    if (existsSync(kept)) return
    const making = `${kept}.making`
    rmSync(making, { recursive: true, force: true })
    const database = await openEmbeddedPostgres({ directory: making })
    await database.close()
    renameSync(making, kept)
  } finally {
    lock.release()
  }
}

async function waitForLock(): Promise<DirectoryLock> {
  for (;;) {
    try {
      return lockDirectory(kept)
    } catch (error) {
      if (!(error instanceof OriginError) || error.code !== 'directory_in_use') throw error
      await wait(50)
    }
  }
}
