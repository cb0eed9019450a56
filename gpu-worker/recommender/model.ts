import type { AlsSettings, Side } from './als.ts'
import type { ItemWeights } from './ease.ts'
import type { FoldIn } from './fold-in.ts'
import { createFoldIn } from './fold-in.ts'

/** What was learned of the films, in the order of `films`: numbers of films as the catalogue has them. */
export type Model = {
  version: number
  films: Int32Array
  settings: AlsSettings
  items: Side
  ease: ItemWeights
  /** Share of iALS in the blend with EASE. */
  share: number
}

/** A model that is ready to serve. */
export type ReadyModel = Model & { placeOf: Map<number, number>; foldIn: FoldIn }

export function toReady(model: Model): ReadyModel {
  const placeOf = new Map([...model.films].map((film, place) => [film, place]))
  return { ...model, placeOf, foldIn: createFoldIn(model.items, model.settings) }
}

/** A model as one piece of bytes: a line of JSON, then the arrays one behind the other. */
export function toBytes({ films, settings, items, ease, share }: Model): Buffer {
  const head = { settings, share, films: films.length, dimension: items.dimension, width: ease.width }
  const parts = [films, items.factors, ease.neighbours, ease.weights].map(({ buffer, byteOffset, byteLength }) =>
    Buffer.from(buffer, byteOffset, byteLength),
  )
  const line = `${JSON.stringify(head)}\n`
  // The arrays begin at a multiple of four bytes, so that they can be read in place.
  return Buffer.concat([Buffer.from(line.padStart(Math.ceil(Buffer.byteLength(line) / 4) * 4)), ...parts])
}

/** Reads what `toBytes` wrote. Throws when the bytes are not that. */
export function fromBytes(bytes: Buffer, version: number): Model {
  const end = bytes.indexOf(10) + 1
  const { settings, share, films: count, dimension, width } = JSON.parse(bytes.toString('utf8', 0, end))
  const copy = bytes.buffer.slice(bytes.byteOffset + end, bytes.byteOffset + bytes.byteLength)
  const lengths = [count, count * dimension, count * width, count * width]
  if (copy.byteLength !== 4 * lengths.reduce((sum, length) => sum + length, 0))
    throw new Error('a stored model is cut off')
  const at = lengths.map((_, index) => 4 * lengths.slice(0, index).reduce((sum, length) => sum + length, 0))
  return {
    version,
    settings,
    share,
    films: new Int32Array(copy, at[0], lengths[0]),
    items: { factors: new Float32Array(copy, at[1], lengths[1]), count, dimension },
    ease: {
      items: count,
      width,
      neighbours: new Int32Array(copy, at[2], lengths[2]),
      weights: new Float32Array(copy, at[3], lengths[3]),
    },
  }
}
