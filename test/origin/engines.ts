import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Database } from '#origin/kit/database.ts'
import { openDatabase } from '#origin/kit/database.ts'
import type { EmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { openEmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { copyFreshDatabase } from '../support/fresh-database.ts'
import { missingPostgres, startPostgres } from '../support/postgres.ts'

/** A running database of one kind; `url` or `embedded` says how a program reaches it. */
export type RunningEngine = {
  url?: string
  embedded?: EmbeddedPostgres
  connect(): Database
  /** Stops it; again does nothing. */
  close(): Promise<void>
}

/** The kinds of database every database test runs on; `missing` is why one cannot run here. */
export const engines = [
  { name: 'the embedded database', missing: undefined, open: openEmbedded },
  {
    name: `a PostgreSQL server${missingPostgres ? ` (${missingPostgres})` : ''}`,
    missing: missingPostgres,
    open: openServer,
  },
]

/** A folder of its own for one test; `remove` deletes it. */
export function makeFolder(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'daemun-origin-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

async function openEmbedded(): Promise<RunningEngine> {
  const folder = makeFolder()
  const directory = join(folder.path, 'postgres')
  await copyFreshDatabase(directory)
  const embedded = await openEmbeddedPostgres({ directory })
  return {
    embedded,
    connect: () => openDatabase({ name: 'test', embedded }),
    async close() {
      await embedded.close()
      folder.remove()
    },
  }
}

export async function openServer(): Promise<RunningEngine> {
  const { url, stop } = await startPostgres()
  return { url, connect: () => openDatabase({ name: 'test', url }), close: stop }
}
