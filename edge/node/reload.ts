import { ConfigError, toFaultLine } from '../compile.ts'
import type { Fault } from '../compile.ts'
import type { Gauge } from '../metrics.ts'
import { UsageError } from './config.ts'

/** What became of reading the tables again. */
export type ReloadResult =
  | { outcome: 'swapped'; generation: number; notes: string[] }
  | { outcome: 'refused'; generation: number; faults: Fault[]; problems: string[] }

export interface Reloader {
  /** One at a time, in the order that they were asked for. Never rejects. */
  reload(): Promise<ReloadResult>
  gauges(): Gauge[]
}

export interface ReloaderOptions {
  /**
   * Reads the tables, checks them and serves by them from then on. Resolves to what else an operator should know;
   * rejects with what is wrong, and has then changed nothing.
   */
  change: () => Promise<string[]>
  report: (line: string) => void
  /** Milliseconds since the epoch. */
  now?: () => number
}

export function createReloader({ change, report, now = Date.now }: ReloaderOptions): Reloader {
  let generation = 1
  let last = { successful: true, at: now() }
  const counts = { swapped: 0, refused: 0 }
  let running: Promise<unknown> = Promise.resolve()

  async function run(): Promise<ReloadResult> {
    const result = await change().then(
      (notes): ReloadResult => ({ outcome: 'swapped', generation: ++generation, notes }),
      (error: unknown): ReloadResult => ({ outcome: 'refused', generation, ...toFaults(error) }),
    )
    counts[result.outcome]++
    last = { successful: result.outcome === 'swapped', at: now() }
    for (const line of toReport(result)) report(line)
    return result
  }

  return {
    reload: () => {
      const next = running.then(run)
      running = next
      return next
    },
    gauges: () => [
      {
        name: 'daemun_config_generation',
        help: 'How often tables were taken up, the first time included.',
        value: generation,
      },
      {
        name: 'daemun_config_last_reload_successful',
        help: 'Whether the tables that were read last are served: 1, or 0 while those from before are.',
        value: Number(last.successful),
      },
      {
        name: 'daemun_config_last_reload_timestamp_seconds',
        help: 'When tables were read last.',
        value: last.at / 1_000,
      },
      {
        name: 'daemun_config_reloads_total',
        help: 'Reloads by their outcome.',
        type: 'counter',
        value: Object.entries(counts).map(([outcome, value]) => ({ labels: { outcome }, value })),
      },
    ],
  }
}

function toFaults(error: unknown): { faults: Fault[]; problems: string[] } {
  if (error instanceof ConfigError) return { faults: error.faults, problems: [] }
  if (error instanceof UsageError) return { faults: [], problems: error.message.split('\n') }
  return { faults: [], problems: [error instanceof Error ? (error.stack ?? error.message) : String(error)] }
}

function toReport(result: ReloadResult): string[] {
  const { generation } = result
  if (result.outcome === 'swapped') return [`reload: generation ${generation} is served`, ...result.notes]
  const faults = [...result.problems, ...result.faults.map(toFaultLine)]
  return [`reload: refused, generation ${generation} is served on`, ...faults]
}
