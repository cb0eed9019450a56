import { createRandom, normal } from '../recommender/random.ts'
import { normaliseRows } from '../recommender/text-vectors.ts'
import type { Vectors } from '../recommender/text-vectors.ts'

type ProjectionOptions = {
  /** Length of the vectors that come out. */
  dimension: number
  /** Vectors to learn from at most, taken evenly. */
  samplesMax?: number
  seed?: number
}

/**
 * The vectors along their `dimension` principal axes (PCA), of length 1 again. The axes are those of the covariance by
 * subspace iteration (Halko, Martinsson and Tropp, 2011). Time grows with the square of the length: seconds for a
 * thousand, so run it in a thread of its own.
 */
export function projectVectors(vectors: Vectors, options: ProjectionOptions): Vectors {
  const { dimension, samplesMax = 4_000, seed = 11 } = options
  const { dimension: d, values } = vectors
  if (dimension >= d) return vectors
  const count = values.length / d
  const mean = meanOf(vectors, count)
  const axes = findAxes(covarianceOf(vectors, mean, Math.max(1, Math.ceil(count / samplesMax))), d, dimension, seed)
  const projected = new Float32Array(count * dimension)
  const row = new Float64Array(d)
  for (let index = 0; index < count; index += 1) {
    for (let i = 0; i < d; i += 1) row[i] = values[index * d + i]! - mean[i]!
    for (let axis = 0; axis < dimension; axis += 1) {
      let sum = 0
      for (let i = 0, at = axis * d; i < d; i += 1) sum += row[i]! * axes[at + i]!
      projected[index * dimension + axis] = sum
    }
  }
  return normaliseRows({ dimension, values: projected })
}

function meanOf({ dimension: d, values }: Vectors, count: number): Float64Array {
  const mean = new Float64Array(d)
  for (let at = 0; at < values.length; at += 1) mean[at % d]! += values[at]! / count
  return mean
}

function covarianceOf({ dimension: d, values }: Vectors, mean: Float64Array, step: number): Float64Array {
  const covariance = new Float64Array(d * d)
  const row = new Float64Array(d)
  for (let start = 0; start < values.length; start += step * d) {
    for (let i = 0; i < d; i += 1) row[i] = values[start + i]! - mean[i]!
    for (let i = 0; i < d; i += 1) {
      const value = row[i]!
      if (value !== 0) for (let j = 0, line = i * d; j <= i; j += 1) covariance[line + j]! += value * row[j]!
    }
  }
  for (let i = 0; i < d; i += 1) for (let j = 0; j < i; j += 1) covariance[j * d + i] = covariance[i * d + j]!
  return covariance
}

const iterations = 8

/** The `count` strongest axes, one behind the other, each of length `d`. */
function findAxes(covariance: Float64Array, d: number, count: number, seed: number): Float64Array {
  const random = createRandom(seed)
  let axes = Float64Array.from({ length: count * d }, () => normal(random))
  for (let iteration = 0; iteration < iterations; iteration += 1) {
    const next = new Float64Array(count * d)
    for (let axis = 0; axis < count; axis += 1)
      for (let i = 0; i < d; i += 1) {
        const line = i * d
        let sum = 0
        for (let j = 0, at = axis * d; j < d; j += 1) sum += covariance[line + j]! * axes[at + j]!
        next[axis * d + i] = sum
      }
    orthonormalise(next, d, count)
    axes = next
  }
  return axes
}

/** Gram and Schmidt, in place. An axis along which nothing is left becomes nothing. */
function orthonormalise(axes: Float64Array, d: number, count: number): void {
  for (let axis = 0; axis < count; axis += 1) {
    const own = axes.subarray(axis * d, (axis + 1) * d)
    const before = Math.hypot(...own)
    for (let other = 0; other < axis; other += 1) {
      const at = other * d
      let shared = 0
      for (let i = 0; i < d; i += 1) shared += own[i]! * axes[at + i]!
      for (let i = 0; i < d; i += 1) own[i]! -= shared * axes[at + i]!
    }
    const length = Math.hypot(...own)
    const scale = length > 1e-9 * before ? 1 / length : 0
    for (let i = 0; i < d; i += 1) own[i]! *= scale
  }
}
