/** What became of a side's requests in a stretch of time: numbers that can be added up, whoever has counted them. */
export interface SideCounts {
  requests: number
  /** 5xx, or no whole answer. */
  failures: number
  /** Answers by how long they took to begin: see `toBucket`. */
  latencies: number[]
}

export const noCounts = (): SideCounts => ({
  requests: 0,
  failures: 0,
  latencies: Array.from({ length: latencyBuckets }, () => 0),
})

export function addCounts(sum: SideCounts, { requests, failures, latencies }: SideCounts): void {
  sum.requests += requests
  sum.failures += failures
  for (const [index, count] of latencies.entries()) sum.latencies[index] = (sum.latencies[index] ?? 0) + count
}

/** Each bucket reaches a fifth further than the one before, from 0.25 ms to over a minute. */
export const toBucket = (ms: number): number =>
  Math.min(latencyBuckets - 1, Math.max(0, Math.ceil(Math.log2(ms / firstMs) * perDoubling)))

const latencyBuckets = 74
const firstMs = 0.25
const perDoubling = 4

/** Of a hundred answers ninety-nine began within this; undefined: there were none. */
export function p99Of({ latencies }: SideCounts): number | undefined {
  const total = latencies.reduce((sum, count) => sum + count, 0)
  let left = Math.floor(total / 100)
  for (let bucket = latencies.length - 1; bucket >= 0; bucket--) {
    left -= latencies[bucket] ?? 0
    if (left < 0) return firstMs * 2 ** (bucket / perDoubling)
  }
  return undefined
}

/** The counts of the last `windowMs`, in slices that are forgotten one by one. */
export interface OutcomeWindow {
  add(counts: SideCounts): void
  total(): SideCounts
}

export function createOutcomeWindow(windowMs: number, now: () => number): OutcomeWindow {
  const sliceMs = windowMs / slices
  const kept: { at: number; counts: SideCounts }[] = []
  const forget = (): number => {
    const at = Math.floor(now() / sliceMs)
    while (kept[0] && kept[0].at <= at - slices) kept.shift()
    return at
  }
  return {
    add: (counts) => {
      const at = forget()
      const last = kept.at(-1)
      if (last?.at === at) return addCounts(last.counts, counts)
      const fresh = noCounts()
      addCounts(fresh, counts)
      kept.push({ at, counts: fresh })
    },
    total: () => {
      forget()
      const sum = noCounts()
      for (const { counts } of kept) addCounts(sum, counts)
      return sum
    },
  }
}

const slices = 30
