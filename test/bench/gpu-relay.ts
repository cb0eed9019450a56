import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { at, GpuConnection, runClosedLoop, toRequest } from './gpu-load.ts'
import type { Call } from './gpu-load.ts'
import { residentMegabytes, startDouble, startWorker } from './gpu-stand.ts'
import { cpuMicroseconds, freePort, openWorkshop, waitForPort } from './processes.ts'
import type { Started, Workshop } from './processes.ts'

const help = `npm run bench -- gpu-relay [--seconds 5] [--portkey FOLDER] [--no-portkey] [--json]

What the GPU worker costs: the double of vLLM alone, the worker in front of it, and Portkey's gateway in front of it.
Portkey is fetched into a temporary folder with npm, unless FOLDER has it in its node_modules.
`

interface Peer {
  name: string
  port: number
  /** Undefined: the double itself, whose work is no overhead. */
  started: Started | undefined
  headers: Record<string, string>
}

interface Row {
  what: string
  peer: string
  answered: number
  failed: number
  /** CPU µs of the peer for each request, and for each event of a stream. */
  perRequest: number
  perChunk: number
  firstP50: number
  firstP99: number
  totalP50: number
  totalP99: number
  megabytes: number
}

const works = [
  { what: 'chat JSON, 10 at once', connections: 10, stream: false },
  { what: 'chat JSON, 256 at once', connections: 256, stream: false },
  { what: 'stream of 64, 1 at once', connections: 1, stream: true },
  { what: 'stream of 64, 64 at once', connections: 64, stream: true },
  { what: 'stream of 64, 500 at once', connections: 500, stream: true },
]

export async function benchGpuRelay(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      seconds: { type: 'string', default: '5' },
      portkey: { type: 'string' },
      'no-portkey': { type: 'boolean' },
      json: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  })
  if (values.help) return void process.stdout.write(help)
  const seconds = Number(values.seconds)
  const workshop = openWorkshop()
  try {
    const double = await startDouble(workshop, { maxNumSeqs: 4_096, kvTokens: 1e9, outputTokens: 64 })
    const worker = await startWorker(workshop, double.port, {
      VLLM_MAX_NUM_SEQS: '4096',
      VLLM_KV_CACHE_TOKENS: '1000000000',
      GPU_WORKER_QUEUE_REQUESTS: '10000',
    })
    const portkey = values['no-portkey'] ? undefined : await startPortkey(workshop, double.port, values.portkey)
    const peers: Peer[] = [
      { name: 'double alone', port: double.port, started: undefined, headers: {} },
      { name: 'GPU worker', port: worker.port, started: worker.started, headers: worker.headers },
      ...(portkey ? [portkey] : []),
    ]
    const rows: Row[] = []
    for (const work of works) for (const peer of peers) rows.push(await measure(peer, work, seconds))
    const idle = await measureIdle(workshop)
    process.stdout.write(values.json ? `${JSON.stringify({ rows, idle })}\n` : show(rows, idle))
  } finally {
    workshop.close()
  }
}

/** A chat of about a kilobyte. */
const toBody = (stream: boolean) => ({
  model: 'kanana-8b',
  messages: [
    { role: 'system', content: 'You are brief. '.repeat(20) },
    { role: 'user', content: 'What is behind the gate? '.repeat(24) },
  ],
  max_tokens: 128,
  ...(stream && { stream }),
})

async function measure(
  { name, port, started, headers }: Peer,
  { what, connections, stream }: (typeof works)[number],
  seconds: number,
): Promise<Row> {
  const request = toRequest(toBody(stream), headers)
  await runClosedLoop({ port, request, connections, seconds: Math.min(2, seconds) })
  const before = started ? cpuMicroseconds(started.pid) : 0
  const calls = await runClosedLoop({ port, request, connections, seconds })
  const used = started ? cpuMicroseconds(started.pid) - before : 0
  const good = calls.filter(({ status, whole }) => status === 200 && whole)
  const chunks = good.reduce((sum, call) => sum + call.chunks, 0)
  const of = (key: keyof Call) => good.map((call) => Number(call[key]))
  return {
    what,
    peer: name,
    answered: good.length,
    failed: calls.length - good.length,
    perRequest: used / good.length,
    perChunk: stream ? used / chunks : Number.NaN,
    firstP50: at(of('firstMs'), 0.5),
    firstP99: at(of('firstMs'), 0.99),
    totalP50: at(of('totalMs'), 0.5),
    totalP99: at(of('totalMs'), 0.99),
    megabytes: started ? residentMegabytes(started.pid) : Number.NaN,
  }
}

/** Memory of 500 streams that have begun and say nothing, above none. */
async function measureIdle(workshop: Workshop): Promise<{ none: number; streams: number }> {
  const double = await startDouble(workshop, {
    maxNumSeqs: 4_096,
    kvTokens: 1e9,
    outputTokens: 64,
    itl: { mean: 3_600_000, sd: 0 },
  })
  const worker = await startWorker(workshop, double.port, {
    VLLM_MAX_NUM_SEQS: '4096',
    VLLM_KV_CACHE_TOKENS: '1000000000',
    GPU_WORKER_QUEUE_REQUESTS: '10000',
  })
  const { pid } = worker.started
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  const none = residentMegabytes(pid)
  const connections = Array.from({ length: 500 }, () => new GpuConnection(worker.port))
  for (const connection of connections) void connection.ask(toRequest(toBody(true), worker.headers))
  await new Promise((resolve) => setTimeout(resolve, 3_000))
  const streams = residentMegabytes(pid)
  for (const connection of connections) connection.close()
  return { none, streams }
}

/** Portkey's gateway, which is Hono on Node too; undefined when it cannot be had. */
async function startPortkey(
  workshop: Workshop,
  doublePort: number,
  given: string | undefined,
): Promise<Peer | undefined> {
  const folder = given ?? workshop.folder
  const file = join(folder, 'node_modules/@portkey-ai/gateway/build/start-server.js')
  if (!existsSync(file)) {
    const args = [
      'install',
      '--prefix',
      folder,
      '--no-audit',
      '--no-fund',
      '--ignore-scripts',
      '@portkey-ai/gateway@1.15.2',
    ]
    spawnSync('npm', args, { stdio: 'ignore', timeout: 180_000 })
  }
  if (!existsSync(file)) {
    process.stderr.write('Portkey cannot be fetched: its rows are left out\n')
    return undefined
  }
  const port = await freePort()
  const started = workshop.start([process.execPath, file, `--port=${port}`, '--headless'], {
    env: { NODE_ENV: 'production' },
  })
  await waitForPort(port, started)
  const headers = {
    Authorization: 'Bearer none',
    'X-Portkey-Provider': 'openai',
    'X-Portkey-Custom-Host': `http://127.0.0.1:${doublePort}/v1`,
  }
  return { name: 'Portkey 1.15.2', port, started, headers }
}

function show(rows: Row[], { none, streams }: { none: number; streams: number }): string {
  const head = ['', 'answered', 'failed', 'CPU µs', 'per chunk', 'first p50', 'p99 ms', 'total p50', 'p99 ms', 'RSS MB']
  const lines = rows.flatMap((row, index) => {
    const cells = [
      row.answered,
      row.failed,
      row.perRequest,
      row.perChunk,
      row.firstP50,
      row.firstP99,
      row.totalP50,
      row.totalP99,
      row.megabytes,
    ]
    const line = [
      `  ${row.peer}`,
      ...cells.map((cell) => (Number.isNaN(cell) ? '' : Number.isInteger(cell) ? String(cell) : cell.toFixed(2))),
    ]
    return rows[index - 1]?.what === row.what ? [line] : [[row.what], line]
  })
  const widths = head.map((name, column) =>
    Math.max(name.length, ...lines.filter(({ length }) => length > 1).map((line) => line[column]?.length ?? 0)),
  )
  const pad = (line: string[]): string =>
    line.length === 1
      ? `\n${line[0]}`
      : line
          .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
          .join('  ')
  return `${[head, ...lines].map(pad).join('\n')}\n\n500 idle streams: ${none.toFixed(0)} MB without, ${streams.toFixed(0)} MB with them\n`
}
