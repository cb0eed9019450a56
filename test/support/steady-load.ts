import { connect } from 'node:net'
import type { Socket } from 'node:net'

export interface SteadyLoad {
  answered(): number
  stop(): Promise<LoadResult>
}

interface LoadResult {
  answered: number
  /** Requests that were sent and not answered with 200. */
  failed: number
  /** Answers whose body is not what their X-Body says. */
  mixed: number
}

export interface LoadOptions {
  connections: number
  /** Each request on a connection of its own. */
  fresh?: boolean
  host?: string
}

/**
 * Requests without a pause, one at a time on each connection. A client that is blind to FIN: it writes its next request
 * without a look at whether the connection is still there, and closes only when the answer before said so.
 */
export function startLoad(
  port: number,
  { connections, fresh = false, host = 'shop.example' }: LoadOptions,
): SteadyLoad {
  const result: LoadResult = { answered: 0, failed: 0, mixed: 0 }
  const request = `GET / HTTP/1.1\r\nHost: ${host}\r\n${fresh ? 'Connection: close\r\n' : ''}\r\n`
  const stopping = new AbortController()

  async function run(): Promise<void> {
    let socket: Socket | undefined
    while (!stopping.signal.aborted) {
      socket ??= connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      const answer = await exchange(socket, request)
      const [head = '', body = ''] = answer.split('\r\n\r\n')
      if (!head.startsWith('HTTP/1.1 200 ')) result.failed++
      else result.answered++
      const expected = /\r\nX-Body: (.*)/i.exec(head)?.[1]
      if (expected !== undefined && body !== expected) result.mixed++
      if (answer !== '' && !/\r\nconnection: close/i.test(head)) continue
      socket.destroy()
      socket = undefined
    }
    socket?.destroy()
  }

  const running = Promise.all(Array.from({ length: connections }, run))
  return {
    answered: () => result.answered,
    stop: async () => {
      stopping.abort()
      await running
      return result
    },
  }
}

/** Empty when the connection was lost. */
function exchange(socket: Socket, request: string): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    const settle = (answer: string): void => {
      socket.off('data', read)
      socket.off('error', lose)
      socket.off('end', lose)
      socket.off('close', lose)
      resolve(answer)
    }
    const lose = (): void => settle('')
    const read = (chunk: Buffer): void => {
      text += chunk.toString('latin1')
      const end = text.indexOf('\r\n\r\n')
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1] ?? 0)
      if (end !== -1 && text.length >= end + 4 + length) settle(text)
    }
    socket.on('data', read)
    socket.once('error', lose)
    socket.once('end', lose)
    socket.once('close', lose)
    socket.write(request)
  })
}
