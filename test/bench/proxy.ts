import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { caddy, daemun, haproxy, nginx } from './peers.ts'
import type { Peer } from './peers.ts'
import { openWorkshop } from './processes.ts'
import { showResults } from './report.ts'
import { openStand } from './stand.ts'
import type { Load, Stand, Stood } from './stand.ts'
import { createCredentials } from './work.ts'
import type { Chain } from './work.ts'

/** One row of the table: a kind of work, and who does it. */
export interface Result {
  chain: Chain
  title: string
  figures: Figure[]
}

export interface Figure {
  peer: string
  /** What this peer leaves out; empty: nothing. */
  missing: string
  /** CPU time for each request: one figure for each round, and their median. */
  rounds: number[]
  microseconds: number
  /** Daemun's figure to this one: the median of the rounds' ratios. */
  ratio: number
  /** At most what the ratio is expected to be, and where it is to go. */
  expected: number | undefined
  /** Requests per second when as many were sent as were answered, and how much of a core the peer then had. */
  peak: number
  cores: number
  /** Milliseconds, when `asked` requests per second were due and `held` were answered. */
  latency: { asked: number; held: number; p50: number; p99: number }
  failed: number
}

const rows: { chain: Chain; title: string; peers: Peer[]; expected: Record<string, number> }[] = [
  { chain: 'bare', title: 'proxied GET', peers: [nginx, haproxy, caddy], expected: { nginx: 2.2, Caddy: 0.5 } },
  { chain: 'ES256', title: 'ES256 token + limit per subject', peers: [haproxy, nginx], expected: { HAProxy: 0.35 } },
  { chain: 'HS256', title: 'HS256 token + limit per subject', peers: [haproxy, nginx], expected: { HAProxy: 1.8 } },
]

const usage = `npm run bench -- proxy [options]
  --seconds N      length of each load (4)
  --rounds N       loads of each peer, in turns (3)
  --connections N  keep-alive connections (64)
  --row NAME       only bare, ES256 or HS256; may be given several times
  --json           the figures as JSON on standard output
`

/** CPU time per request of Daemun beside other proxies, each doing the same work. */
export async function benchProxy(args: string[]): Promise<void> {
  const options = readOptions(args)
  if (!options) return
  tell(describePeers())
  const workshop = openWorkshop()
  try {
    const stand = await openStand(workshop, options.connections)
    const results: Result[] = []
    for (const row of rows) {
      if (options.chains.length > 0 && !options.chains.includes(row.chain)) continue
      const peers = [daemun, ...row.peers.filter(({ version }) => version !== undefined)]
      const credentials = row.chain === 'bare' ? undefined : await createCredentials(row.chain, options.connections)
      const stood: Stood[] = []
      for (const peer of peers) stood.push(await stand.put(peer, credentials))
      const measured = await measure({ stand, stood, ...options, say: (text) => tell(`${row.title}: ${text}\n`) })
      results.push({ chain: row.chain, title: row.title, figures: toFigures(measured, row) })
      for (const one of stood) await stand.remove(one)
    }
    process.stdout.write(options.json ? `${JSON.stringify(toJson(results), null, 2)}\n` : showResults(results))
  } finally {
    workshop.close()
  }
}

const tell = (text: string): void => void process.stderr.write(text)

function readOptions(args: string[]) {
  const { values } = parseArgs({
    args,
    options: {
      seconds: { type: 'string', default: '4' },
      rounds: { type: 'string', default: '3' },
      connections: { type: 'string', default: '64' },
      row: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const [seconds, rounds, connections] = [values.seconds, values.rounds, values.connections].map(Number)
  const numbers = [seconds, rounds, connections].every((value) => value !== undefined && value > 0)
  const chains = rows.map(({ chain }) => chain).filter((chain) => values.row.includes(chain))
  if (values.help || !numbers || chains.length < values.row.length) {
    process.stdout.write(usage)
    if (!values.help) process.exitCode = 2
    return undefined
  }
  if (!existsSync('/proc/self/stat')) {
    process.stdout.write('CPU time of a process is read from /proc: run this bench on Linux\n')
    process.exitCode = 2
    return undefined
  }
  return { seconds: seconds ?? 0, rounds: rounds ?? 0, connections: connections ?? 0, chains, json: values.json }
}

function describePeers(): string {
  const others = [nginx, haproxy, caddy]
  const found = [daemun, ...others].filter(({ version }) => version !== undefined)
  const skipped = others.filter(({ version }) => version === undefined)
  const upstream = nginx.version === undefined ? 'node:net' : 'nginx'
  return `found ${found.map(({ name, version }) => `${name} (${version})`).join(', ')}
${skipped.length === 0 ? '' : `skipped, because not on PATH: ${skipped.map(({ name }) => name).join(', ')}\n`}upstream: ${upstream}; load: own generator on node:net; access logs: a file each
`
}

interface Measured {
  stood: Stood
  loads: Load[]
  paced: Load
  /** Of the paced load. */
  rate: number
}

interface Measurement {
  stand: Stand
  stood: Stood[]
  seconds: number
  rounds: number
  say: (text: string) => void
}

/** V8 compiles for seconds what a server then runs for weeks. */
const warmUpSeconds = 3

/** Warms up, then loads everyone in turns, then asks everyone at the same rate. */
async function measure({ stand, stood, seconds, rounds, say }: Measurement): Promise<Measured[]> {
  for (const one of stood) await stand.load(one, Math.max(warmUpSeconds, seconds))
  const loads = stood.map((): Load[] => [])
  for (let round = 0; round < rounds; round++) {
    for (const [index, one] of stood.entries()) loads[index]?.push(await stand.load(one, seconds))
    const figures = stood.map(({ peer }, index) => `${peer.name} ${loads[index]?.at(-1)?.microseconds.toFixed(1)}`)
    say(`round ${round + 1} of ${rounds}, CPU µs per request: ${figures.join(', ')}`)
  }
  const rate = Math.floor(Math.min(...loads.map((all) => median(all.map(({ perSecond }) => perSecond)))) / 2)
  say(`latency at ${rate} requests per second`)
  const measured: Measured[] = []
  for (const [index, one] of stood.entries())
    measured.push({ stood: one, loads: loads[index] ?? [], paced: await stand.load(one, seconds, rate), rate })
  return measured
}

function toFigures(measured: Measured[], { chain, expected }: (typeof rows)[number]): Figure[] {
  const ours = measured[0]?.loads.map(({ microseconds }) => microseconds) ?? []
  return measured.map(({ stood: { peer }, loads, paced, rate }) => {
    const figures = loads.map(({ microseconds }) => microseconds)
    return {
      peer: peer.name,
      missing: peer.missing[chain] ?? '',
      rounds: figures,
      microseconds: median(figures),
      ratio: median(figures.map((figure, round) => (ours[round] ?? Number.NaN) / figure)),
      expected: expected[peer.name],
      peak: median(loads.map(({ perSecond }) => perSecond)),
      cores: median(loads.map(({ cores }) => cores)),
      latency: { asked: rate, held: paced.answered / paced.seconds, p50: paced.p50, p99: paced.p99 },
      failed: [...loads, paced].reduce((sum, { failed }) => sum + failed, 0),
    }
  })
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle) - 1] ?? Number.NaN)) / 2
}

const toJson = (results: Result[]) => ({
  date: new Date().toISOString().slice(0, 10),
  versions: Object.fromEntries([daemun, nginx, haproxy, caddy].map(({ name, version }) => [name, version ?? null])),
  results,
})
