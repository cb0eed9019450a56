import { ConfigError } from '../compile.ts'
import { UsageError } from '../node/config.ts'
import type { ReloadResult } from '../node/reload.ts'
import { askAdmin } from './ask-admin.ts'
import type { Admin } from './ask-admin.ts'

/** Has a running gateway read its tables again; what is wrong with them is thrown as if they had been read here. */
export async function reload(admin: Admin, replace: boolean): Promise<string> {
  const { answer } = await askAdmin(admin, '/reload')
  const result = answer as ReloadResult
  if (result.outcome === 'swapped')
    return [
      `✓ generation ${result.generation} is served`,
      ...result.notes,
      ...(replace ? [await replaceWorkers(admin)] : []),
      '',
    ].join('\n')
  process.stderr.write(`nothing has changed, generation ${result.generation} is served on\n`)
  if (result.faults.length > 0) throw new ConfigError(result.faults)
  throw new UsageError(result.problems.join('\n'))
}

/** Has new processes serve, which know the program as it is now; the old ones end with the requests they have. */
async function replaceWorkers(admin: Admin): Promise<string> {
  const { status, answer } = await askAdmin(admin, '/workers')
  const { detail, replaced } = answer as { detail?: string; replaced?: number }
  if (status !== 200) throw new UsageError(`no worker was replaced: ${detail}`)
  return `✓ ${replaced} workers are new`
}
