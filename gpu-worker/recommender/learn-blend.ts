import type { Blend, PartSources } from './blend.ts'
import { bucketEnds, fixedBlend, partCount, toParts } from './blend.ts'
import { gainOf } from './gain.ts'
import type { Interactions } from './interactions.ts'
import { rowOf } from './interactions.ts'
import type { Random } from './random.ts'
import { createRandom, shuffle } from './random.ts'
import { topOf } from './top.ts'

/** `kept` is what the sources have learned from, `heldBack` what they have not seen. */
type Split = { kept: Interactions; heldBack: Interactions }

type LearnBlendOptions = {
  seed: number
  /** Viewers to learn from. */
  viewersMax?: number
  onProgress?: (share: number) => void
}

/** What is ranked for a viewer: films that some part puts first, `partCount` numbers each; `wanted` counts the others too. */
type Pool = { parts: Float64Array; isWanted: Uint8Array; wanted: number }

/** Films of a pool that each part brings. */
const bestCount = 150
const othersMax = 12
const listLength = 10

/**
 * Learns the weights of the parts for each length of history. Viewers of a length are any with enough films, of whom only
 * so many are shown. Weights are fitted on half of the viewers: to pairs of a film that was held back and one that was not
 * taken (pairwise logistic regression), then to the gain of their lists of ten, a weight at a time (coordinate ascent,
 * Metzler and Croft, 2007). On the other half they must rank better than the fixed ones, else those stay.
 */
export function learnBlend(sources: PartSources, { kept, heldBack }: Split, options: LearnBlendOptions): Blend {
  const { seed, viewersMax = 400, onProgress = () => {} } = options
  const random = createRandom(seed)
  const all = Int32Array.from({ length: kept.users }, (_, user) => user).filter(
    (user) => rowOf(kept, user).length > 0 && rowOf(heldBack, user).length > 0,
  )
  const viewers = shuffle(all, random).slice(0, viewersMax)
  return fixedBlend.map((fixed, bucket) => {
    const pools: Pool[] = []
    for (const [place, user] of viewers.entries()) {
      const history = showPart(shuffle(rowOf(kept, user), random), bucket, random)
      if (history) pools.push(toPool(toParts(sources, history), user))
      if (place % 50 === 0) onProgress((bucket + place / viewers.length) / fixedBlend.length)
    }
    const half = Math.ceil(pools.length / 2)
    const weights = chooseWeights(pools.slice(0, half), pools.slice(half), fixed, random)
    onProgress((bucket + 1) / fixedBlend.length)
    return weights
  })

  function toPool(parts: readonly Float64Array[], user: number): Pool {
    const isKept = new Set(rowOf(kept, user))
    const wanted = new Set(rowOf(heldBack, user))
    const spoken = parts.filter((part) => part.some((score) => score !== 0))
    const best = spoken.flatMap((part) => topOf(part, bestCount)).filter((item) => !isKept.has(item))
    // Not what was held back and no part puts first: whoever is last in everything would then be wanted.
    const items = [...new Set(best)].sort((a, b) => a - b)
    return {
      parts: Float64Array.from(items.flatMap((item) => parts.map((part) => part[item]!))),
      isWanted: Uint8Array.from(items, (item) => (wanted.has(item) ? 1 : 0)),
      wanted: wanted.size,
    }
  }
}

function chooseWeights(
  fitting: readonly Pool[],
  choosing: readonly Pool[],
  fixed: readonly number[],
  random: Random,
): readonly number[] {
  const pairs = fitting.flatMap((pool) => toPairs(pool, random))
  if (pairs.length === 0) return fixed
  const starts = [fixed, fit(pairs)]
  return toBest(choosing, [...starts, ascend(fitting, toBest(fitting, starts))])
}

function toBest(pools: readonly Pool[], candidates: readonly (readonly number[])[]): readonly number[] {
  const gains = candidates.map((weights) => meanGain(pools, weights))
  return candidates[topOf(gains, 1)[0]!]!
}

/** Of the lists of ten that the weights make. */
function meanGain(pools: readonly Pool[], weights: readonly number[]): number {
  let sum = 0
  for (const { parts, isWanted, wanted } of pools) {
    const scores = new Float64Array(isWanted.length)
    for (let film = 0; film < scores.length; film += 1)
      for (let part = 0; part < partCount; part += 1) scores[film]! += weights[part]! * parts[film * partCount + part]!
    sum += gainOf(
      topOf(scores, listLength).map((film) => isWanted[film] === 1),
      wanted,
    )
  }
  return sum / Math.max(1, pools.length)
}

const strides = [0.3, 0.15, 0.05]

/** Moves one weight at a time, up, down or to nothing, as long as lists gain; weights add up to 1. */
function ascend(pools: readonly Pool[], start: readonly number[]): number[] {
  let weights = toShares(start)
  let gain = meanGain(pools, weights)
  for (const stride of strides)
    for (let part = 0; part < partCount; part += 1)
      for (const value of [0, weights[part]! - stride, weights[part]! + stride]) {
        const tried = toShares(weights.with(part, value))
        const better = meanGain(pools, tried)
        // What says nothing gets no weight.
        if (value === 0 ? better < gain : better <= gain) continue
        gain = better
        weights = tried
      }
  return weights
}

function toShares(weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + Math.abs(weight), 0) || 1
  return weights.map((weight) => Math.round((1e4 * weight) / total) / 1e4)
}

/** Differences of the parts of a film that was wanted and of one that was not. */
function toPairs({ parts, isWanted }: Pool, random: Random): number[][] {
  const partsOf = (film: number) => parts.subarray(film * partCount, (film + 1) * partCount)
  return [...isWanted.keys()]
    .filter((film) => isWanted[film] === 1)
    .flatMap((film) =>
      Array.from({ length: othersMax }, () => Math.floor(random() * isWanted.length))
        .filter((other) => isWanted[other] === 0)
        .map((other) => Array.from(partsOf(film), (score, part) => score - partsOf(other)[part]!)),
    )
}

/** As much of a history as a viewer of the bucket has; undefined when it is too short for that. */
function showPart(history: Int32Array, bucket: number, random: Random): number[] | undefined {
  const most = bucketEnds[bucket] ?? Infinity
  const least = bucket === 0 ? 0 : bucketEnds[bucket - 1]! + 1
  if (history.length < least) return undefined
  const end = Math.min(most, history.length)
  // The longest are shown whole.
  const length = most === Infinity ? end : least + Math.floor(random() * (end - least + 1))
  return [...history.subarray(0, length)]
}

const ridge = 1e-3
const steps = 12

/** Weights w that make Σ log(1 + e^(−w·x)) over the pairs small, with a little ridge, by Newton's method; their sum is 1. */
function fit(pairs: readonly (readonly number[])[]): number[] {
  const n = pairs[0]!.length
  const weights = Array.from({ length: n }, () => 0)
  for (let step = 0; step < steps; step += 1) {
    const slope = weights.map((weight) => ridge * pairs.length * weight)
    const bend = weights.map((_, i) => weights.map((_unused, j) => (i === j ? ridge * pairs.length : 0)))
    for (const pair of pairs) {
      let margin = 0
      for (let i = 0; i < n; i += 1) margin += weights[i]! * pair[i]!
      const wrong = 1 / (1 + Math.exp(margin))
      const heaviness = wrong * (1 - wrong)
      for (let i = 0; i < n; i += 1) {
        slope[i]! -= wrong * pair[i]!
        for (let j = 0; j < n; j += 1) bend[i]![j]! += heaviness * pair[i]! * pair[j]!
      }
    }
    for (const [i, change] of solve(bend, slope).entries()) weights[i]! -= change
  }
  return toShares(weights)
}

/** Gauss-Jordan elimination of a small symmetric positive definite matrix. */
function solve(matrix: number[][], right: number[]): number[] {
  for (let k = 0; k < right.length; k += 1)
    for (let i = 0; i < right.length; i += 1) {
      if (i === k) continue
      const factor = matrix[i]![k]! / matrix[k]![k]!
      for (let j = k; j < right.length; j += 1) matrix[i]![j]! -= factor * matrix[k]![j]!
      right[i]! -= factor * right[k]!
    }
  return right.map((value, i) => value / matrix[i]![i]!)
}
