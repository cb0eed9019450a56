import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { CompiledSplit } from '../compile.ts'
import { limits } from '../limits.ts'
import type { Gauge, Sample } from '../metrics.ts'
import { isRecord } from '../shape.ts'
import { createSplitControl } from '../upstreams/split-control.ts'
import type { SavedSplits, SplitControl } from '../upstreams/split-control.ts'
import { createSplitTally } from '../upstreams/split-tally.ts'
import type { SplitReport, SplitTally } from '../upstreams/split-tally.ts'

/** The splits of one process that serves; alone, it decides about them too, and reports to itself. */
export interface Splits {
  tally: SplitTally
  /** undefined: somebody else decides. */
  control: SplitControl | undefined
  gauges(): Gauge[]
  /** Serves these from now on. */
  keep(splits: CompiledSplit[]): void
  stop(): void
}

/** By their ids. */
export type SplitWeights = Record<string, readonly number[]>

export interface SplitsOptions extends Pick<DecidingOptions, 'splits' | 'report' | 'directory' | 'judgeMs'> {
  /** Somebody else decides about the weights, from these to begin with. */
  weights?: SplitWeights | undefined
}

export function startSplits({ weights, ...options }: SplitsOptions): Splits {
  const tally = createSplitTally(options.splits)
  for (const [id, given] of Object.entries(weights ?? {})) tally.setWeights(id, given)
  const deciding = weights
    ? undefined
    : startDeciding({ ...options, apply: tally.setWeights, takeReports: () => tally.takeReports() })
  return {
    tally,
    control: deciding?.control,
    gauges: () => toGauges(tally),
    keep: (splits) => {
      tally.keep(splits)
      deciding?.control.keep(splits)
    },
    stop: () => deciding?.stop(),
  }
}

export interface DecidingOptions {
  splits: CompiledSplit[]
  /** Takes a line for each change. */
  report: (line: string) => void
  /** The folder in which changes outlive the process; undefined: they do not. */
  directory: string | undefined
  judgeMs?: number | undefined
  /** Brings weights to every process that serves. */
  apply: (id: string, weights: readonly number[]) => void
  /** What those processes have counted since the last time. */
  takeReports: () => SplitReport[] | Promise<SplitReport[]>
}

/** Decides about splits, here or in other processes. */
export function startDeciding(options: DecidingOptions): { control: SplitControl; stop(): void } {
  const { splits, report, directory, judgeMs = limits.rolloutJudgeMs, apply, takeReports } = options
  const control = createSplitControl({
    splits,
    now: () => performance.now(),
    apply,
    report,
    ...(directory !== undefined && {
      saved: load(directory, report),
      save: (saved: SavedSplits) => store(directory, saved, report),
    }),
  })
  const timer = setInterval(() => void look(), judgeMs).unref()

  async function look(): Promise<void> {
    if (!control.isJudging()) return
    control.observe(await takeReports())
    control.judge()
  }

  return { control, stop: () => clearInterval(timer) }
}

const fileOf = (directory: string): string => join(directory, 'splits.json')

/** What cannot be read is as if it were not there: the tables say what holds then. */
function load(directory: string, report: (line: string) => void): SavedSplits {
  try {
    const data: unknown = JSON.parse(readFileSync(fileOf(directory), 'utf8'))
    if (!isRecord(data) || !Object.values(data).every(isSaved)) throw new Error('it is not what was written')
    return data as SavedSplits
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return {}
    report(`splits: ${fileOf(directory)} is not used, ${String(error)}: the weights are those of the tables`)
    return {}
  }
}

const isSaved = (entry: unknown): boolean =>
  isRecord(entry) &&
  typeof entry['declared'] === 'string' &&
  ['table', 'by hand', 'rolling', 'done', 'rolled back'].includes(String(entry['state'])) &&
  Array.isArray(entry['weights']) &&
  entry['weights'].every((weight) => typeof weight === 'number' && weight >= 0)

/** Whole or not at all: written beside it, then put into its place. */
function store(directory: string, saved: SavedSplits, report: (line: string) => void): void {
  const file = fileOf(directory)
  try {
    mkdirSync(directory, { recursive: true })
    writeFileSync(`${file}.new`, `${JSON.stringify(saved, null, 2)}\n`, { flush: true })
    renameSync(`${file}.new`, file)
  } catch (error) {
    report(`splits: ${file} cannot be written, ${String(error)}: the change holds until the gateway ends`)
  }
}

/** No lines before there is a split. */
function toGauges(tally: SplitTally): Gauge[] {
  const totals = tally.totals()
  if (totals.length === 0) return []
  const ofSides = (value: (one: (typeof totals)[number], index: number) => number): Sample[] =>
    totals.flatMap((one) =>
      one.split.sides.map(({ name }, index) => ({
        labels: { upstream: one.split.id, side: name },
        value: value(one, index),
      })),
    )
  return [
    {
      name: 'daemun_split_weight',
      help: 'What a side of an upstream gets, compared with the others.',
      value: ofSides(({ weights }, index) => weights[index] ?? 0),
    },
    {
      name: 'daemun_split_requests_total',
      type: 'counter',
      help: 'Requests that ended, by side.',
      value: ofSides(({ sides }, index) => sides[index]?.requests ?? 0),
    },
    {
      name: 'daemun_split_failures_total',
      type: 'counter',
      help: 'Those of them that got 5xx or no whole answer.',
      value: ofSides(({ sides }, index) => sides[index]?.failures ?? 0),
    },
    {
      name: 'daemun_split_upstream_seconds_total',
      type: 'counter',
      help: 'How long their answers took to begin, all together.',
      value: ofSides(({ sides }, index) => sides[index]?.seconds ?? 0),
    },
  ]
}
