import type { AlsSettings, Side } from './als.ts'
import type { Blend } from './blend.ts'
import { dot } from './dot.ts'
import type { ItemWeights } from './ease.ts'
import { createEaseScorer } from './ease.ts'
import type { FoldIn } from './fold-in.ts'
import { createFoldIn } from './fold-in.ts'

/** What was learned of the films, in the order of `films`: numbers of films as the catalogue has them. */
export type Model = {
  version: number
  films: Int32Array
  settings: AlsSettings
  items: Side
  ease: ItemWeights
  /** Weights of what a film is scored by. */
  blend: Blend
}

/** A model that is ready to serve. */
export type ReadyModel = Model & {
  placeOf: Map<number, number>
  foldIn: FoldIn
  addEaseScores: ReturnType<typeof createEaseScorer>
  /** How alike films are to those who take them, in [−1, 1], by their places in the model; 0 where one is −1. */
  cosines(place: number, others: Int32Array): Float64Array
}

export function toReady(model: Model): ReadyModel {
  const { films, items, settings, ease } = model
  return {
    ...model,
    placeOf: new Map([...films].map((film, place) => [film, place])),
    foldIn: createFoldIn(items, settings),
    addEaseScores: createEaseScorer(ease),
    cosines: createCosines(items),
  }
}

function createCosines({ factors, count, dimension: d }: Side): ReadyModel['cosines'] {
  const lengths = Float64Array.from({ length: count }, (_, row) =>
    Math.hypot(...factors.subarray(row * d, (row + 1) * d)),
  )
  return (place, others) => {
    const cosines = new Float64Array(others.length)
    if (place === -1) return cosines
    const own = Float64Array.from(factors.subarray(place * d, (place + 1) * d))
    for (let index = 0; index < others.length; index += 1) {
      const other = others[index]!
      if (other !== -1) cosines[index] = dot(factors, other * d, own) / (lengths[place]! * lengths[other]! || 1)
    }
    return cosines
  }
}

/** A model as one piece of bytes: a line of JSON, then the arrays one behind the other. */
export function toBytes({ films, settings, items, ease, blend }: Model): Buffer {
  const head = {
    settings,
    blend,
    films: films.length,
    dimension: items.dimension,
    members: ease.members.length,
    width: ease.width,
  }
  const parts = [films, items.factors, ease.members, ease.neighbours, ease.weights].map(
    ({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength),
  )
  const line = `${JSON.stringify(head)}\n`
  // The arrays begin at a multiple of four bytes, so that they can be read in place.
  return Buffer.concat([Buffer.from(line.padStart(Math.ceil(Buffer.byteLength(line) / 4) * 4)), ...parts])
}

/** Reads what `toBytes` wrote. Throws when the bytes are not that. */
export function fromBytes(bytes: Buffer, version: number): Model {
  const end = bytes.indexOf(10) + 1
  const { settings, blend, films: count, dimension, members, width } = JSON.parse(bytes.toString('utf8', 0, end))
  const copy = bytes.buffer.slice(bytes.byteOffset + end, bytes.byteOffset + bytes.byteLength)
  const lengths = [count, count * dimension, members, members * width, members * width]
  if (copy.byteLength !== 4 * lengths.reduce((sum, length) => sum + length, 0))
    throw new Error('a stored model is cut off')
  const at = lengths.map((_, index) => 4 * lengths.slice(0, index).reduce((sum, length) => sum + length, 0))
  return {
    version,
    settings,
    blend,
    films: new Int32Array(copy, at[0], lengths[0]),
    items: { factors: new Float32Array(copy, at[1], lengths[1]), count, dimension },
    ease: {
      members: new Int32Array(copy, at[2], lengths[2]),
      width,
      neighbours: new Int32Array(copy, at[3], lengths[3]),
      weights: new Float32Array(copy, at[4], lengths[4]),
    },
  }
}
