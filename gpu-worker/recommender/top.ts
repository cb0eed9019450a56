/** The places of the highest scores, highest first; of equal ones the first. A heap keeps the best, its root the worst of them. */
export function topOf(scores: ArrayLike<number>, count: number): number[] {
  const size = Math.min(count, scores.length)
  if (size === 0) return []
  const heap = Int32Array.from({ length: size }, (_, place) => place)
  for (let root = (size >> 1) - 1; root >= 0; root -= 1) sink(heap, root, scores)
  for (let place = size; place < scores.length; place += 1) {
    // One behind the worst of equal score stays out.
    if (scores[place]! <= scores[heap[0]!]!) continue
    heap[0] = place
    sink(heap, 0, scores)
  }
  return [...heap].sort((a, b) => scores[b]! - scores[a]! || a - b)
}

function sink(heap: Int32Array, from: number, scores: ArrayLike<number>): void {
  const own = heap[from]!
  let at = from
  for (let child = 2 * at + 1; child < heap.length; child = 2 * at + 1) {
    if (child + 1 < heap.length && isWorse(heap[child + 1]!, heap[child]!, scores)) child += 1
    if (!isWorse(heap[child]!, own, scores)) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = own
}

function isWorse(a: number, b: number, scores: ArrayLike<number>): boolean {
  const [first, second] = [scores[a]!, scores[b]!]
  return first < second || (first === second && a > b)
}
