import type { AlsSettings } from './als.ts'
import { blend } from './blend.ts'
import { addEaseScores, trainEase } from './ease.ts'
import { addFactorScores, createFoldIn } from './fold-in.ts'
import { topOf } from './top.ts'
import type { Interactions } from './interactions.ts'
import { countItems, fromRows, rowOf, transpose } from './interactions.ts'
import { similarItems } from './item-similarity.ts'
import { createRandom, shuffle } from './random.ts'
import { trainAls } from './train-als.ts'

/** How well a method ranks what was held back, over all users who have any. */
export type Figures = {
  method: string
  /** Normalised discounted cumulative gain of the first ten, with binary relevance (Järvelin and Kekäläinen, 2002). */
  ndcg: number
  /** Share of what was held back among the first ten. */
  recall: number
  /** Share of the items that are recommended to anybody. */
  coverage: number
  seconds: number
}

type EvaluateOptions = {
  settings: AlsSettings
  /** Share of each item's ratings to learn from. */
  ratio?: number
  seed?: number
  threads?: number
  onProgress?: (what: string, share: number) => void
}

const listLength = 10
const shares = [0.2, 0.35, 0.5, 0.65, 0.8]
const candidates = [
  { regularisation: 0.01, unobservedWeight: 0.3 },
  { regularisation: 0.03, unobservedWeight: 0.1 },
  { regularisation: 0.06, unobservedWeight: 0.1 },
]

/** Gives every item a score for a user, by what they took. */
type Score = (history: Int32Array) => Float64Array

/**
 * Measures popularity, SAR, iALS, EASE and their blend as Microsoft's recommenders do: 75 % of the ratings of each item to
 * learn from, every rating is evidence, all items are ranked, those already taken removed, lists of ten. How strong
 * the regularisation is and the share of the blend are chosen on a part of the training set that is held back once more,
 * never on the test.
 */
export async function evaluate(interactions: Interactions, options: EvaluateOptions): Promise<Figures[]> {
  const { ratio = 0.75, seed = 42, threads, onProgress = () => {} } = options
  const { train, test } = split(interactions, ratio, seed)
  const { settings, share } = await choose()
  const figures: Figures[] = []
  const counts = Float64Array.from(countItems(train))
  measure('popularity', () => () => counts.slice())
  measure('SAR (Jaccard)', () => {
    const similar = similarItems(train)
    return (history) => {
      const scores = new Float64Array(train.items)
      for (const item of history)
        for (let other = 0, at = item * train.items; other < train.items; other += 1)
          scores[other]! += similar[at + other]!
      return scores
    }
  })
  const startedAls = performance.now()
  const als = await scoreByAls(train, settings, 'iALS')
  const alsSeconds = (performance.now() - startedAls) / 1_000
  measure(
    `iALS (d=${settings.dimension}, λ=${settings.regularisation}, α₀=${settings.unobservedWeight})`,
    () => als,
    alsSeconds,
  )
  let ease: Score = als
  measure('EASE', () => (ease = scoreByEase(train, 'EASE')))
  measure(`blend (${Math.round(share * 100)} % iALS)`, () => (history) => blend(als(history), ease(history), share))
  return figures

  function measure(method: string, prepare: () => Score, seconds?: number): void {
    const startedAt = performance.now()
    const score = prepare()
    const took = seconds ?? (performance.now() - startedAt) / 1_000
    figures.push({ method, ...rank(train, test, score), seconds: took })
  }

  async function scoreByAls(from: Interactions, chosen: AlsSettings, what: string): Promise<Score> {
    const onEpoch = (done: number, total: number) => onProgress(what, done / total)
    const { items } = await trainAls(from, { settings: chosen, threads, onEpoch })
    const foldIn = createFoldIn(items, chosen)
    return (history) => {
      const scores = new Float64Array(from.items)
      addFactorScores(items, foldIn(history), scores)
      return scores
    }
  }

  function scoreByEase(from: Interactions, what: string): Score {
    const weights = trainEase(from, { onProgress: (done) => onProgress(what, done) })
    return (history) => {
      const scores = new Float64Array(from.items)
      addEaseScores(weights, history, scores)
      return scores
    }
  }

  async function choose(): Promise<{ settings: AlsSettings; share: number }> {
    const inner = split(train, 0.9, seed + 1)
    const innerEase = scoreByEase(inner.train, 'EASE, to choose')
    let best = { settings: options.settings, share: 0.5, ndcg: -1 }
    for (const [place, candidate] of candidates.entries()) {
      const chosen = { ...options.settings, ...candidate }
      const innerAls = await scoreByAls(inner.train, chosen, `iALS, to choose (${place + 1} of ${candidates.length})`)
      for (const tried of shares) {
        const score: Score = (history) => blend(innerAls(history), innerEase(history), tried)
        const { ndcg } = rank(inner.train, inner.test, score)
        if (ndcg > best.ndcg) best = { settings: chosen, share: tried, ndcg }
      }
    }
    return best
  }
}

/** Holds back a part of each item's ratings. */
export function split(
  interactions: Interactions,
  ratio: number,
  seed: number,
): { train: Interactions; test: Interactions } {
  const byItem = transpose(interactions)
  const random = createRandom(seed)
  const train: number[][] = Array.from({ length: interactions.users }, () => [])
  const test: number[][] = Array.from({ length: interactions.users }, () => [])
  for (let item = 0; item < interactions.items; item += 1) {
    const users = shuffle(rowOf(byItem, item), random)
    const kept = Math.round(users.length * ratio)
    for (const [place, user] of users.entries()) (place < kept ? train : test)[user]!.push(item)
  }
  return { train: fromRows(interactions.items, train), test: fromRows(interactions.items, test) }
}

/** Ranks every item for every user who has something held back. */
function rank(train: Interactions, test: Interactions, score: Score): Omit<Figures, 'method' | 'seconds'> {
  const shown = new Set<number>()
  let [ndcg, recall, users] = [0, 0, 0]
  for (let user = 0; user < train.users; user += 1) {
    const wanted = new Set(rowOf(test, user))
    const history = rowOf(train, user)
    if (wanted.size === 0 || history.length === 0) continue
    const scores = score(history)
    for (const item of history) scores[item] = -Infinity
    const list = topOf(scores, listLength)
    let [gain, hits] = [0, 0]
    for (const [place, item] of list.entries()) {
      shown.add(item)
      if (!wanted.has(item)) continue
      hits += 1
      gain += 1 / Math.log2(place + 2)
    }
    ndcg += gain / idealGain(Math.min(listLength, wanted.size))
    recall += hits / wanted.size
    users += 1
  }
  return { ndcg: ndcg / users, recall: recall / users, coverage: shown.size / train.items }
}

function idealGain(count: number): number {
  let gain = 0
  for (let place = 0; place < count; place += 1) gain += 1 / Math.log2(place + 2)
  return gain
}
