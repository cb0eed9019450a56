import { once } from 'node:events'
import { connect, constants } from 'node:http2'
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2'
import { connect as connectTls } from 'node:tls'
import type { ContractRequest, ContractResponse } from './suite.ts'
import { isWhole } from './wire-client.ts'
import type { ToHopFields } from './wire-client.ts'

/** A client that asks over HTTP/2 and TLS, all requests on one connection for as long as that lives. */
export function createHttp2Client(port: number, toHopFields: ToHopFields) {
  let session: ClientHttp2Session | undefined

  function open(): ClientHttp2Session {
    if (session && !session.closed && !session.destroyed) return session
    session = connect(`https://127.0.0.1:${port}`, {
      ...asWritten,
      createConnection: () =>
        // Who it is, is not what these tests ask.
        connectTls({ port, host: '127.0.0.1', ALPNProtocols: ['h2'], rejectUnauthorized: false }),
    })
    session.on('error', () => {})
    return session
  }

  async function fetch(request: ContractRequest): Promise<ContractResponse> {
    const { host, target, method = 'GET', body, signal } = request
    const fields = [...toHopFields(request), ...(request.headers ?? [])]
    if (body !== undefined && isWhole(body)) fields.push(['content-length', String(Buffer.byteLength(body))])
    const pseudo = [':method', method, ':scheme', 'https', ':authority', host, ':path', target]
    const stream = open().request([...pseudo, ...fields.flatMap(([name, value]) => [name.toLowerCase(), value])], {
      endStream: body === undefined,
    })
    const { promise, resolve, reject } = Promise.withResolvers<ContractResponse>()
    signal?.addEventListener('abort', () => {
      stream.close(constants.NGHTTP2_CANCEL)
      reject(signal.reason)
    })
    stream.once('response', (_headers, _flags, received) => resolve(toResponse(stream, received as string[])))
    stream.on('error', reject)
    stream.once('close', () => reject(new Error('the stream was closed without an answer')))
    if (body !== undefined && isWhole(body)) stream.end(body)
    else if (body !== undefined) void send(stream, body).catch(() => stream.close(constants.NGHTTP2_CANCEL))
    return promise
  }

  return {
    fetch,
    connectWebSocket: () => Promise.reject(new Error('HTTP/2 carries no WebSockets here')),
    close: () => session?.destroy(),
  }
}

/** Fields go out as often as a test writes them; Node has it, its types do not. */
const asWritten: object = { strictSingleValueFields: false }

/** Until somebody answers who does not wait for the rest. */
async function send(stream: ClientHttp2Stream, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const over = new Promise((close) => stream.once('close', close))
  for await (const chunk of chunks) {
    if (stream.destroyed || stream.closed) return
    if (!stream.write(chunk)) await Promise.race([once(stream, 'drain'), over])
  }
  stream.end()
}

/** Field lines without the pseudo-fields. */
function toResponse(stream: ClientHttp2Stream, received: string[]): ContractResponse {
  const headers = received.flatMap((text, index) =>
    index % 2 === 0 && !text.startsWith(':') ? [text, received[index + 1] ?? ''] : [],
  )
  return { status: Number(received[received.indexOf(':status') + 1]), headers, body: stream }
}
