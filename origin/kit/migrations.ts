import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { Sql, Transaction } from './database.ts'
import { OriginError } from './error.ts'

type MigrationFile = { name: string; text: string; sha256: string }

/**
 * Brings `schema` up to date with the `.sql` files of `directory`, in the order of their names, in one
 * transaction under a lock, so that two programs may start at once. Returns the names it applied now. Throws
 * `migration_changed` when an applied file was edited, removed, or a new one sorts before it.
 */
export async function applyMigrations(sql: Sql, options: { schema: string; directory: URL }): Promise<string[]> {
  const files = await readMigrations(options.directory)
  return sql.begin(async (tx) => {
    const table = tx(`${options.schema}.migrations`)
    await takeLock(tx, options.schema)
    await tx`create schema if not exists ${tx(options.schema)}`
    await tx`create table if not exists ${table} (
      name text primary key, sha256 text not null, applied_at timestamptz not null default now())`
    const applied = await tx<{ name: string; sha256: string }[]>`select name, sha256 from ${table} order by name`
    checkHistory(files, applied)
    const pending = files.slice(applied.length)
    for (const { name, text, sha256 } of pending) {
      await tx.unsafe(text)
      await tx`insert into ${table} (name, sha256) values (${name}, ${sha256})`
    }
    return pending.map(({ name }) => name)
  })
}

async function readMigrations(directory: URL): Promise<MigrationFile[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(names.map((name) => readMigration(directory, name)))
}

async function readMigration(directory: URL, name: string): Promise<MigrationFile> {
  // A checkout may have turned the line ends; that is not a change.
  const text = (await readFile(new URL(name, directory), 'utf8')).replaceAll('\r\n', '\n')
  return { name, text, sha256: createHash('sha256').update(text).digest('hex') }
}

async function takeLock(tx: Transaction, schema: string): Promise<void> {
  await tx`select pg_advisory_xact_lock(hashtextextended(${`migrations of ${schema}`}, 0))`
}

function checkHistory(files: MigrationFile[], applied: readonly { name: string; sha256: string }[]): void {
  for (const [index, { name, sha256 }] of applied.entries()) {
    const file = files.find((candidate) => candidate.name === name)
    if (!file) throw changed(`${name} was applied to this database but its file is gone`)
    if (file.sha256 !== sha256) throw changed(`${name} was edited after it was applied`)
    if (files[index] !== file) throw changed(`${files[index]?.name} sorts before ${name}, which is applied already`)
  }
}

function changed(what: string): OriginError {
  return new OriginError('migration_changed', `${what}. Restore the file, and write a new migration for the change.`)
}
