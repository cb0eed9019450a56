import { Agent, request } from 'node:http'

export interface Caller {
  port: number
  path: string
  headers: Record<string, string>
  /** Sent in turns, from the first again after the last. */
  bodies: string[]
}

/** Times in milliseconds. */
export interface Measured {
  answered: number
  failed: number
  p50: number
  p99: number
  max: number
}

/** One request after the other over one connection. */
export async function askInTurn(caller: Caller, requests: number): Promise<Measured> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const times: number[] = []
  let failed = 0
  for (let turn = 0; turn < requests; turn++) {
    const startedAt = performance.now()
    if (!(await ask(caller, agent, turn))) failed++
    times.push(performance.now() - startedAt)
  }
  agent.destroy()
  return toMeasured(times, failed)
}

/** Requests at fixed times, whatever becomes of those before; latency counts from when one was due. */
export async function askAtRate(
  caller: Caller,
  { requests, rate }: { requests: number; rate: number },
): Promise<Measured> {
  const agent = new Agent({ keepAlive: true })
  const times: number[] = []
  let failed = 0
  const startedAt = performance.now()
  const asked = Array.from({ length: requests }, async (_, turn) => {
    const dueAt = startedAt + (1_000 * turn) / rate
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueAt - performance.now())))
    // A timer rings up to a millisecond late: that is not the server's.
    const sentAt = Math.max(dueAt, performance.now() - 1)
    if (!(await ask(caller, agent, turn))) failed++
    times.push(performance.now() - sentAt)
  })
  await Promise.all(asked)
  agent.destroy()
  return toMeasured(times, failed)
}

function ask({ port, path, headers, bodies }: Caller, agent: Agent, turn: number): Promise<boolean> {
  const body = bodies[turn % bodies.length] ?? ''
  const fields = { ...headers, 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }
  return new Promise((resolve) => {
    const asked = request({ port, host: '127.0.0.1', path, method: 'POST', headers: fields, agent }, (answer) => {
      answer.resume().on('end', () => resolve(answer.statusCode === 200))
      answer.on('error', () => resolve(false))
    })
    asked.on('error', () => resolve(false))
    asked.end(body)
  })
}

function toMeasured(times: number[], failed: number): Measured {
  times.sort((a, b) => a - b)
  const at = (share: number): number =>
    times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? Number.NaN
  return { answered: times.length - failed, failed, p50: at(0.5), p99: at(0.99), max: at(1) }
}
