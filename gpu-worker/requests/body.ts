import type { IncomingMessage } from 'node:http'
import { WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'

export type BodyLimits = Pick<Limits, 'bodyBytesMax' | 'bodyTimeoutMs'>

/** Reads a body whole; `done` is called once, with what is wrong with it or the bytes, and not at all when the client leaves. */
export function readBody(
  request: IncomingMessage,
  limits: BodyLimits,
  done: (body: Buffer | WorkerError) => void,
): void {
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? ''))
    return done(new WorkerError('unsupported_media_type', "Only 'application/json' is taken"))
  if (Number(request.headers['content-length'] ?? 0) > limits.bodyBytesMax) return done(toTooLarge(limits))
  const chunks: Buffer[] = []
  let bytes = 0
  const late = setTimeout(
    () => finish(new WorkerError('body_timeout', 'The body did not come in time')),
    limits.bodyTimeoutMs,
  )
  const onData = (chunk: Buffer): void => {
    bytes += chunk.length
    chunks.push(chunk)
    if (bytes > limits.bodyBytesMax) finish(toTooLarge(limits))
  }
  const onEnd = (): void => finish(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks))
  const onClose = (): void => clearTimeout(late)
  request.on('data', onData).on('end', onEnd).on('close', onClose)

  function finish(result: Buffer | WorkerError): void {
    clearTimeout(late)
    request.off('data', onData).off('end', onEnd).off('close', onClose)
    done(result)
  }
}

const toTooLarge = ({ bodyBytesMax }: BodyLimits): WorkerError =>
  new WorkerError('body_too_large', `The body is larger than ${bodyBytesMax} bytes`)
