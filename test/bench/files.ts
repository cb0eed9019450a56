import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { LoadOrder, LoadReport } from './load.ts'
import { configureDaemunFiles, configureNginxFiles, nginx } from './peers.ts'
import type { Launch } from './peers.ts'
import { cpuMicroseconds, freePort, openWorkshop, waitForPort } from './processes.ts'
import type { Started, Workshop } from './processes.ts'
import { host } from './work.ts'

const sizes = [
  { name: '1 KB', bytes: 1_024, expected: 2, connections: 64 },
  { name: '100 KB', bytes: 102_400, expected: 1.8, connections: 64 },
  { name: '10 MB', bytes: 10_485_760, expected: 1.5, connections: 8 },
]

const usage = `npm run bench -- files [options]
  --seconds N  length of each load (4)
  --rounds N   loads of each peer, in turns (3)
`

/** CPU time per file sent, of Daemun beside nginx: files that are not compressed, to clients that have none of them. */
export async function benchFiles(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      seconds: { type: 'string', default: '4' },
      rounds: { type: 'string', default: '3' },
      help: { type: 'boolean', default: false },
    },
  })
  const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)]
  const possible = seconds > 0 && rounds > 0 && existsSync('/proc/self/stat')
  if (values.help || !possible || nginx.version === undefined) {
    process.stdout.write(`${usage}It needs Linux and nginx on PATH.\n`)
    if (!values.help) process.exitCode = 2
    return
  }
  const workshop = openWorkshop()
  try {
    const root = join(workshop.folder, 'web')
    mkdirSync(root)
    for (const { bytes } of sizes) writeFileSync(join(root, `${bytes}.bin`), randomBytes(bytes))
    const generator = workshop.start([process.execPath, fileURLToPath(new URL('load.ts', import.meta.url))], {
      ipc: true,
    })
    const [ours, theirs] = [
      await put(workshop, (port) => configureDaemunFiles(workshop.folder, port, root)),
      await put(workshop, (port, log) => configureNginxFiles(workshop.folder, port, root, log)),
    ]
    process.stdout.write('CPU µs per file     Daemun     nginx   ratio\n')
    for (const { name, bytes, expected, connections } of sizes) {
      const order = { path: `/${bytes}.bin`, bytes, connections, seconds }
      for (const one of [ours, theirs]) await load(generator, one, { ...order, seconds: Math.max(3, seconds) })
      const figures: [number, number][] = []
      for (let round = 0; round < rounds; round++)
        figures.push([await load(generator, ours, order), await load(generator, theirs, order)])
      const ratio = middle(figures.map(([our, their]) => our / their))
      const [our, their] = [middle(figures.map(([one]) => one)), middle(figures.map(([, one]) => one))]
      const verdict = ratio <= expected ? 'met' : 'not met'
      process.stdout.write(
        `${name.padEnd(16)}${our.toFixed(1).padStart(10)}${their.toFixed(1).padStart(10)}${ratio.toFixed(2).padStart(8)}  expected ≤ ${expected}: ${verdict}\n`,
      )
    }
  } finally {
    workshop.close()
  }
}

interface Served {
  started: Started
  port: number
  accessLog: string
}

async function put(workshop: Workshop, configure: (port: number, accessLog: string) => Launch): Promise<Served> {
  const port = await freePort()
  const accessLog = join(workshop.folder, `access-${port}.log`)
  const { command, env } = configure(port, accessLog)
  const started = workshop.start(command, { stdout: accessLog, ...(env && { env }) })
  await waitForPort(port, started)
  return { started, port, accessLog }
}

async function load(
  generator: Started,
  { started, port, accessLog }: Served,
  { path, bytes, connections, seconds }: { path: string; bytes: number; connections: number; seconds: number },
): Promise<number> {
  const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n`
  const requests = Array.from({ length: connections }, () => request)
  const order: LoadOrder = { port, seconds, rate: undefined, requests, bodyLength: bytes }
  const before = cpuMicroseconds(started.pid)
  generator.process.send(order)
  const [report] = (await once(generator.process, 'message')) as [LoadReport]
  const used = cpuMicroseconds(started.pid) - before
  truncateSync(accessLog)
  if (report.failed > report.answered / 1_000) throw new Error(`${report.failed} of ${report.answered} files failed`)
  return used / report.answered
}

const middle = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
