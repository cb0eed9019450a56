/** A content coding that the gateway can send (RFC 9110 §8.4.1, RFC 7932, RFC 8878). */
export type Coding = 'br' | 'zstd' | 'gzip' | 'identity'

/** Which of the codings that there are the client likes best; undefined: it takes none of them. Ties: the first. */
export function chooseCoding(accept: string | undefined, available: readonly Coding[]): Coding | undefined {
  const weights = readWeights(accept)
  let chosen: Coding | undefined
  for (const coding of available)
    if (weights[coding] > 0 && (chosen === undefined || weights[coding] > weights[chosen])) chosen = coding
  return chosen
}

type Weights = Record<Coding, number>

/** Nothing said: anything may be sent, but only the plain one is understood for sure. */
const unsaid: Weights = { br: 0, zstd: 0, gzip: 0, identity: 1 }

/** Less than any weight that can be written: what is not named is taken, and anything that is named is liked better. */
const unnamed = 0.000_1

/** Browsers of one kind all say the same. */
const remembered = new Map<string, Weights>()
const rememberedMax = 256

function readWeights(accept: string | undefined): Weights {
  if (accept === undefined) return unsaid
  const known = remembered.get(accept)
  if (known) return known
  const weights = parseWeights(accept)
  if (remembered.size < rememberedMax && accept.length <= 256) remembered.set(accept, weights)
  return weights
}

/** RFC 9110 §12.5.3; a member whose weight cannot be read counts as refused. */
function parseWeights(accept: string): Weights {
  const named = new Map<string, number>()
  for (const member of accept.toLowerCase().split(',')) {
    const [coding = '', ...parameters] = member.split(';').map((part) => part.trim())
    if (coding !== '') named.set(coding === 'x-gzip' ? 'gzip' : coding, readWeight(parameters))
  }
  const rest = named.get('*')
  const weigh = (coding: Coding): number => named.get(coding) ?? rest ?? 0
  return {
    br: weigh('br'),
    zstd: weigh('zstd'),
    gzip: weigh('gzip'),
    identity: named.get('identity') ?? (rest === 0 ? 0 : unnamed),
  }
}

function readWeight(parameters: string[]): number {
  const weight = parameters.find((parameter) => parameter.startsWith('q='))
  if (weight === undefined) return 1
  return /^q=(0(\.\d{0,3})?|1(\.0{0,3})?)$/.test(weight) ? Number(weight.slice(2)) : 0
}

/** Whether content of this type gets smaller. Events are left alone: they must not wait for one another. */
export const isCompressible = (type: string): boolean =>
  compressible.test((type.split(';', 1)[0] ?? '').trim().toLowerCase())

const compressible =
  /^(text\/(?!event-stream$).+|application\/(?!grpc)(.+\+)?(json|xml|javascript|x-javascript|ecmascript|x-ndjson|yaml|wasm|vnd\.ms-fontobject)|image\/(svg\+xml|bmp|x-icon)|font\/(ttf|otf|collection))$/
