import type { AlsSettings, Side } from './als.ts'
import { createSolver, gramOf } from './als.ts'
import { dot } from './dot.ts'

/** Places a viewer among the factors by the items they took, now and without training anew. */
export type FoldIn = (history: Int32Array) => Float32Array

/** One system of `dimension` equations per viewer, solved until it stands still; the Gram matrix is made once. */
export function createFoldIn(items: Side, settings: AlsSettings): FoldIn {
  const solver = createSolver(items, gramOf(items), { ...settings, steps: items.dimension })
  return (history) => {
    const viewer = new Float32Array(items.dimension)
    if (history.length > 0) solver.solve(viewer, 0, history)
    return viewer
  }
}

/** Adds the affinity of a viewer to every item. */
export function addFactorScores(
  { factors, count, dimension: d }: Side,
  viewer: Float32Array,
  scores: Float64Array,
): void {
  const vector = Float64Array.from(viewer)
  for (let item = 0; item < count; item += 1) scores[item]! += dot(factors, item * d, vector)
}
