import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { daemun } from './peers.ts'
import { openWorkshop } from './processes.ts'
import { openStand } from './stand.ts'
import { createCredentials } from './work.ts'

/** What V8's sampler writes (`node --cpu-prof`). */
interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number }; children?: number[] }[]
  samples: number[]
  timeDeltas: number[]
}

/** Runs Daemun under V8's sampler, loads it and says which functions its time is spent in, and in whose code. */
export async function benchProfile(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      seconds: { type: 'string', default: '4' },
      row: { type: 'string', default: 'bare' },
      top: { type: 'string', default: '40' },
    },
  })
  const workshop = openWorkshop()
  try {
    const stand = await openStand(workshop, 64)
    const { row } = values
    const credentials = row === 'ES256' || row === 'HS256' ? await createCredentials(row, 64) : undefined
    const sampled = {
      ...daemun,
      configure: (setting: Parameters<typeof daemun.configure>[0]) => {
        const { command, env } = daemun.configure(setting)
        const [node = '', ...rest] = command
        return { command: [node, '--cpu-prof', `--cpu-prof-dir=${workshop.folder}`, ...rest], ...(env && { env }) }
      },
    }
    const stood = await stand.put(sampled, credentials)
    await stand.load(stood, Number(values.seconds))
    await stand.remove(stood)
    const file = readdirSync(workshop.folder).find((name) => name.endsWith('.cpuprofile')) ?? ''
    const profile = JSON.parse(readFileSync(join(workshop.folder, file), 'utf8')) as CpuProfile
    process.stdout.write(showProfile(profile, Number(values.top)))
  } finally {
    workshop.close()
  }
}

/**
 * Self time, as a share of the time that was not idle. By the clock, not by CPU time: a write that wakes its reader on
 * the same core is charged with what the reader does. `perf` tells the two apart.
 */
function showProfile({ nodes, samples, timeDeltas }: CpuProfile, top: number): string {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  const byFunction = new Map<string, number>()
  const byOwner = new Map<string, number>()
  let busy = 0
  for (const [index, id] of samples.entries()) {
    const frame = frames.get(id)
    if (!frame || frame.functionName === '(idle)') continue
    const time = timeDeltas[index] ?? 0
    busy += time
    const owner = toOwner(frame.url, frame.functionName)
    const name = `${frame.functionName || '(anonymous)'} ${toPlace(frame.url)}:${frame.lineNumber + 1}`
    byOwner.set(owner, (byOwner.get(owner) ?? 0) + time)
    byFunction.set(name, (byFunction.get(name) ?? 0) + time)
  }
  const show = (times: Map<string, number>, count: number): string =>
    [...times]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, count)
      .map(([name, time]) => `${((100 * time) / busy).toFixed(1).padStart(6)} %  ${name}\n`)
      .join('')
  return `whose code:\n${show(byOwner, 10)}\nfunctions:\n${show(byFunction, top)}`
}

function toOwner(url: string, name: string): string {
  if (url === '') return name.startsWith('(') ? name : 'native calls'
  if (url.startsWith('node:internal/deps/undici')) return 'undici'
  if (url.startsWith('node:')) return `Node: ${url.slice(5)}`
  const module = /\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)
  return module?.[1] ?? 'Daemun'
}

const toPlace = (url: string): string =>
  url.replace(/^file:.*\/(node_modules|edge)\//, '$1/').replace('node_modules/', '')
