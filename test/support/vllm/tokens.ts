/**
 * The double's tokenizer: prompts become hashes of their pieces, answers are the pieces of one fixed text. An answer's
 * ids say where in the text they stand, so that a prompt that ends in them is continued where it left off.
 */
export interface Tokenizer {
  encode(text: string): number[]
  /** Bytes of several ids, which may end inside a character. */
  decode(ids: number[]): Buffer
  /** The id of the answer's token at this place. */
  idAt(place: number): number
  bytesAt(place: number): Buffer
  /** The place in the answer that follows these ids: 0 for a prompt, further on for one that ends in an answer. */
  placeAfter(ids: number[]): number
}

const text =
  '안녕하세요. 오늘은 짧은 이야기를 하나 들려드릴게요. Once a gate stood open all night, 그리고 아무도 잃어버린 것이 없었습니다. ' +
  'The keeper counted lamps — 하나, 둘, 셋 — and "quoted" what the wind\\had said. 👩‍🚀 Then morning came.\n'

const promptIdsMax = 100_000

export function createTokenizer(splitUtf8: boolean): Tokenizer {
  const pieces = (splitUtf8 ? splitInsideCharacters : splitBetweenCharacters)(text)
  const known = new Map<number, string>()

  const bytesAt = (place: number): Buffer => pieces[place % pieces.length] as Buffer
  return {
    encode(prompt) {
      return (prompt.match(/\p{Script=Hangul}|[^\p{Script=Hangul}]{1,4}/gsu) ?? []).map((piece) => {
        const id = hash(piece) % promptIdsMax
        known.set(id, piece)
        return id
      })
    },
    decode: (ids) =>
      Buffer.concat(
        ids.map((id) => (id < promptIdsMax ? Buffer.from(known.get(id) ?? '') : bytesAt(id - promptIdsMax))),
      ),
    idAt: (place) => promptIdsMax + place,
    bytesAt,
    placeAfter(ids) {
      const last = ids.at(-1) ?? 0
      return last < promptIdsMax ? 0 : last - promptIdsMax + 1
    },
  }
}

const splitBetweenCharacters = (all: string): Buffer[] =>
  (all.match(/\p{Script=Hangul}{1,2}|[^\p{Script=Hangul}]{1,4}/gsu) ?? []).map((piece) => Buffer.from(piece))

/** Every token ends inside a character where the text has characters of several bytes. */
function splitInsideCharacters(all: string): Buffer[] {
  const bytes = Buffer.from(all)
  return Array.from({ length: Math.ceil(bytes.length / 2) }, (_, index) => bytes.subarray(index * 2, index * 2 + 2))
}

/** How many bytes at the end belong to a character that is not whole yet. */
export function incompleteBytes(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0
    if (byte < 0x80) return 0
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? back : 0
  }
  return 0
}

function hash(piece: string): number {
  let value = 2_166_136_261
  for (let index = 0; index < piece.length; index++)
    value = Math.imul(value ^ piece.charCodeAt(index), 16_777_619) >>> 0
  return value
}
