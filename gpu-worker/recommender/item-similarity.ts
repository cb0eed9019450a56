import type { Interactions } from './interactions.ts'
import { countItems, rowOf } from './interactions.ts'

/**
 * The yardstick: Microsoft's “simple algorithm for recommendation” (SAR), an item-to-item method with Jaccard similarity.
 * Scores of an item are the sum of its similarities to the history. Returns similarities as `items` × `items`.
 */
export function similarItems(interactions: Interactions): Float32Array {
  const { users, items } = interactions
  const together = new Float32Array(items * items)
  for (let user = 0; user < users; user += 1) {
    const row = rowOf(interactions, user)
    for (const a of row) for (const b of row) together[a * items + b]! += 1
  }
  const counts = countItems(interactions)
  for (let a = 0; a < items; a += 1)
    for (let b = 0; b < items; b += 1) {
      const both = together[a * items + b]!
      if (both > 0) together[a * items + b] = both / (counts[a]! + counts[b]! - both)
    }
  return together
}
