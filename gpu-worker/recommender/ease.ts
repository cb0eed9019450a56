import type { Interactions } from './interactions.ts'
import { rowOf } from './interactions.ts'

/** For each item the items that speak most for it, or against it, in rows of `width`. */
export type ItemWeights = { items: number; width: number; neighbours: Int32Array; weights: Float32Array }

type EaseOptions = {
  /** λ: the larger, the more an item must occur to be trusted. */
  regularisation?: number
  /** How many neighbours of an item are kept. */
  width?: number
  /** Told how much of the work is done, in [0, 1]. */
  onProgress?: (share: number) => void
}

/**
 * Steck, “Embarrassingly Shallow Autoencoders for Sparse Data” (2019), in closed form: P = (XᵀX + λI)⁻¹, B = −P / diag(P)
 * with a zero diagonal. Time grows with the cube of the items and memory with their square (8 bytes each): for some
 * thousand items.
 */
export function trainEase(interactions: Interactions, options: EaseOptions = {}): ItemWeights {
  const { regularisation = 200, width = 200, onProgress = () => {} } = options
  const { items } = interactions
  const matrix = countTogether(interactions)
  for (let item = 0; item < items; item += 1) matrix[item * items + item]! += regularisation
  invertSymmetric(matrix, items, onProgress)
  return keepStrongest(matrix, items, Math.min(width, items - 1))
}

/** Adds what the items of a history say of every item to `scores`. */
export function addEaseScores(
  { width, neighbours, weights }: ItemWeights,
  history: Iterable<number>,
  scores: Float64Array,
): void {
  for (const item of history)
    for (let at = item * width; at < (item + 1) * width; at += 1) scores[neighbours[at]!]! += weights[at]!
}

/** XᵀX: how many users took both. */
function countTogether(interactions: Interactions): Float64Array {
  const { users, items } = interactions
  const counts = new Float64Array(items * items)
  for (let user = 0; user < users; user += 1) {
    const row = rowOf(interactions, user)
    for (const a of row) for (const b of row) counts[a * items + b]! += 1
  }
  return counts
}

/** The inverse of a symmetric positive definite matrix, in its place (Gauss-Jordan by symmetric sweeps). */
function invertSymmetric(matrix: Float64Array, n: number, onProgress: (share: number) => void): void {
  const pivotRow = new Float64Array(n)
  for (let k = 0; k < n; k += 1) {
    const pivot = matrix[k * n + k]!
    for (let j = 0; j < n; j += 1) pivotRow[j] = matrix[k * n + j]! / pivot
    for (let i = 0; i < n; i += 1) {
      if (i === k) continue
      const line = i * n
      const factor = matrix[line + k]!
      if (factor !== 0) for (let j = 0; j < n; j += 1) matrix[line + j]! -= factor * pivotRow[j]!
      matrix[line + k] = -factor / pivot
    }
    for (let j = 0; j < n; j += 1) matrix[k * n + j] = pivotRow[j]!
    matrix[k * n + k] = 1 / pivot
    if (k % 50 === 0) onProgress(k / n)
  }
  onProgress(1)
}

// B[i][j] is what having item i says of item j; a row of the result is what item i says.
function keepStrongest(inverse: Float64Array, items: number, width: number): ItemWeights {
  const neighbours = new Int32Array(items * width)
  const weights = new Float32Array(items * width)
  const line = new Float64Array(items)
  const order = new Int32Array(items)
  for (let item = 0; item < items; item += 1) {
    for (let other = 0; other < items; other += 1) {
      line[other] = other === item ? 0 : -inverse[item * items + other]! / inverse[other * items + other]!
      order[other] = other
    }
    order.sort((a, b) => Math.abs(line[b]!) - Math.abs(line[a]!))
    for (let place = 0; place < width; place += 1) {
      neighbours[item * width + place] = order[place]!
      weights[item * width + place] = line[order[place]!]!
    }
  }
  return { items, width, neighbours, weights }
}
