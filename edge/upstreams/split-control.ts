import type { CompiledRollout, CompiledSplit } from '../compile.ts'
import { suggest } from '../shape.ts'
import { noCounts } from './outcome-window.ts'
import { createRollout } from './rollout.ts'
import type { Rollout } from './rollout.ts'
import { describeWeights, tableWeights } from './split.ts'
import type { SplitReport } from './split-tally.ts'

/**
 * Decides about the weights of all splits: changes by hand, and rollouts. There is one of it, beside the processes that
 * serve or in the only one; what they have counted comes as reports, and weights go to all of them.
 */
export interface SplitControl {
  /** Decides about these splits from now on. Those of which the tables say the same go on as they are. */
  keep(splits: CompiledSplit[]): void
  /** What one process has counted since its last report. */
  observe(reports: SplitReport[]): void
  /** Looks at every rollout that is under way. */
  judge(): void
  /** Whether there is one, or may be. */
  isJudging(): boolean
  /** Gives sides their weights; a rollout that is under way ends with that. */
  setWeights(name: string, weights: Record<string, number>, who: string): SplitStatus | SplitFault
  /** Begins the table's rollout with its first step. */
  startRollout(name: string, who: string): SplitStatus | SplitFault
  /** Decides about these from now on; of those that the tables say the same of, everything stays as it is. */
  keep(splits: CompiledSplit[]): void
  find(name: string): SplitStatus | SplitFault
  all(): SplitStatus[]
}

export interface SplitStatus {
  /** 'shop/app'. */
  upstream: string
  weights: Record<string, number>
  state: SplitState
  /** The last change and who made it; null: none yet. */
  changed: { by: string; reason: string } | null
}

/** Whose word the weights are: the table's, somebody's, or the rollout's. */
type SplitState = 'table' | 'by hand' | 'rolling' | 'done' | 'rolled back'

/** Why something cannot be done; `status` as HTTP has it. */
export interface SplitFault {
  status: 400 | 404 | 409
  detail: string
}

/** What outlives the process. */
export type SavedSplits = Record<string, { declared: string; weights: number[]; state: SplitState }>

export interface SplitControlOptions {
  splits: CompiledSplit[]
  /** Milliseconds that only grow. */
  now: () => number
  /** Brings weights to every process that serves. */
  apply(id: string, weights: readonly number[]): void
  /** Takes a line for each change. */
  report(line: string): void
  saved?: SavedSplits
  save?(saved: SavedSplits): void
}

interface Entry {
  split: CompiledSplit
  weights: number[]
  state: SplitState
  rollout: Rollout | undefined
  changed: SplitStatus['changed']
}

export function createSplitControl(options: SplitControlOptions): SplitControl {
  const { splits, now, apply, report, saved = {}, save = () => {} } = options
  let entries = new Map<string, Entry>()
  keep(splits)

  /** What was saved holds as long as the table says the same of the split as it did then. */
  function createEntry(split: CompiledSplit): Entry {
    const known = saved[split.id]
    const isKnown = known !== undefined && known.declared === split.declared
    return {
      split,
      weights: isKnown ? known.weights : tableWeights(split),
      state: isKnown ? known.state : 'table',
      rollout: undefined,
      changed: null,
    }
  }

  function keep(next: CompiledSplit[]): void {
    const before = entries
    entries = new Map(
      next.map((split) => {
        const known = before.get(split.id)
        return [split.id, known && known.split.declared === split.declared ? { ...known, split } : createEntry(split)]
      }),
    )
    for (const entry of entries.values()) {
      apply(entry.split.id, entry.weights)
      if (before.get(entry.split.id)?.split.declared !== entry.split.declared) beginByItself(entry)
    }
  }

  /** A table's rollout that has not ended yet. */
  function beginByItself(entry: Entry): void {
    const { rollout } = entry.split
    if (!rollout || (entry.state !== 'table' && entry.state !== 'rolling')) return
    const share = shareOf(entry.weights, rollout.to)
    if (entry.state === 'table' && share >= (rollout.steps.at(-1) ?? 100)) entry.state = 'done'
    else
      begin(entry, rollout, share, { by: 'the rollout', reason: entry.state === 'table' ? 'it begins' : 'it goes on' })
  }

  function begin(
    entry: Entry,
    rollout: CompiledRollout,
    share: number,
    why: NonNullable<SplitStatus['changed']>,
  ): void {
    const { sides } = entry.split
    const names = { canary: sides[rollout.to]?.name ?? '', stable: sides[rollout.from]?.name ?? '' }
    entry.rollout = createRollout({ rollout, share, names, now })
    change(entry, toWeights(rollout, entry.rollout.share()), 'rolling', why)
  }

  /** The one place where weights change: said, saved, and brought to who serves. */
  function change(entry: Entry, weights: number[], state: SplitState, why: NonNullable<SplitStatus['changed']>): void {
    const { id, sides } = entry.split
    const before = describeWeights(sides, entry.weights)
    Object.assign(entry, { weights, state, changed: why })
    if (state !== 'rolling') entry.rollout = undefined
    apply(id, weights)
    report(`split ${id}: from ${before} to ${describeWeights(sides, weights)} by ${why.by}: ${why.reason}`)
    save(Object.fromEntries([...entries.values()].map((one) => [one.split.id, toSaved(one)])))
  }

  function judge(): void {
    for (const entry of entries.values()) {
      const { rollout } = entry.split
      if (!rollout || !entry.rollout) continue
      const verdict = entry.rollout.judge()
      if (verdict.kind === 'wait') continue
      const why = { by: 'the rollout', reason: verdict.reason }
      if (verdict.kind === 'step') change(entry, toWeights(rollout, verdict.share), 'rolling', why)
      else if (verdict.kind === 'done') change(entry, entry.weights, 'done', why)
      else change(entry, toWeights(rollout, 0), 'rolled back', why)
    }
  }

  function observe(reports: SplitReport[]): void {
    for (const { id, sides } of reports) {
      const entry = entries.get(id)
      const { rollout } = entry?.split ?? {}
      if (!rollout) continue
      entry?.rollout?.observe({
        canary: sides[rollout.to] ?? noCounts(),
        stable: sides[rollout.from] ?? noCounts(),
      })
    }
  }

  function setWeights(name: string, wanted: Record<string, number>, who: string): SplitStatus | SplitFault {
    const entry = findEntry(name)
    if ('detail' in entry) return entry
    const { sides } = entry.split
    const fault = findWeightFault(
      wanted,
      sides.map((side) => side.name),
    )
    if (fault !== undefined) return { status: 400, detail: `${entry.split.id}: ${fault}` }
    change(
      entry,
      sides.map((side) => wanted[side.name] ?? 0),
      'by hand',
      { by: who, reason: 'asked for' },
    )
    return toStatus(entry)
  }

  function startRollout(name: string, who: string): SplitStatus | SplitFault {
    const entry = findEntry(name)
    if ('detail' in entry) return entry
    const { rollout, id } = entry.split
    if (!rollout) return { status: 409, detail: `${id}: the table says of no rollout: add 'rollout' to the split` }
    begin(entry, rollout, 0, { by: who, reason: 'it begins' })
    return toStatus(entry)
  }

  /** By 'shop/app', or 'app' where only one table has it. */
  function findEntry(name: string): Entry | SplitFault {
    const found = [...entries.values()].filter(({ split }) => split.id === name || split.name === name)
    if (found.length > 1)
      return {
        status: 409,
        detail: `'${name}' is in several tables: write ${found.map(({ split }) => split.id).join(' or ')}`,
      }
    const known = [...entries.keys()]
    const help = known.length > 0 ? suggest(name, known) : 'no upstream of the tables has one'
    return found[0] ?? { status: 404, detail: `there is no split '${name}': ${help}` }
  }

  return {
    keep,
    observe,
    judge,
    isJudging: () => [...entries.values()].some(({ split }) => split.rollout !== undefined),
    setWeights,
    startRollout,
    find: (name) => {
      const entry = findEntry(name)
      return 'detail' in entry ? entry : toStatus(entry)
    },
    all: () => [...entries.values()].map(toStatus),
  }
}

const toSaved = ({ split, weights, state }: Entry): SavedSplits[string] => ({
  declared: split.declared,
  weights,
  state,
})

const toStatus = ({ split, weights, state, changed }: Entry): SplitStatus => ({
  upstream: split.id,
  weights: Object.fromEntries(split.sides.map(({ name }, index) => [name, weights[index] ?? 0])),
  state,
  changed,
})

/** In percent. */
function shareOf(weights: readonly number[], index: number): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return total === 0 ? 0 : ((weights[index] ?? 0) * 100) / total
}

/** A rollout is between two sides. */
const toWeights = ({ to }: CompiledRollout, share: number): number[] =>
  to === 0 ? [share, 100 - share] : [100 - share, share]

function findWeightFault(wanted: Record<string, number>, known: string[]): string | undefined {
  const names = Object.keys(wanted)
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) return `there is no side '${unknown}': ${suggest(unknown, known)}`
  const missing = known.find((name) => !names.includes(name))
  if (missing !== undefined) return `say the weight of '${missing}' too: ${known.map((name) => `${name}=…`).join(' ')}`
  const bad = names.find(
    (name) => !Number.isInteger(wanted[name]) || Number(wanted[name]) < 0 || Number(wanted[name]) > 1_000,
  )
  if (bad !== undefined) return `the weight of '${bad}' must be a whole number from 0 to 1000`
  return names.every((name) => wanted[name] === 0) ? 'give one side a weight above 0' : undefined
}
