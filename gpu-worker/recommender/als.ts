import { dot } from './dot.ts'

/**
 * Implicit alternating least squares as of Rendle, Krichene, Zhang and Koren, “Revisiting the Performance of iALS on Item
 * Recommendation Benchmarks” (2021): every pair that was not seen weighs α₀, and the regularisation of a row grows with
 * how often it occurs. Each row is solved by a few steps of conjugate gradients from where it was (Takács, Pilászy and
 * Tikk, 2011), without ever building its matrix.
 */
export type AlsSettings = {
  /** Length of a factor. */
  dimension: number
  epochs: number
  /** λ: strength of the regularisation. */
  regularisation: number
  /** ν: 1 lets it grow with the count of a row, 0 keeps it the same for all. */
  frequencyExponent: number
  /** α₀: weight of a pair that was not seen, beside 1 of one that was. */
  unobservedWeight: number
  /** Steps of conjugate gradients per row. */
  steps: number
  /** Deviation of the factors at the start, before division by √dimension. */
  deviation: number
  seed: number
}

export const alsDefaults: AlsSettings = {
  dimension: 64,
  epochs: 16,
  regularisation: 0.03,
  frequencyExponent: 1,
  unobservedWeight: 0.1,
  steps: 3,
  deviation: 0.1,
  seed: 7,
}

/** What one side of the model needs to solve rows of the other: `factors` has `count` rows of `dimension`. */
export type Side = { factors: Float32Array; count: number; dimension: number }

/** A row's targets beside its items: with a prior the row is drawn towards it instead of towards nothing. */
type Prior = Float32Array

/** Σ f fᵀ over all rows of a side: `dimension` × `dimension`. */
export function gramOf({ factors, count, dimension: d }: Side): Float64Array {
  const gram = new Float64Array(d * d)
  for (let row = 0; row < count; row += 1) {
    const at = row * d
    for (let i = 0; i < d; i += 1) {
      const value = factors[at + i]!
      const line = i * d
      for (let j = 0; j <= i; j += 1) gram[line + j]! += value * factors[at + j]!
    }
  }
  for (let i = 0; i < d; i += 1) for (let j = 0; j < i; j += 1) gram[j * d + i] = gram[i * d + j]!
  return gram
}

/** Room for solving one row after another. */
export type Solver = { solve(target: Float32Array, at: number, items: Int32Array, prior?: Prior): void }

/**
 * Solves (α₀ G + Σ f fᵀ + r I) x = Σ f + r p for a row with these items, where r = λ (n + α₀ N)^ν, p the prior, and N the
 * rows of the fixed side. Writes x over `target` from `at` on, starting at what is there.
 */
export function createSolver(fixed: Side, gram: Float64Array, settings: AlsSettings): Solver {
  const { factors, count, dimension: d } = fixed
  const { regularisation, frequencyExponent, unobservedWeight, steps } = settings
  const residual = new Float64Array(d)
  const direction = new Float64Array(d)
  const image = new Float64Array(d)
  const x = new Float64Array(d)
  return { solve }

  function solve(target: Float32Array, at: number, items: Int32Array, prior?: Prior): void {
    const weight = regularisation * (items.length + unobservedWeight * count) ** frequencyExponent
    for (let i = 0; i < d; i += 1) x[i] = target[at + i]!
    multiply(x, residual, items, weight)
    for (let i = 0; i < d; i += 1) residual[i] = (prior ? weight * prior[i]! : 0) - residual[i]!
    for (const item of items) {
      const row = item * d
      for (let i = 0; i < d; i += 1) residual[i]! += factors[row + i]!
    }
    let size = scalar(residual, residual)
    direction.set(residual)
    for (let step = 0; step < steps && size > 1e-12; step += 1) {
      multiply(direction, image, items, weight)
      const length = size / scalar(direction, image)
      for (let i = 0; i < d; i += 1) {
        x[i]! += length * direction[i]!
        residual[i]! -= length * image[i]!
      }
      const next = scalar(residual, residual)
      const turn = next / size
      for (let i = 0; i < d; i += 1) direction[i] = residual[i]! + turn * direction[i]!
      size = next
    }
    for (let i = 0; i < d; i += 1) target[at + i] = x[i]!
  }

  // Four rows at a time: what they are multiplied with is read once, and no sum waits for another.
  function multiply(from: Float64Array, to: Float64Array, items: Int32Array, weight: number): void {
    for (let i = 0; i + 4 <= d; i += 4) {
      const [p, q, r, s] = [i * d, (i + 1) * d, (i + 2) * d, (i + 3) * d]
      let [a, b, c, e] = [0, 0, 0, 0]
      for (let j = 0; j < d; j += 1) {
        const value = from[j]!
        a += gram[p + j]! * value
        b += gram[q + j]! * value
        c += gram[r + j]! * value
        e += gram[s + j]! * value
      }
      to[i] = unobservedWeight * a + weight * from[i]!
      to[i + 1] = unobservedWeight * b + weight * from[i + 1]!
      to[i + 2] = unobservedWeight * c + weight * from[i + 2]!
      to[i + 3] = unobservedWeight * e + weight * from[i + 3]!
    }
    for (let i = d - (d & 3); i < d; i += 1) {
      let sum = 0
      for (let j = 0; j < d; j += 1) sum += gram[i * d + j]! * from[j]!
      to[i] = unobservedWeight * sum + weight * from[i]!
    }
    const { length } = items
    for (let index = 0; index + 4 <= length; index += 4) {
      const [p, q, r, s] = [items[index]! * d, items[index + 1]! * d, items[index + 2]! * d, items[index + 3]! * d]
      let [a, b, c, e] = [0, 0, 0, 0]
      for (let i = 0; i < d; i += 1) {
        const value = from[i]!
        a += factors[p + i]! * value
        b += factors[q + i]! * value
        c += factors[r + i]! * value
        e += factors[s + i]! * value
      }
      for (let i = 0; i < d; i += 1)
        to[i]! += a * factors[p + i]! + b * factors[q + i]! + (c * factors[r + i]! + e * factors[s + i]!)
    }
    for (let index = length - (length & 3); index < length; index += 1) {
      const row = items[index]! * d
      const score = dot(factors, row, from)
      for (let i = 0; i < d; i += 1) to[i]! += score * factors[row + i]!
    }
  }
}

function scalar(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i += 1) sum += a[i]! * b[i]!
  return sum
}
