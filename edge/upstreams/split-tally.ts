import type { CompiledSplit } from '../compile.ts'
import { errorFacts } from '../error.ts'
import type { Outcome } from '../runtime.ts'
import { noCounts, toBucket } from './outcome-window.ts'
import type { SideCounts } from './outcome-window.ts'
import { tableWeights } from './split.ts'
import type { SideChoice } from './split.ts'

/**
 * The splits as one process serves them: the weights of this moment, and what became of requests by side. What decides
 * about weights may be elsewhere (`split-control.ts`): it is told reports and tells weights, both plain data.
 */
export interface SplitTally {
  weightsOf(split: CompiledSplit): readonly number[]
  setWeights(id: string, weights: readonly number[]): void
  /** Serves these splits from now on; what was counted of those that were there stays. */
  keep(splits: CompiledSplit[]): void
  /** A request has ended. */
  count(choice: SideChoice, outcome: Outcome): void
  /** What was counted since the last time. */
  takeReports(): SplitReport[]
  /** All that was ever counted. */
  totals(): { split: CompiledSplit; weights: readonly number[]; sides: SideTotals[] }[]
}

/** What became of one split's requests, side by side. Those that had named their side are not in it. */
export interface SplitReport {
  id: string
  sides: SideCounts[]
}

interface SideTotals {
  requests: number
  failures: number
  /** How long answers took to begin, all together. */
  seconds: number
}

interface Entry {
  split: CompiledSplit
  weights: readonly number[]
  sides: SideTotals[]
  fresh: SideCounts[]
}

export function createSplitTally(splits: CompiledSplit[]): SplitTally {
  let entries = new Map(splits.map((split) => [split.id, createEntry(split)]))

  /** The sides of another split may be others, whatever its name. */
  function keep(next: CompiledSplit[]): void {
    entries = new Map(
      next.map((split) => {
        const known = entries.get(split.id)
        const isSame = known?.split.declared === split.declared
        return [split.id, known && isSame ? { ...known, split } : createEntry(split)]
      }),
    )
  }

  function count({ split, index, forced }: SideChoice, outcome: Outcome): void {
    const entry = entries.get(split.id)
    // Who leaves first has seen nothing that could be judged, nor is there anything to judge of what is gone.
    if (outcome.end === 'client_gone' || entry?.split.declared !== split.declared) return
    const { sides, fresh } = entry
    const total = sides[index] as SideTotals
    const failed = isFailed(outcome)
    total.requests++
    if (failed) total.failures++
    total.seconds += (outcome.upstreamMs ?? 0) / 1_000
    if (forced) return
    const counts = fresh[index] as SideCounts
    counts.requests++
    if (failed) counts.failures++
    if (outcome.upstreamMs === undefined) return
    const bucket = toBucket(outcome.upstreamMs)
    counts.latencies[bucket] = (counts.latencies[bucket] ?? 0) + 1
  }

  function takeReports(): SplitReport[] {
    return [...entries.values()].map((entry) => {
      const report = { id: entry.split.id, sides: entry.fresh }
      entry.fresh = entry.sides.map(noCounts)
      return report
    })
  }

  return {
    weightsOf: (split) => entries.get(split.id)?.weights ?? tableWeights(split),
    setWeights: (id, weights) => {
      const entry = entries.get(id)
      if (entry?.sides.length === weights.length) entry.weights = weights
    },
    keep,
    count,
    takeReports,
    totals: () => [...entries.values()],
  }
}

const createEntry = (split: CompiledSplit): Entry => ({
  split,
  weights: tableWeights(split),
  sides: split.sides.map(() => ({ requests: 0, failures: 0, seconds: 0 })),
  fresh: split.sides.map(noCounts),
})

const isFailed = ({ status, end, refusal }: Outcome): boolean =>
  (refusal ? errorFacts(refusal.code).source === 'upstream' : status >= 500) ||
  end === 'upstream_cut' ||
  end === 'timed_out'
