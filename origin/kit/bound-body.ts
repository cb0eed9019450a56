import type { MiddlewareHandler } from 'hono'
import { OriginError } from './error.ts'

/** Refuses a body of more than `bodyBytesMax` with 413, by its declared length or, without one, while it is read. */
export function boundBody(bodyBytesMax: number): MiddlewareHandler {
  return async function boundsBody(c, next) {
    const { body, headers } = c.req.raw
    const length = headers.get('content-length')
    if (length === null && body) c.req.raw = await readWhole(c.req.raw, body, bodyBytesMax)
    if (Number(length) > bodyBytesMax) throw tooLarge(bodyBytesMax)
    await next()
  }
}

async function readWhole(request: Request, body: ReadableStream<Uint8Array>, bytesMax: number): Promise<Request> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > bytesMax) throw tooLarge(bytesMax)
    chunks.push(chunk)
  }
  // Not `new Request(request, …)`: what the listener hands over only looks like one.
  const { url, method, headers } = request
  return new Request(url, { method, headers, body: bytes > 0 ? Buffer.concat(chunks) : null })
}

function tooLarge(bytesMax: number): OriginError {
  // What is left of the body is not read, so the connection cannot carry another request.
  const headers = { Connection: 'close' }
  return new OriginError('body_too_large', `The body is larger than ${bytesMax} bytes`, { headers })
}
