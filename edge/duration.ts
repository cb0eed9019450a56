/** '10 s' in milliseconds; NaN when it is no duration. */
export function toMilliseconds(duration: string): number {
  const parts = /^(\d+) ?(ms|s|m|h|d)$/.exec(duration)
  return Number(parts?.[1]) * (unitMs[parts?.[2] ?? ''] ?? Number.NaN)
}

const unitMs: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }
