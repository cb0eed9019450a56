import type { Config } from '../node/config.ts'
import { askAdmin } from './ask-admin.ts'
import type { CommandLine } from './command-line.ts'

/** Has a running gateway forget answers; says how many that were. */
export async function purge({ selector, admin }: CommandLine, config: Config): Promise<string> {
  const { purged } = await askAdmin('/purge', selector, { admin, config })
  return `${Number(purged)} ${purged === 1 ? 'answer' : 'answers'} forgotten\n`
}
