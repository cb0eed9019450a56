/**
 * Counts durations in buckets that grow with them: each is an eighth of its power of two wide, so that a quantile is
 * right within 7 %, from microseconds to half an hour. Adding one costs a few instructions and nothing to collect.
 */
export const createDurations = (): Uint32Array => new Uint32Array(bucketCount)

export function addDuration(counts: Uint32Array, milliseconds: number): void {
  const bucket = toBucket(milliseconds)
  counts[bucket] = (counts[bucket] ?? 0) + 1
}

/** The duration, in milliseconds, that `share` (0 to 1) of those counted since `before` do not exceed; null: there is none. */
export function quantile(counts: Uint32Array, before: Uint32Array | undefined, share: number): number | null {
  const since = (bucket: number): number => (counts[bucket] ?? 0) - (before?.[bucket] ?? 0)
  let total = 0
  for (let bucket = 0; bucket < bucketCount; bucket++) total += since(bucket)
  if (total <= 0) return null
  const rank = Math.max(1, Math.ceil(total * share))
  let seen = 0
  for (let bucket = 0; bucket < bucketCount; bucket++) {
    seen += since(bucket)
    if (seen >= rank) return toMilliseconds(bucket)
  }
  return toMilliseconds(bucketCount - 1)
}

const microsecondsMax = 2 ** 31 - 1
const bucketCount = 232

function toBucket(milliseconds: number): number {
  const microseconds = Math.min(microsecondsMax, Math.max(0, Math.round(milliseconds * 1_000)))
  if (microseconds < 8) return microseconds
  const power = 31 - Math.clz32(microseconds)
  return (power - 2) * 8 + ((microseconds >>> (power - 3)) & 7)
}

/** The middle of a bucket. */
function toMilliseconds(bucket: number): number {
  if (bucket < 8) return bucket / 1_000
  const power = Math.floor(bucket / 8) + 2
  const width = 2 ** (power - 3)
  return ((8 + (bucket % 8)) * width + width / 2) / 1_000
}
