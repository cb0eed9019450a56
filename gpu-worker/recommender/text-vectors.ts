import type { Film } from './film.ts'

/** One vector of `dimension` per text, each of length 1. */
export type Vectors = { dimension: number; values: Float32Array }

/** With the vector of another text, by the same weights. */
export type LexicalVectors = Vectors & { toVector(text: string): Float32Array }

/** What a film is compared by: title (year). genres. tags. overview. */
export const toFilmText = ({ title, release_date, genres, tags, overview }: Film): string =>
  `${title} (${release_date.slice(0, 4)}). ${genres.join(', ')}. ${tags.join(', ')}. ${overview}`

/** Length of a vector: what the column of the database takes. */
const vectorDimension = 1_024

/**
 * Vectors from words alone, for when no model makes any: each word and each pair of neighbours falls into one of
 * `dimension` places with a sign (feature hashing, Weinberger et al. 2009), weighted by how rare it is among the texts
 * (idf). It knows spelling, not meaning.
 */
export function lexicalVectors(texts: readonly string[], dimension = vectorDimension): LexicalVectors {
  const terms = texts.map(toTerms)
  const documents = new Map<string, number>()
  for (const list of terms) for (const term of new Set(list)) documents.set(term, (documents.get(term) ?? 0) + 1)
  const weightOf = (term: string): number => Math.log((1 + texts.length) / (1 + (documents.get(term) ?? 0)))
  const values = new Float32Array(texts.length * dimension)
  for (const [index, list] of terms.entries()) place(list, values.subarray(index * dimension, (index + 1) * dimension))
  return { ...normaliseRows({ dimension, values }), toVector }

  function toVector(text: string): Float32Array {
    const vector = new Float32Array(dimension)
    place(toTerms(text), vector)
    return normaliseRows({ dimension, values: vector }).values
  }

  function place(list: readonly string[], vector: Float32Array): void {
    for (const term of list) {
      const hash = fnv1a(term)
      vector[hash % dimension]! += (hash & 0x10000 ? 1 : -1) * weightOf(term)
    }
  }
}

/** Brings each vector to length 1, in place; one of nothing stays so. */
export function normaliseRows(vectors: Vectors): Vectors {
  const { dimension, values } = vectors
  for (let start = 0; start < values.length; start += dimension) {
    let squares = 0
    for (let at = start; at < start + dimension; at += 1) squares += values[at]! * values[at]!
    const length = Math.sqrt(squares) || 1
    for (let at = start; at < start + dimension; at += 1) values[at]! /= length
  }
  return vectors
}

function toTerms(text: string): string[] {
  const words =
    text
      .normalize('NFKC')
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu) ?? []
  const pairs = words.slice(1).map((word, index) => `${words[index]} ${word}`)
  return [...words, ...pairs]
}

// FNV-1a (RFC 9923) of 32 bits over the code units.
function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
