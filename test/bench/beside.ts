import { once } from 'node:events'
import { existsSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Launch } from './peers.ts'
import { cpuMicroseconds, freePort, openWorkshop, waitForPort } from './processes.ts'
import type { Started, Workshop } from './processes.ts'

/** A program that does the work, and where it takes it. */
export interface Side {
  name: string
  started: Started
  port: number
  accessLog: string
}

/** The options that benches of two sides have, `undefined` when they cannot run or were only asked what they are. */
export function readRounds(args: string[], name: string, version: string | undefined) {
  const { values } = parseArgs({
    args,
    options: {
      seconds: { type: 'string', default: '3' },
      rounds: { type: 'string', default: '3' },
      help: { type: 'boolean', default: false },
    },
  })
  const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)]
  if (!values.help && seconds > 0 && rounds > 0 && existsSync('/proc/self/stat') && version !== undefined)
    return { seconds, rounds }
  process.stdout.write(`npm run bench -- ${name} [options]
  --seconds N  length of each load (3)
  --rounds N   loads of each side, in turns (3)
It needs Linux and nginx on PATH.
`)
  if (!values.help) process.exitCode = 2
  return undefined
}

/** Starts one; `configure` gets the ports that it is to listen on, the first of which is waited for. */
export async function put(
  workshop: Workshop,
  name: string,
  configure: (port: number, accessLog: string) => Launch,
): Promise<Side> {
  const port = await freePort()
  const accessLog = join(workshop.folder, `access-${port}.log`)
  const { command, env } = configure(port, accessLog)
  const started = workshop.start(command, { stdout: accessLog, ...(env && { env }) })
  await waitForPort(port, started)
  return { name, started, port, accessLog }
}

/** A generator of load in a process of its own, told what to do by messages. */
export interface Generator {
  run<Report>(order: object): Promise<Report>
}

export function startGenerator(workshop: Workshop, file: string): Generator {
  const started = workshop.start([process.execPath, fileURLToPath(new URL(file, import.meta.url))], { ipc: true })
  const ended = once(started.process, 'exit').then(() => {
    throw new Error(`the load generator ended: ${started.said().trim()}`)
  })
  ended.catch(() => {})
  return {
    run: async <Report>(order: object) => {
      started.process.send(order)
      const [report] = (await Promise.race([once(started.process, 'message'), ended])) as [Report]
      return report
    },
  }
}

/** What was done in one load: so many units of work, and how many failed. */
export interface Done {
  units: number
  failed: number
}

/** CPU µs of the side's process for each unit of one load. */
export async function costOf(side: Side, load: () => Promise<Done>): Promise<number> {
  const before = cpuMicroseconds(side.started.pid)
  const { units, failed } = await load()
  const used = cpuMicroseconds(side.started.pid) - before
  if (existsSync(side.accessLog)) truncateSync(side.accessLog)
  if (units === 0 || failed > units / 1_000) throw new Error(`${side.name} failed ${failed} of ${units + failed}`)
  return used / units
}

export interface Compared {
  /** The medians of the rounds, of each side. */
  costs: number[]
  /** The first side's cost to the second's: the median of the rounds' ratios. */
  ratio: number
}

/** V8 compiles for seconds what a server then runs for weeks. */
const warmUpSeconds = 3

/** Loads the sides in turns, after a warm-up. */
export async function compare(
  sides: Side[],
  { seconds, rounds, load }: { seconds: number; rounds: number; load: (side: Side, seconds: number) => Promise<Done> },
): Promise<Compared> {
  for (const side of sides) await load(side, Math.max(warmUpSeconds, seconds))
  const all: number[][] = []
  for (let round = 0; round < rounds; round++) {
    const costs: number[] = []
    for (const side of sides) costs.push(await costOf(side, () => load(side, seconds)))
    all.push(costs)
  }
  return {
    costs: sides.map((_, index) => median(all.map((costs) => costs[index] ?? Number.NaN))),
    ratio: median(all.map(([ours = Number.NaN, theirs = Number.NaN]) => ours / theirs)),
  }
}

/** One line of a bench of two sides; `expected` is missing where nothing is. */
export function showLine(what: string, { costs, ratio }: Compared, expected?: number): string {
  const figures = costs.map((cost) => cost.toFixed(1).padStart(10)).join('')
  const verdict = expected === undefined ? '' : `  expected ≤ ${expected}: ${ratio <= expected ? 'met' : 'not met'}`
  return `${what.padEnd(34)}${figures}${ratio.toFixed(2).padStart(8)}${verdict}\n`
}

export const heading = (unit: string): string => `${unit.padEnd(34)}    Daemun     nginx   ratio\n`

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle) - 1] ?? Number.NaN)) / 2
}

/** Runs a bench in a workshop that is closed however it ends. */
export async function inWorkshop(run: (workshop: Workshop) => Promise<void>): Promise<void> {
  const workshop = openWorkshop()
  try {
    await run(workshop)
  } finally {
    workshop.close()
  }
}
