import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { issueWorkerToken } from '#origin/kit/worker-tokens.ts'
import type { Knobs } from '../support/vllm/knobs.ts'
import { freePort, waitForPort } from './processes.ts'
import type { Started, Workshop } from './processes.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const secret = 'a secret of a bench, which nobody else knows'

export interface DoubleProcess {
  port: number
  started: Started
  records(): Promise<DoubleRecord[]>
}

interface DoubleRecord {
  id: string
  /** Milliseconds since the epoch. */
  receivedAt: number
  tokens: number
  finish: string | undefined
  isCanary: boolean
  requestId: string
}

export async function startDouble(workshop: Workshop, knobs: Partial<Knobs>): Promise<DoubleProcess> {
  const port = await freePort()
  const file = `${root}test/support/vllm/main.ts`
  const started = workshop.start([process.execPath, file, String(port), JSON.stringify(knobs)], { ipc: true })
  await waitForPort(port, started)
  return {
    port,
    started,
    async records() {
      started.process.send({})
      const [records] = (await once(started.process, 'message')) as [DoubleRecord[]]
      return records
    },
  }
}

export interface WorkerProcess {
  port: number
  /** The file it logs into. */
  log: string
  started: Started
  headers: Record<string, string>
}

/** A worker in front of the double of vLLM. */
export function startWorker(
  workshop: Workshop,
  doublePort: number,
  environment: Record<string, string> = {},
): Promise<WorkerProcess> {
  return startAlone(workshop, { VLLM_URL: `http://127.0.0.1:${doublePort}`, ...environment })
}

/** A worker with these settings; `flags` are Node's. */
export async function startAlone(
  workshop: Workshop,
  environment: Record<string, string>,
  flags: string[] = [],
): Promise<WorkerProcess> {
  const port = await freePort()
  const env = {
    GPU_WORKER_SECRET: secret,
    GPU_WORKER_PORT: String(port),
    ...environment,
  }
  const log = `${workshop.folder}/worker-${port}.log`
  const started = workshop.start([process.execPath, ...flags, `${root}gpu-worker/main.ts`], { env, stdout: log })
  await waitForPort(port, started)
  const token = await issueWorkerToken(secret, { tenant: 'bench' }, 86_400)
  return { port, log, started, headers: { Authorization: `Bearer ${token}` } }
}

/** Resident memory of a process, in megabytes. */
export function residentMegabytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1_024
}
