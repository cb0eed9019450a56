import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { at, GpuConnection, runClosedLoop, toRequest } from './gpu-load.ts'
import type { Call } from './gpu-load.ts'
import { startDouble, startWorker } from './gpu-stand.ts'
import { openWorkshop } from './processes.ts'

const help = `npm run bench -- gpu-overload [--seconds 60] [--times 3] [--json]

The GPU worker in front of the double of vLLM, asked for more than the model can do.
`

const slots = 8
const outputTokens = 40
const gapMs = 5
const deadlineMs = 3_000
/** The field says what is left, not until when: the way to the worker is not counted. */
const transitMs = 100
const body = { model: 'kanana-8b', messages: [{ role: 'user', content: 'x'.repeat(400) }], max_tokens: 64 }

/** Peak first, with as many requests as there are slots; then so many times as much, come what may. */
export async function benchGpuOverload(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      seconds: { type: 'string', default: '60' },
      times: { type: 'string', default: '3' },
      json: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  })
  if (values.help) return void process.stdout.write(help)
  const [seconds, times] = [Number(values.seconds), Number(values.times)]
  const workshop = openWorkshop()
  try {
    const double = await startDouble(workshop, {
      ttft: { mean: 20, sd: 0, perToken: 0 },
      itl: { mean: gapMs, sd: 0 },
      outputTokens,
      maxNumSeqs: slots,
    })
    const worker = await startWorker(workshop, double.port, { VLLM_MAX_NUM_SEQS: String(slots) })
    const headers = { ...worker.headers, 'X-Envoy-Expected-Rq-Timeout-Ms': String(deadlineMs) }
    const request = toRequest(body, headers)

    const warm = Math.min(10, seconds)
    // A few slots are kept for the interactive band: as many connections as the rest keep busy, and one in the queue.
    await runClosedLoop({ port: worker.port, request, connections: slots, seconds: 2 })
    const measurePeak = async (): Promise<number> => {
      const calls = await runClosedLoop({ port: worker.port, request, connections: slots + 2, seconds: warm })
      return calls.filter(isGood).length / warm
    }
    const peakBefore = await measurePeak()
    const before = (await double.records()).length

    const overloaded = await runOpenLoop(worker.port, headers, peakBefore * times, seconds)
    const records = (await double.records()).slice(before).filter(({ isCanary }) => !isCanary)
    // Whoever else is on the machine changes what it can do: the better of before and after.
    const peak = Math.max(peakBefore, await measurePeak())
    const late = records.filter(
      ({ requestId, receivedAt }) => receivedAt > Number(requestId.split('-').at(-1)) + transitMs,
    )
    const good = overloaded.filter(isGood)
    const refused = overloaded.filter(({ status }) => status === 429 || status === 503)
    const result = {
      peakPerSecond: peak,
      offeredPerSecond: overloaded.length / seconds,
      goodPerSecond: good.length / seconds,
      goodputOfPeak: good.length / seconds / peak,
      refused: refused.length,
      refusedAtOnce: refused.filter(({ totalMs }) => totalMs < 100).length,
      refusalP50Ms: at(atOnce(refused), 0.5),
      refusalP99Ms: at(atOnce(refused), 0.99),
      refusalAtWorkerP99Ms: at(readRefusals(worker.log), 0.99),
      answeredP99Ms: at(
        good.map(({ totalMs }) => totalMs),
        0.99,
      ),
      pastDeadlineAtModel: late.length,
      otherwise: overloaded.length - good.length - refused.length,
    }
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : show(result, { seconds, times }))
    if (result.pastDeadlineAtModel > 0 || result.goodputOfPeak < 0.95) process.exitCode = 1
  } finally {
    workshop.close()
  }
}

const isGood = ({ status, whole, totalMs }: Call): boolean => status === 200 && whole && totalMs <= deadlineMs

/** How long the worker itself had requests that it has refused at the door. */
function readRefusals(log: string): number[] {
  const entries = readFileSync(log, 'utf8')
    .split('\n')
    .filter(
      (line) => line.includes('"outcome":"deadline_exceeded_estimate"') || line.includes('"outcome":"queue_full"'),
    )
    .map((line) => JSON.parse(line) as { ms: number })
  return entries.map(({ ms }) => ms).filter((ms) => ms < 100)
}

/** Refusals at the door; those out of the queue come when their time is up. */
const atOnce = (refused: Call[]): number[] => refused.map(({ totalMs }) => totalMs).filter((ms) => ms < 100)

/** Requests are due at random times of a fixed mean (Poisson), whether or not others have been answered. */
async function runOpenLoop(
  port: number,
  headers: Record<string, string>,
  rate: number,
  seconds: number,
): Promise<Call[]> {
  const calls: Promise<Call>[] = []
  const idle: GpuConnection[] = []
  const startedAt = performance.now()
  let due = startedAt
  for (;;) {
    due += (-Math.log(1 - Math.random()) * 1_000) / rate
    if (due > startedAt + seconds * 1_000) break
    const wait = due - performance.now()
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait))
    const connection = idle.pop() ?? new GpuConnection(port)
    const requestId = `r${calls.length}-${Math.ceil(Date.now() + deadlineMs)}`
    calls.push(
      connection.ask(toRequest(body, { ...headers, 'X-Request-Id': requestId })).finally(() => idle.push(connection)),
    )
  }
  const all = await Promise.all(calls)
  for (const connection of idle) connection.close()
  return all
}

function show(result: Record<string, number>, { seconds, times }: { seconds: number; times: number }): string {
  const lines = Object.entries(result).map(
    ([name, value]) => `  ${name.padEnd(22)}${Number.isInteger(value) ? value : value.toFixed(2)}`,
  )
  return `${times} × overload for ${seconds} s; ${slots} slots, ${outputTokens} tokens of ${gapMs} ms, deadline ${deadlineMs} ms\n${lines.join('\n')}\n`
}
