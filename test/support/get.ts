import { request } from 'node:http'
import type { IncomingHttpHeaders } from 'node:http'

export interface Got {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
}

/**
 * One request to a gateway on this machine; the answer as it came, encoded where it is. With the agent `false` it has
 * a connection of its own.
 */
export function get(
  port: number,
  url: string,
  headers: Record<string, string> = {},
  method = 'GET',
  agent?: false,
): Promise<Got> {
  const [, host = '', path = '/'] = /^http:\/\/([^/]+)(.*)$/.exec(url) ?? []
  return new Promise((resolve, reject) => {
    const asked = request({ port, agent, method, path, headers: { host, ...headers } }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(chunks) }),
      )
      answer.on('error', reject)
    })
    asked.on('error', reject)
    asked.end()
  })
}
