import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Secrets that nobody has set, made once and kept in `secrets.json` of the data directory, so that tokens outlive a
 * restart. Returns those that were asked for.
 */
export function keepSecrets(directory: string, names: string[]): Record<string, string> {
  const file = join(directory, 'secrets.json')
  const kept: Record<string, string> = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}
  const missing = names.filter((name) => kept[name] === undefined)
  const all = { ...kept, ...Object.fromEntries(missing.map((name) => [name, randomBytes(48).toString('base64')])) }
  if (missing.length > 0) writeWhole(file, directory, `${JSON.stringify(all, null, 2)}\n`)
  return Object.fromEntries(names.map((name) => [name, all[name] ?? '']))
}

/** Written beside and renamed, so that a crash leaves the old file or the new one. */
function writeWhole(file: string, directory: string, text: string): void {
  mkdirSync(directory, { recursive: true })
  writeFileSync(`${file}.new`, text, { mode: 0o600, flush: true })
  renameSync(`${file}.new`, file)
  chmodSync(file, 0o600)
}
