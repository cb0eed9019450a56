import type { Interactions } from './interactions.ts'
import { countItems, rowOf } from './interactions.ts'
import { topOf } from './top.ts'

/**
 * For some items, `members`, the items that speak most for each, or against it, in rows of `width`: what member m says is
 * from `m × width` on.
 */
export type ItemWeights = { members: Int32Array; width: number; neighbours: Int32Array; weights: Float32Array }

type EaseOptions = {
  /** λ: the larger, the more an item must occur to be trusted. */
  regularisation?: number
  /** How many neighbours of an item are kept. */
  width?: number
  /** How many items take part, those first that most users took. */
  itemsMax?: number
  /** Told how much of the work is done, in [0, 1]. */
  onProgress?: (share: number) => void
}

/**
 * Steck, “Embarrassingly Shallow Autoencoders for Sparse Data” (2019), in closed form: P = (XᵀX + λI)⁻¹, B = −P / diag(P)
 * with a zero diagonal. Time grows with the cube of the items and memory with their square (8 bytes each), so that only
 * `itemsMax` take part: 3,000 are 72 MB and about ten seconds.
 */
export function trainEase(interactions: Interactions, options: EaseOptions = {}): ItemWeights {
  const { regularisation = 200, width = 200, itemsMax = 3_000, onProgress = () => {} } = options
  const members = Int32Array.from(topOf(countItems(interactions), itemsMax)).sort()
  const matrix = countTogether(interactions, members)
  const count = members.length
  for (let member = 0; member < count; member += 1) matrix[member * count + member]! += regularisation
  invertSymmetric(matrix, count, onProgress)
  return keepStrongest(matrix, members, Math.min(width, count - 1))
}

/** Adds what the items of a history say of every item to `scores`. */
export function createEaseScorer({ members, width, neighbours, weights }: ItemWeights) {
  const memberOf = new Map([...members].map((item, member) => [item, member]))
  return function addEaseScores(history: Iterable<number>, scores: Float64Array): void {
    for (const item of history) {
      const member = memberOf.get(item)
      if (member === undefined) continue
      for (let at = member * width; at < (member + 1) * width; at += 1) scores[neighbours[at]!]! += weights[at]!
    }
  }
}

/** XᵀX of the members: how many users took both. */
function countTogether(interactions: Interactions, members: Int32Array): Float64Array {
  const count = members.length
  const memberOf = new Int32Array(interactions.items).fill(-1)
  for (const [member, item] of members.entries()) memberOf[item] = member
  const counts = new Float64Array(count * count)
  for (let user = 0; user < interactions.users; user += 1) {
    const row = rowOf(interactions, user)
      .map((item) => memberOf[item]!)
      .filter((member) => member !== -1)
    for (const a of row) for (const b of row) counts[a * count + b]! += 1
  }
  return counts
}

/** Columns that are swept at once: their part of two rows stays in the nearest cache. */
const block = 64

/**
 * The inverse of a symmetric positive definite matrix, in its place, by sweeping (Goodnight, “A Tutorial on the SWEEP
 * Operator”, 1979) a block of columns K at a time: with P = A[K,K]⁻¹, A −= A[·,K] P A[K,·], A[·,K] = A[·,K] P and
 * A[K,K] = −P. The matrix stays symmetric, so that half of it is computed; when all is swept it is the inverse, negated.
 */
function invertSymmetric(matrix: Float64Array, n: number, onProgress: (share: number) => void): void {
  const before = new Float64Array(n * block)
  const after = new Float64Array(n * block)
  for (let from = 0; from < n; from += block) {
    const width = Math.min(block, n - from)
    for (let i = 0; i < n; i += 1)
      for (let k = 0; k < width; k += 1)
        before[i * block + k] = i >= from + k ? matrix[i * n + from + k]! : matrix[(from + k) * n + i]!
    const pivot = invertBlock(before.subarray(from * block), width)
    multiplyRows(before, pivot, after, n)
    for (let i = 0; i < n; i += 1) {
      const isSwept = i >= from && i < from + width
      if (isSwept) continue
      subtractProducts(matrix, i * n, after.subarray(i * block, (i + 1) * block), before, 0, Math.min(i + 1, from))
      subtractProducts(matrix, i * n, after.subarray(i * block, (i + 1) * block), before, from + width, i + 1)
    }
    for (let i = 0; i < n; i += 1)
      for (let k = 0; k < width; k += 1)
        if (i >= from + width) matrix[i * n + from + k] = after[i * block + k]!
        else if (i < from) matrix[(from + k) * n + i] = after[i * block + k]!
        else matrix[i * n + from + k] = -pivot[(i - from) * block + k]!
    onProgress((from + width) / n)
  }
  for (let i = 0; i < n; i += 1)
    for (let j = 0; j <= i; j += 1) matrix[i * n + j] = matrix[j * n + i] = -matrix[i * n + j]!
}

/** The inverse of the `width` × `width` numbers at the beginning of rows of `block` (Gauss and Jordan). */
function invertBlock(rows: Float64Array, width: number): Float64Array {
  const inverse = rows.slice(0, width * block)
  for (let k = 0; k < width; k += 1) {
    const pivot = inverse[k * block + k]!
    inverse[k * block + k] = 1
    for (let j = 0; j < width; j += 1) inverse[k * block + j]! /= pivot
    for (let i = 0; i < width; i += 1) {
      if (i === k) continue
      const factor = inverse[i * block + k]!
      inverse[i * block + k] = 0
      for (let j = 0; j < width; j += 1) inverse[i * block + j]! -= factor * inverse[k * block + j]!
    }
  }
  // What is beside the numbers is nothing, so that whole rows can be multiplied.
  if (width < block) for (let i = 0; i < width; i += 1) inverse.fill(0, i * block + width, (i + 1) * block)
  return inverse
}

/** to = from × square, for rows of `block`. */
function multiplyRows(from: Float64Array, square: Float64Array, to: Float64Array, n: number): void {
  to.fill(0)
  const width = square.length / block
  for (let i = 0; i < n; i += 1)
    for (let k = 0; k < width; k += 1) {
      const value = from[i * block + k]!
      if (value !== 0) for (let j = 0; j < width; j += 1) to[i * block + j]! += value * square[k * block + j]!
    }
}

/** Takes the dot products of a row of `block` with rows `first` to `end` of `others` from as many numbers of the matrix. */
function subtractProducts(
  matrix: Float64Array,
  line: number,
  row: Float64Array,
  others: Float64Array,
  first: number,
  end: number,
): void {
  let j = first
  for (; j + 4 <= end; j += 4) {
    const at = j * block
    let [a, b, c, d] = [0, 0, 0, 0]
    for (let k = 0; k < block; k += 1) {
      const value = row[k]!
      a += value * others[at + k]!
      b += value * others[at + block + k]!
      c += value * others[at + 2 * block + k]!
      d += value * others[at + 3 * block + k]!
    }
    matrix[line + j]! -= a
    matrix[line + j + 1]! -= b
    matrix[line + j + 2]! -= c
    matrix[line + j + 3]! -= d
  }
  for (; j < end; j += 1) {
    let sum = 0
    for (let k = 0; k < block; k += 1) sum += row[k]! * others[j * block + k]!
    matrix[line + j]! -= sum
  }
}

// B[i][j] is what having item i says of item j; a row of the result is what item i says.
function keepStrongest(inverse: Float64Array, members: Int32Array, width: number): ItemWeights {
  const count = members.length
  const neighbours = new Int32Array(count * width)
  const weights = new Float32Array(count * width)
  const line = new Float64Array(count)
  const strengths = new Float64Array(count)
  for (let member = 0; member < count; member += 1) {
    for (let other = 0; other < count; other += 1) {
      line[other] = other === member ? 0 : -inverse[member * count + other]! / inverse[other * count + other]!
      strengths[other] = Math.abs(line[other]!)
    }
    for (const [place, other] of topOf(strengths, width).entries()) {
      neighbours[member * width + place] = members[other]!
      weights[member * width + place] = line[other]!
    }
  }
  return { members, width, neighbours, weights }
}
