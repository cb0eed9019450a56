/** Share of what a film is worth by itself, beside what it does not share with those before it. */
const lambda = 0.7

/**
 * What each candidate is worth once those that go before it are taken: λ of its own value and 1 − λ of how unlike the
 * nearest of them it is. The next to go is always the one that is worth most then (maximal marginal relevance, Carbonell
 * and Goldstein, 1998). `likeness` says how like one place some others are; it and the values are in [0, 1], about.
 */
export function diversify(
  candidates: readonly { place: number; value: number }[],
  likeness: (place: number, others: Int32Array) => Float64Array,
): Float64Array {
  const worth = new Float64Array(candidates.length)
  const nearest = new Float64Array(candidates.length)
  // Those that are left come first.
  const order = Int32Array.from(candidates.keys())
  const places = Int32Array.from(candidates, ({ place }) => place)
  for (let left = candidates.length; left > 0; left -= 1) {
    let best = 0
    let most = -Infinity
    for (let at = 0; at < left; at += 1) {
      const marginal = lambda * candidates[order[at]!]!.value + (1 - lambda) * (1 - nearest[order[at]!]!)
      if (marginal <= most) continue
      best = at
      most = marginal
    }
    const taken = order[best]!
    const place = places[best]!
    worth[taken] = most
    order[best] = order[left - 1]!
    places[best] = places[left - 1]!
    const alike = likeness(place, places.subarray(0, left - 1))
    for (let at = 0; at < alike.length; at += 1) nearest[order[at]!] = Math.max(nearest[order[at]!]!, alike[at]!)
  }
  return worth
}
