/** Brings scores to mean 0 and deviation 1, so that scores of different kinds can be added. In place. */
function standardise(scores: Float64Array): Float64Array {
  let [sum, squares] = [0, 0]
  for (const score of scores) {
    sum += score
    squares += score * score
  }
  const mean = sum / scores.length
  const deviation = Math.sqrt(Math.max(0, squares / scores.length - mean * mean)) || 1
  for (let index = 0; index < scores.length; index += 1) scores[index] = (scores[index]! - mean) / deviation
  return scores
}

/** `share` of the first and the rest of the second, each standardised first. */
export function blend(first: Float64Array, second: Float64Array, share: number): Float64Array {
  standardise(first)
  standardise(second)
  for (let index = 0; index < first.length; index += 1)
    first[index] = share * first[index]! + (1 - share) * second[index]!
  return first
}
