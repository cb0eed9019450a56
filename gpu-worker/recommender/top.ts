/** The places of the highest scores, highest first. */
export function topOf(scores: ArrayLike<number>, count: number): number[] {
  const order = Int32Array.from({ length: scores.length }, (_, index) => index)
  order.sort((a, b) => scores[b]! - scores[a]! || a - b)
  return [...order.subarray(0, count)]
}
