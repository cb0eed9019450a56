/** Brings scores to [0, 1]; to 0 where all are the same. */
export function toUnit(scores: Float64Array): Float64Array {
  let [low, high] = [Infinity, -Infinity]
  for (let index = 0; index < scores.length; index += 1) {
    const value = scores[index]!
    if (value < low) low = value
    if (value > high) high = value
  }
  const range = high - low
  const unit = new Float64Array(scores.length)
  if (range > 0) for (let index = 0; index < unit.length; index += 1) unit[index] = (scores[index]! - low) / range
  return unit
}
