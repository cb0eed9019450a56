import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import { toWorkerError, WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'

/** Who asks for vectors, and how long that may take. */
export type Asking = {
  /** Where `/v1/embeddings` is: the worker's own address, so that texts wait in the same line as all requests. */
  url: string
  model: string
  /** An `Authorization` field. */
  authorization: string
  /** Milliseconds that are left. */
  withinMs: number
  signal: AbortSignal
}

/** A vector of length 1 for each text. Throws a WorkerError, or the signal's reason. */
export async function embed(texts: readonly string[], asking: Asking): Promise<Float32Array[]> {
  const { url, model, authorization, withinMs, signal } = asking
  const late = AbortSignal.timeout(Math.ceil(withinMs) + graceMs)
  try {
    const answer = await fetch(`${url}/v1/embeddings`, {
      method: 'POST',
      headers: {
        authorization,
        'content-type': 'application/json',
        'x-envoy-expected-rq-timeout-ms': String(Math.max(1, Math.ceil(withinMs))),
      },
      body: JSON.stringify({ model, input: texts }),
      signal: AbortSignal.any([signal, late]),
    })
    const body: unknown = await answer.json()
    if (!answer.ok) throw toWorkerError(answer.status, body, answer.headers.get('retry-after'))
    return readVectors(body, texts.length)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof WorkerError) throw error
    if (late.aborted) throw new WorkerError('deadline_exceeded', 'The text was not embedded in time')
    throw new WorkerError('upstream_unavailable', 'Texts cannot be embedded now', {
      cause: error,
      retryAfterSeconds: 5,
    })
  }
}

/** The worker itself ends what takes too long; this is for when it does not. */
const graceMs = 1_000

/** Tries again, later and later, as long as it may help. Throws what the last try threw. */
export async function embedPatiently(
  texts: readonly string[],
  { authorize, ...asking }: Omit<Asking, 'authorization'> & { authorize(): Promise<string> },
  { limits, pause = wait, random = Math.random }: Patience,
): Promise<Float32Array[]> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await embed(texts, { ...asking, authorization: await authorize() })
    } catch (error) {
      const mayHelp = error instanceof WorkerError && (error.status === 429 || error.status >= 500)
      if (!mayHelp || attempt >= limits.embedAttemptsMax) throw error
      // Full jitter, so that several workers that were refused together do not come back together.
      const backoffMs = Math.min(limits.embedBackoffMaxMs, firstBackoffMs * 2 ** attempt) * random()
      const askedMs = Math.min(limits.embedBackoffMaxMs, 1_000 * (error.retryAfterSeconds ?? 0))
      await pause(Math.max(backoffMs, askedMs), undefined, { signal: asking.signal })
    }
  }
}

type Patience = {
  limits: Pick<Limits, 'embedAttemptsMax' | 'embedBackoffMaxMs'>
  /** Waits so many milliseconds. */
  pause?: (ms: number, value: undefined, options: { signal: AbortSignal }) => Promise<unknown>
  random?: () => number
}

const firstBackoffMs = 250

const answerOf = z.object({
  data: z.array(z.object({ index: z.int().min(0), embedding: z.array(z.number()).min(1) })),
})

function readVectors(body: unknown, count: number): Float32Array[] {
  const { data, error } = answerOf.safeParse(body)
  if (!data) throw new WorkerError('upstream_invalid', 'The answer has no vectors', { cause: error })
  const vectors = data.data.toSorted((a, b) => a.index - b.index).map(({ embedding }) => toUnit(embedding))
  const [first] = vectors
  const isWhole = vectors.length === count && data.data.every(({ index }) => index < count)
  if (!first || !isWhole || vectors.some(({ length }) => length !== first.length))
    throw new WorkerError('upstream_invalid', 'The answer has not one vector of one length for each text')
  return vectors
}

function toUnit(values: readonly number[]): Float32Array {
  const length = Math.hypot(...values)
  if (!(length > 0) || length === Infinity) throw new WorkerError('upstream_invalid', 'A vector has no direction')
  return Float32Array.from(values, (value) => value / length)
}
