import type { Interactions } from './interactions.ts'
import { fromRows, rowOf, transpose } from './interactions.ts'
import { createRandom, shuffle } from './random.ts'

/** Holds back a part of each item's ratings. */
export function split(
  interactions: Interactions,
  ratio: number,
  seed: number,
): { kept: Interactions; heldBack: Interactions } {
  const byItem = transpose(interactions)
  const random = createRandom(seed)
  const kept: number[][] = Array.from({ length: interactions.users }, () => [])
  const heldBack: number[][] = Array.from({ length: interactions.users }, () => [])
  for (let item = 0; item < interactions.items; item += 1) {
    const users = shuffle(rowOf(byItem, item), random)
    const end = Math.round(users.length * ratio)
    for (const [place, user] of users.entries()) (place < end ? kept : heldBack)[user]!.push(item)
  }
  return { kept: fromRows(interactions.items, kept), heldBack: fromRows(interactions.items, heldBack) }
}
