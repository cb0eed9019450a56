import type { createEaseScorer } from './ease.ts'
import type { Side } from './als.ts'
import type { FoldIn } from './fold-in.ts'
import { addFactorScores } from './fold-in.ts'
import type { TextIndex } from './text-index.ts'

/** How many parts a film is scored by: iALS, EASE, words, popularity, recency and quality, in this order. */
export const partCount = 6

/** Weights of the parts for viewers of whom nothing, 1–5, 6–20 and more films are known. */
export type Blend = readonly (readonly number[])[]

/** What serves where nothing was learned: popularity, and half of iALS and half of EASE. */
export const fixedBlend: Blend = [
  [0, 0, 0, 1, 0, 0],
  [0.5, 0.5, 0, 0, 0, 0],
  [0.5, 0.5, 0, 0, 0, 0],
  [0.5, 0.5, 0, 0, 0, 0],
]

/** The longest histories of each kind of viewer but the last. */
export const bucketEnds = [0, 5, 20] as const

/** Which weights are for a viewer of whom so many films are known. */
export function bucketOf(films: number): number {
  const bucket = bucketEnds.findIndex((end) => films <= end)
  return bucket === -1 ? bucketEnds.length : bucket
}

export type PartSources = {
  /** What was learned of who takes what; `places` is where it has each film, −1 where it has not. */
  learned:
    | { items: Side; foldIn: FoldIn; addEaseScores: ReturnType<typeof createEaseScorer>; places: Int32Array }
    | undefined
  text: TextIndex | undefined
  /** Popularity, recency and quality of each film, standardised. */
  facts: readonly Float64Array[]
}

/** Scores every film by each part for a viewer with these films, of mean 0 and deviation 1. */
export function toParts({ learned, text, facts }: PartSources, history: readonly number[]): Float64Array[] {
  const count = facts[0]!.length
  const taken = learned
    ? Int32Array.from(history.map((place) => learned.places[place]!)).filter((place) => place !== -1)
    : new Int32Array(0)
  const byFactors = new Float64Array(count)
  const byItems = new Float64Array(count)
  if (learned && taken.length > 0) {
    const { items, foldIn, addEaseScores, places } = learned
    const scores = new Float64Array(items.count)
    addFactorScores(items, foldIn(taken), scores)
    spread(scores, places, byFactors)
    scores.fill(0)
    addEaseScores(taken, scores)
    spread(scores, places, byItems)
  }
  const byWords = text && history.length > 0 ? text.toMiddleOf(history) : new Float64Array(count)
  return [standardise(byFactors), standardise(byItems), standardise(byWords), ...facts]
}

/** The weighted sum of the parts. */
export function blend(parts: readonly Float64Array[], weights: readonly number[]): Float64Array {
  const scores = new Float64Array(parts[0]!.length)
  for (let part = 0; part < partCount; part += 1) {
    const [own, weight] = [parts[part]!, weights[part]!]
    if (weight !== 0) for (let place = 0; place < scores.length; place += 1) scores[place]! += weight * own[place]!
  }
  return scores
}

function spread(scores: Float64Array, places: Int32Array, to: Float64Array): void {
  for (let at = 0; at < to.length; at += 1) if (places[at] !== -1) to[at] = scores[places[at]!]!
}

/** Brings scores to mean 0 and deviation 1, so that scores of different kinds can be added. In place. */
export function standardise(scores: Float64Array): Float64Array {
  let sum = 0
  let squares = 0
  for (let index = 0; index < scores.length; index += 1) {
    const score = scores[index]!
    sum += score
    squares += score * score
  }
  const mean = sum / scores.length
  const variance = squares / scores.length - mean * mean
  const deviation = variance > 1e-12 * squares ? Math.sqrt(variance) : 1
  for (let index = 0; index < scores.length; index += 1) scores[index] = (scores[index]! - mean) / deviation
  return scores
}
