import { UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'
import { askAdmin } from './ask-admin.ts'
import type { CommandLine } from './command-line.ts'

/** Has a running gateway forget answers; says how many that were. */
export async function purge({ selector, admin }: CommandLine, { adminToken }: Config): Promise<string> {
  const { status, answer } = await askAdmin({ ...admin, token: adminToken }, '/purge', selector)
  const { purged, detail } = answer as { purged?: number; detail?: string }
  if (status !== 200) throw new UsageError(detail ?? `the gateway answered ${status}`)
  return `${purged} ${purged === 1 ? 'answer' : 'answers'} forgotten\n`
}
