import { request } from 'node:http'
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Limits } from '#gpu-worker/limits.ts'
import { readGpuWorkerConfig } from '#gpu-worker/config.ts'
import { startGpuWorker } from '#gpu-worker/start.ts'
import type { WorkerCaller } from '#origin/kit/worker-tokens.ts'
import { issueWorkerToken } from '#origin/kit/worker-tokens.ts'

const secret = 'a secret of thirty-two bytes and more, for tests'

export interface TestWorker {
  url: string
  /** What it logged, oldest first. */
  entries: Record<string, unknown>[]
  token(caller?: { tenant?: string } & Partial<WorkerCaller>): Promise<string>
  /** Asks and reads the answer to its end. */
  ask(path: string, body: unknown, options?: AskOptions): Promise<Answer>
  /** Asks and hands over the answer while it comes. */
  open(path: string, body: unknown, options?: AskOptions): Promise<Opened>
  metric(series: string): Promise<number>
  /** Resolves when it has logged the end of so many requests. */
  logged(requests: number): Promise<Record<string, unknown>[]>
  stop(): Promise<void>
}

interface AskOptions {
  token?: string
  headers?: Record<string, string>
}

export interface Answer {
  status: number
  headers: IncomingMessage['headers']
  text: string
  /** Whether the connection ended where the answer did. */
  whole: boolean
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any
}

interface Opened {
  asked: ClientRequest
  answer: IncomingMessage
}

/** A worker on a port of its own; the environment names its providers. */
export async function startTestWorker(
  environment: Record<string, string>,
  limits: Partial<Limits> = {},
): Promise<TestWorker> {
  const entries: Record<string, unknown>[] = []
  const waiting: (() => void)[] = []
  const config = readGpuWorkerConfig({ GPU_WORKER_SECRET: secret, GPU_WORKER_PORT: '0', ...environment })
  const log = (entry: Record<string, unknown>): void => {
    entries.push(entry)
    for (const tell of waiting) tell()
  }
  const running = await startGpuWorker({ config, log, limits: { probeMs: 50, lookMs: 20, ...limits } })
  const usual = await issueWorkerToken(secret, { tenant: 'test' })

  function send(path: string, body: unknown, { token = usual, headers }: AskOptions = {}): ClientRequest {
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    const fields = {
      'content-type': 'application/json',
      authorization: `Bearer ${token}`,
      'content-length': Buffer.byteLength(text),
      ...headers,
    }
    const asked = request(running.url + path, { method: 'POST', headers: fields, agent: false })
    asked.end(text)
    return asked
  }

  return {
    url: running.url,
    entries,
    token: (caller = {}) => issueWorkerToken(secret, { tenant: 'test', ...caller }),
    ask: (path, body, options) =>
      new Promise((resolve, reject) => {
        const asked = send(path, body, options)
        asked.on('error', reject)
        asked.on('response', (answer) => {
          const chunks: Buffer[] = []
          answer.on('data', (chunk: Buffer) => chunks.push(chunk))
          answer.on('error', () => {})
          answer.on('close', () => {
            const text = Buffer.concat(chunks).toString()
            const isJson = answer.headers['content-type'] === 'application/json' && answer.complete
            resolve({
              status: answer.statusCode ?? 0,
              headers: answer.headers,
              text,
              whole: answer.complete,
              body: isJson ? JSON.parse(text) : undefined,
            })
          })
        })
      }),
    open: (path, body, options) =>
      new Promise((resolve, reject) => {
        const asked = send(path, body, options)
        asked.on('error', reject)
        asked.on('response', (answer) => resolve({ asked, answer }))
      }),
    async metric(series) {
      const text = await (await fetch(`${running.url}/metrics`)).text()
      const line = text.split('\n').find((one) => one.startsWith(`${series} `))
      return Number(line?.slice(series.length + 1) ?? 0)
    },
    async logged(requests) {
      for (;;) {
        const ended = entries.filter(({ event }) => event === 'request')
        if (ended.length >= requests) return ended
        await new Promise<void>((resolve) => waiting.push(resolve))
      }
    },
    stop: running.stop,
  }
}

export const hello = { model: 'kanana-8b', messages: [{ role: 'user', content: 'Hello there, how are you?' }] }

/** The data of a stream's events, parsed where it is JSON. */
// oxlint-disable-next-line typescript/no-explicit-any
export const readEvents = (text: string): any[] =>
  text
    .split('\n\n')
    .filter((event) => event.startsWith('data: '))
    .map((event) => (event === 'data: [DONE]' ? '[DONE]' : JSON.parse(event.slice(6))))

/** The text that a stream's events add up to. */
export const readText = (text: string): string =>
  readEvents(text)
    .map((event) => event.choices?.[0]?.delta?.content ?? event.choices?.[0]?.text ?? '')
    .join('')
