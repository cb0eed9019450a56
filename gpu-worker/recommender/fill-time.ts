/** What can be picked: its minutes and what it is worth. */
export type Choice = { runtime: number; value: number }

type FillOptions = {
  /** The time there is, in minutes. */
  minutes: number
  /** How many may be picked. */
  countMax: number
}

/** How full a track should be. */
const fillMin = 0.9

/**
 * The places of the choices with the highest total value that fill 90 to 100 % of the time; where nothing does, of those
 * that fill the most of it. Exact: a 0/1 knapsack by dynamic programming over minutes and count, never over the time.
 * Work and memory grow with choices × minutes × count: 300 × 180 × 5 take about a millisecond.
 */
export function fillTime(choices: readonly Choice[], { minutes, countMax }: FillOptions): number[] {
  const width = minutes + 1
  // best[count × width + minute]: the highest value of exactly so many choices that take exactly so long.
  const best = new Float64Array((countMax + 1) * width).fill(-Infinity)
  best[0] = 0
  const taken = new Uint8Array(choices.length * (countMax + 1) * width)
  for (const [place, { runtime, value }] of choices.entries()) {
    const from = place * (countMax + 1) * width
    for (let count = countMax; count >= 1; count -= 1)
      for (let minute = minutes; minute >= runtime; minute -= 1) {
        const candidate = best[(count - 1) * width + minute - runtime]! + value
        const at = count * width + minute
        if (candidate <= best[at]!) continue
        best[at] = candidate
        taken[from + at] = 1
      }
  }
  return toPlaces(choices, taken, findEnd(best, minutes, countMax), countMax, width)
}

type End = { count: number; minute: number }

function findEnd(best: Float64Array, minutes: number, countMax: number): End {
  const width = minutes + 1
  let end: End = { count: 0, minute: 0 }
  let value = -Infinity
  for (let minute = minutes; minute >= Math.ceil(minutes * fillMin); minute -= 1)
    for (let count = 1; count <= countMax; count += 1)
      if (best[count * width + minute]! > value) {
        value = best[count * width + minute]!
        end = { count, minute }
      }
  if (value > -Infinity) return end
  for (let minute = Math.ceil(minutes * fillMin) - 1; minute > 0; minute -= 1) {
    for (let count = 1; count <= countMax; count += 1)
      if (best[count * width + minute]! > value) {
        value = best[count * width + minute]!
        end = { count, minute }
      }
    if (value > -Infinity) return end
  }
  return end
}

function toPlaces(choices: readonly Choice[], taken: Uint8Array, end: End, countMax: number, width: number): number[] {
  const places: number[] = []
  let { count, minute } = end
  for (let place = choices.length - 1; place >= 0 && count > 0; place -= 1) {
    if (taken[place * (countMax + 1) * width + count * width + minute] !== 1) continue
    places.push(place)
    minute -= choices[place]!.runtime
    count -= 1
  }
  return places
}
