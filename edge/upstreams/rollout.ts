import type { CompiledRollout } from '../compile.ts'
import { limits } from '../limits.ts'
import { addCounts, createOutcomeWindow, noCounts, p99Of } from './outcome-window.ts'
import type { OutcomeWindow, SideCounts } from './outcome-window.ts'

/**
 * Takes one side step by step to its full share, as long as it does as well as the stable one, and back to nothing at
 * once when it does not. Only a judgement: whoever asks changes the weights.
 */
export interface Rollout {
  /** The share of the side that is rolled out, in percent. */
  share(): number
  /** What has become of requests to both since the last time. */
  observe(counts: { canary: SideCounts; stable: SideCounts }): void
  /** What is to be done now. */
  judge(): RolloutVerdict
}

type RolloutVerdict =
  | { kind: 'wait' }
  | { kind: 'step'; share: number; reason: string }
  | { kind: 'done'; reason: string }
  | { kind: 'rollback'; reason: string }

export interface RolloutOptions {
  rollout: CompiledRollout
  /** The share that it begins with; the first step when that is 0. */
  share: number
  /** Names of the two, for reasons. */
  names: { canary: string; stable: string }
  /** Milliseconds that only grow. */
  now: () => number
}

export function createRollout({ rollout, share: startShare, names, now }: RolloutOptions): Rollout {
  const { steps, everyMs, minRequests, failurePercentMax, p99TimesMax } = rollout
  let share = startShare === 0 ? (steps[0] ?? 100) : startShare
  let step = createStep(everyMs, now)
  /** How the stable side did before; at the last step it has no requests of its own. */
  let before = noCounts()

  function judge(): RolloutVerdict {
    const canary = step.canary.total()
    const own = step.stable.total()
    const stable = own.requests >= judgedRequests ? own : before
    const reason = findFault(canary, stable)
    if (reason !== undefined) return { kind: 'rollback', reason }
    if (now() - step.startedAt < everyMs || step.all.requests < minRequests) return wait
    return goOn(describe(step.all, names.canary))
  }

  function goOn(reason: string): RolloutVerdict {
    const next = steps.find((one) => one > share)
    if (next === undefined) return { kind: 'done', reason }
    const seen = step.stable.total()
    if (seen.requests >= judgedRequests) before = seen
    share = next
    step = createStep(everyMs, now)
    return { kind: 'step', share, reason }
  }

  function findFault(canary: SideCounts, stable: SideCounts): string | undefined {
    const failsMore =
      canary.failures >= limits.rolloutFailuresMin && percent(canary) > percent(stable) + failurePercentMax
    if (failsMore) return `${describe(canary, names.canary)}, ${describe(stable, names.stable)}`
    // However seldom it is asked: so many failures and not one good answer.
    if (step.all.failures >= limits.rolloutFailuresMin && step.all.failures === step.all.requests)
      return describe(step.all, names.canary)
    const [slow, usual] = [p99Of(canary), p99Of(stable)]
    if (canary.requests < judgedRequests || stable.requests < judgedRequests || !slow || !usual) return undefined
    if (slow <= usual * p99TimesMax || slow - usual < limits.rolloutP99MarginMs) return undefined
    return `p99 of ${names.canary} is ${Math.round(slow)} ms, of ${names.stable} ${Math.round(usual)} ms`
  }

  return {
    share: () => share,
    observe: ({ canary, stable }) => {
      step.canary.add(canary)
      step.stable.add(stable)
      addCounts(step.all, canary)
    },
    judge,
  }
}

interface Step {
  startedAt: number
  canary: OutcomeWindow
  stable: OutcomeWindow
  /** All of the canary's since the step began. */
  all: SideCounts
}

function createStep(everyMs: number, now: () => number): Step {
  const windowMs = Math.max(limits.rolloutWindowMs, everyMs)
  return {
    startedAt: now(),
    canary: createOutcomeWindow(windowMs, now),
    stable: createOutcomeWindow(windowMs, now),
    all: noCounts(),
  }
}

const wait: RolloutVerdict = { kind: 'wait' }

/** Fewer say nothing of a hundredth. */
const judgedRequests = 100

const percent = ({ requests, failures }: SideCounts): number => (requests === 0 ? 0 : (failures * 100) / requests)

const describe = ({ requests, failures }: SideCounts, name: string): string =>
  `${name} failed ${failures.toLocaleString('en')} of ${requests.toLocaleString('en')}`
