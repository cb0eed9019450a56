/**
 * Normalised discounted cumulative gain of a list with binary relevance (Järvelin and Kekäläinen, 2002): which of its
 * places are wanted, and how many are wanted at all.
 */
export function gainOf(isWanted: readonly boolean[], wanted: number): number {
  let gain = 0
  let ideal = 0
  for (const [place, hit] of isWanted.entries()) {
    if (hit) gain += 1 / Math.log2(place + 2)
    if (place < wanted) ideal += 1 / Math.log2(place + 2)
  }
  return ideal > 0 ? gain / ideal : 0
}
