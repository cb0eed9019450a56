import type { AlsSettings } from './als.ts'
import type { Blend, PartSources } from './blend.ts'
import { blend, bucketOf, fixedBlend, standardise, toParts } from './blend.ts'
import { createEaseScorer, trainEase } from './ease.ts'
import { createFoldIn } from './fold-in.ts'
import { gainOf } from './gain.ts'
import { topOf } from './top.ts'
import type { Interactions } from './interactions.ts'
import { countItems, rowOf } from './interactions.ts'
import { similarItems } from './item-similarity.ts'
import { learnBlend } from './learn-blend.ts'
import { split } from './split.ts'
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
const candidates = [
  { regularisation: 0.01, unobservedWeight: 0.3 },
  { regularisation: 0.03, unobservedWeight: 0.1 },
  { regularisation: 0.06, unobservedWeight: 0.1 },
]

/** Gives every item a score for a user, by what they took. */
type Score = (history: Int32Array) => Float64Array

/**
 * Measures popularity, SAR, iALS, EASE and their blends as Microsoft's recommenders do: 75 % of the ratings of each item to
 * learn from, every rating is evidence, all items are ranked, those already taken removed, lists of ten. How strong
 * the regularisation is and the weights of the learned blend are chosen on a part of the training set that is held back
 * once more, never on the test. Ratings say nothing of words, recency or quality: of the parts, popularity is left.
 */
export async function evaluate(interactions: Interactions, options: EvaluateOptions): Promise<Figures[]> {
  const { ratio = 0.75, seed = 42, threads, onProgress = () => {} } = options
  const { kept, heldBack } = split(interactions, ratio, seed)
  const { settings, learned } = await choose()
  const figures: Figures[] = []
  const counts = Float64Array.from(countItems(kept))
  measure('popularity', () => () => counts.slice())
  measure('SAR (Jaccard)', () => {
    const similar = similarItems(kept)
    return (history) => {
      const scores = new Float64Array(kept.items)
      for (const item of history)
        for (let other = 0, at = item * kept.items; other < kept.items; other += 1)
          scores[other]! += similar[at + other]!
      return scores
    }
  })
  let startedAt = performance.now()
  const items = await learnFactors(kept, settings, 'iALS')
  const alsSeconds = (performance.now() - startedAt) / 1_000
  startedAt = performance.now()
  const ease = learnWeights(kept, 'EASE')
  const easeSeconds = (performance.now() - startedAt) / 1_000
  const sources = toSources(kept, items, ease, settings)
  const scoreBy = (weightsOf: (films: number) => readonly number[]) => (): Score => (history) =>
    blend(toParts(sources, [...history]), weightsOf(history.length))
  const { dimension, regularisation, unobservedWeight } = settings
  measure(
    `iALS (d=${dimension}, λ=${regularisation}, α₀=${unobservedWeight})`,
    scoreBy(() => [1, 0, 0, 0, 0, 0]),
    alsSeconds,
  )
  measure(
    'EASE',
    scoreBy(() => [0, 1, 0, 0, 0, 0]),
    easeSeconds,
  )
  measure(
    'fixed blend (half and half)',
    scoreBy((films) => fixedBlend[bucketOf(films)]!),
  )
  measure(
    'learned blend',
    scoreBy((films) => learned[bucketOf(films)]!),
  )
  return figures

  function measure(method: string, prepare: () => Score, seconds?: number): void {
    const from = performance.now()
    const score = prepare()
    const took = seconds ?? (performance.now() - from) / 1_000
    figures.push({ method, ...rank(kept, heldBack, score), seconds: took })
  }

  async function learnFactors(from: Interactions, chosen: AlsSettings, what: string) {
    const onEpoch = (done: number, total: number) => onProgress(what, done / total)
    return (await trainAls(from, { settings: chosen, threads, onEpoch })).items
  }

  function learnWeights(from: Interactions, what: string) {
    return createEaseScorer(trainEase(from, { onProgress: (done) => onProgress(what, done) }))
  }

  async function choose(): Promise<{ settings: AlsSettings; learned: Blend }> {
    const inner = split(kept, 0.9, seed + 1)
    const weights = learnWeights(inner.kept, 'EASE, to choose')
    let best: { settings: AlsSettings; sources: PartSources; ndcg: number } | undefined
    for (const [place, candidate] of candidates.entries()) {
      const chosen = { ...options.settings, ...candidate }
      const factors = await learnFactors(inner.kept, chosen, `iALS, to choose (${place + 1} of ${candidates.length})`)
      const tried = toSources(inner.kept, factors, weights, chosen)
      const { ndcg } = rank(inner.kept, inner.heldBack, (history) =>
        blend(toParts(tried, [...history]), fixedBlend[3]!),
      )
      if (!best || ndcg > best.ndcg) best = { settings: chosen, sources: tried, ndcg }
    }
    const onBlend = (done: number) => onProgress('blend', done)
    return { settings: best!.settings, learned: learnBlend(best!.sources, inner, { seed, onProgress: onBlend }) }
  }
}

function toSources(
  from: Interactions,
  items: Awaited<ReturnType<typeof trainAls>>['items'],
  addEaseScores: ReturnType<typeof createEaseScorer>,
  settings: AlsSettings,
): PartSources {
  const popularity = standardise(Float64Array.from(countItems(from), (count) => Math.log1p(count)))
  const places = Int32Array.from({ length: from.items }, (_, item) => item)
  const nothing = new Float64Array(from.items)
  return {
    learned: { items, foldIn: createFoldIn(items, settings), addEaseScores, places },
    text: undefined,
    facts: [popularity, nothing, nothing],
  }
}

/** Ranks every item for every user who has something held back. */
function rank(kept: Interactions, heldBack: Interactions, score: Score): Omit<Figures, 'method' | 'seconds'> {
  const shown = new Set<number>()
  let [ndcg, recall, users] = [0, 0, 0]
  for (let user = 0; user < kept.users; user += 1) {
    const wanted = new Set(rowOf(heldBack, user))
    const history = rowOf(kept, user)
    if (wanted.size === 0 || history.length === 0) continue
    const scores = score(history)
    for (const item of history) scores[item] = -Infinity
    const list = topOf(scores, listLength)
    for (const item of list) shown.add(item)
    const hits = list.map((item) => wanted.has(item))
    ndcg += gainOf(hits, wanted.size)
    recall += hits.filter(Boolean).length / wanted.size
    users += 1
  }
  return { ndcg: ndcg / users, recall: recall / users, coverage: shown.size / kept.items }
}
