import { dot } from './dot.ts'
import type { Vectors } from './text-vectors.ts'

/** Texts that can be compared with each other, by their place. */
export type TextIndex = {
  /** The cosine of every text to the middle of some. */
  toMiddleOf(places: readonly number[]): Float64Array
  /** The cosines of one text to some. */
  toEach(place: number, others: ArrayLike<number>): Float64Array
}

const sparseUpTo = 0.125

/** Vectors of words are mostly nothing, and are kept as what is there; those of a model are kept as they are. */
export function createTextIndex(vectors: Vectors): TextIndex {
  let filled = 0
  for (const value of vectors.values) if (value !== 0) filled += 1
  return filled <= sparseUpTo * vectors.values.length ? indexSparse(vectors, filled) : indexDense(vectors)
}

function indexDense({ dimension, values }: Vectors): TextIndex {
  const count = values.length / dimension
  return {
    toMiddleOf(places) {
      const middle = new Float64Array(dimension)
      for (const place of places) for (let i = 0; i < dimension; i += 1) middle[i]! += values[place * dimension + i]!
      normalise(middle)
      const cosines = new Float64Array(count)
      for (let place = 0; place < count; place += 1) cosines[place] = dot(values, place * dimension, middle)
      return cosines
    },
    toEach(place, others) {
      const own = Float64Array.from(values.subarray(place * dimension, (place + 1) * dimension))
      const cosines = new Float64Array(others.length)
      for (let index = 0; index < others.length; index += 1)
        cosines[index] = dot(values, others[index]! * dimension, own)
      return cosines
    },
  }
}

/** By row for one text, by column for all that have something in common with it. */
function indexSparse({ dimension, values }: Vectors, filled: number): TextIndex {
  const count = values.length / dimension
  const rows = { starts: new Int32Array(count + 1), columns: new Uint16Array(filled), values: new Float32Array(filled) }
  const columns = {
    starts: new Int32Array(dimension + 1),
    rows: new Int32Array(filled),
    values: new Float32Array(filled),
  }
  for (let at = 0, next = 0; at < values.length; at += 1) {
    if (values[at] === 0) continue
    rows.columns[next] = at % dimension
    rows.values[next] = values[at]!
    next += 1
    rows.starts[Math.floor(at / dimension) + 1] = next
    columns.starts[(at % dimension) + 1]! += 1
  }
  for (let row = 0; row < count; row += 1) rows.starts[row + 1] = Math.max(rows.starts[row + 1]!, rows.starts[row]!)
  for (let column = 0; column < dimension; column += 1) columns.starts[column + 1]! += columns.starts[column]!
  const next = columns.starts.slice()
  for (let row = 0; row < count; row += 1)
    for (let at = rows.starts[row]!; at < rows.starts[row + 1]!; at += 1) {
      const to = next[rows.columns[at]!]!++
      columns.rows[to] = row
      columns.values[to] = rows.values[at]!
    }

  /** One row with what is nothing; empty between calls. */
  const spread = new Float64Array(dimension)
  const { starts, columns: terms, values: weights } = rows
  return {
    toMiddleOf(places) {
      const middle = new Float64Array(dimension)
      for (const place of places)
        for (let at = rows.starts[place]!; at < rows.starts[place + 1]!; at += 1)
          middle[rows.columns[at]!]! += rows.values[at]!
      normalise(middle)
      const cosines = new Float64Array(count)
      for (let column = 0; column < dimension; column += 1) {
        const value = middle[column]!
        if (value === 0) continue
        const end = columns.starts[column + 1]!
        for (let at = columns.starts[column]!; at < end; at += 1)
          cosines[columns.rows[at]!]! += value * columns.values[at]!
      }
      return cosines
    },
    toEach(place, others) {
      for (let at = rows.starts[place]!; at < rows.starts[place + 1]!; at += 1)
        spread[rows.columns[at]!] = rows.values[at]!
      const cosines = new Float64Array(others.length)
      for (let index = 0; index < others.length; index += 1) {
        const end = starts[others[index]! + 1]!
        let sum = 0
        for (let at = starts[others[index]!]!; at < end; at += 1) sum += weights[at]! * spread[terms[at]!]!
        cosines[index] = sum
      }
      spread.fill(0)
      return cosines
    },
  }
}

function normalise(vector: Float64Array): void {
  let squares = 0
  for (const value of vector) squares += value * value
  const length = Math.sqrt(squares) || 1
  for (let i = 0; i < vector.length; i += 1) vector[i]! /= length
}
