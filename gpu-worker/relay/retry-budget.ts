import type { Limits } from '../limits.ts'

/** Bounds retries to a share of the requests, so that a failing server is not asked twice as much. */
export interface RetryBudget {
  count(): void
  /** Whether one more is within it; it counts as taken then. */
  take(): boolean
}

export function createRetryBudget({ retryShare, retryFloor, retryWindowMs }: Limits, now: () => number): RetryBudget {
  let [window, requests, retries] = [0, 0, 0]

  function turn(): void {
    const current = Math.floor(now() / retryWindowMs)
    if (current === window) return
    // Half of the last window still counts, so that its first requests find something to go by.
    const carried = current === window + 1 ? 0.5 : 0
    window = current
    requests *= carried
    retries *= carried
  }

  return {
    count() {
      turn()
      requests++
    },
    take() {
      turn()
      if (retries + 1 > Math.max(retryFloor, requests * retryShare)) return false
      retries++
      return true
    },
  }
}
