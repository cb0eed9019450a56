import { spawnSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { unstable_startWorker as startWorker } from 'wrangler'
import { inWorkshop, median, put, readRounds, startGenerator } from './beside.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { configureUpstream, nginx } from './peers.ts'
import { cpuMicroseconds } from './processes.ts'
import { body, createCredentials, path, toRequest } from './work.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const offline = { WRANGLER_SEND_METRICS: 'false', CLOUDFLARE_CF_FETCH_ENABLED: 'false' }

/** The Worker as it would be uploaded: its size, how long it takes to start, and CPU time per request in workerd. */
export async function benchWorker(args: string[]): Promise<void> {
  const options = readRounds(args, 'worker', nginx.version)
  if (!options) return
  const { seconds, rounds } = options
  Object.assign(process.env, offline)
  await inWorkshop(async (workshop) => {
    const { folder } = workshop
    wrangler(['deploy', '--dry-run', '--outdir', folder])
    const size = gzipSync(readFileSync(join(folder, 'worker.js'))).length / 1_024
    process.stdout.write(`bundle, gzip: ${size.toFixed(1)} KB, ${toVerdict(size, 150)}\n`)
    const starts = Array.from({ length: rounds }, () => startupMs(join(folder, 'startup.cpuprofile')))
    process.stdout.write(`start, in workerd: ${median(starts).toFixed(1)} ms, ${toVerdict(median(starts), 50)}\n`)

    const upstream = await put(workshop, 'upstream', (port) => configureUpstream(folder, port))
    const credentials = await createCredentials('ES256', 64)
    const bindings = { BENCH_ORIGIN: `http://127.0.0.1:${upstream.port}`, BENCH_KEY: credentials.verifyWith }
    const generator = startGenerator(workshop, 'load.ts')
    const plain = credentials.tokens.map(() => toRequest())
    const signed = credentials.tokens.map((token) => toRequest(token).replace(path, '/signed/x'))

    /** CPU µs for each of these requests: the median of the rounds, after a warm-up. */
    async function costOf(port: number, requests: string[]): Promise<number> {
      const order: LoadOrder = { port, seconds, rate: undefined, requests, bodyLength: body.length }
      await generator.run<LoadReport>({ ...order, seconds: Math.max(warmUpSeconds, seconds) })
      const costs: number[] = []
      for (let round = 0; round < rounds; round++) {
        const before = workerdMicroseconds()
        const { answered, failed } = await generator.run<LoadReport>(order)
        if (answered === 0 || failed > answered / 1_000) throw new Error(`${failed} of ${answered + failed} failed`)
        costs.push((workerdMicroseconds() - before) / answered)
      }
      return median(costs)
    }

    const floor = await withWorker('worker-bare.ts', bindings, (port) => costOf(port, plain))
    process.stdout.write(`a Worker that only fetches: ${floor.toFixed(0)} CPU µs in workerd\n`)
    await withWorker('worker-entry.ts', bindings, async (port) => {
      for (const [name, requests] of [
        ['proxied GET', plain],
        ['ES256 token, proxied GET', signed],
      ] as const) {
        const cost = await costOf(port, requests)
        process.stdout.write(
          `${name}: ${cost.toFixed(0)} CPU µs in workerd, of which Daemun's ${(cost - floor).toFixed(0)}, ${toVerdict(cost - floor, 1_000)}\n`,
        )
      }
    })
  })
}

const warmUpSeconds = 5

/** Runs one Worker in workerd while something is done with it. */
async function withWorker<Result>(
  entry: string,
  bindings: Record<string, string>,
  use: (port: number) => Promise<Result>,
): Promise<Result> {
  const worker = await startWorker({
    name: 'bench',
    config: fileURLToPath(new URL('wrangler.toml', import.meta.url)),
    entrypoint: fileURLToPath(new URL(entry, import.meta.url)),
    bindings: Object.fromEntries(
      Object.entries(bindings).map(([name, value]) => [name, { type: 'plain_text', value }]),
    ),
    dev: {
      server: { hostname: '127.0.0.1', port: 0 },
      inspector: false,
      watch: false,
      persist: false,
      logLevel: 'none',
      // The access log, which the platform takes.
      structuredLogsHandler: () => {},
    },
  })
  try {
    await worker.fetch('http://nobody.example/')
    return await use(Number((await worker.raw.runtimes[0]?.mf?.ready)?.port))
  } finally {
    await worker.dispose()
  }
}

const workerdMicroseconds = (): number => findWorkerd().reduce((sum, pid) => sum + cpuMicroseconds(pid), 0)

const toVerdict = (value: number, expected: number): string =>
  `expected ≤ ${expected}: ${value <= expected ? 'met' : 'not met'}`

function wrangler(args: string[]): void {
  const { status, stderr } = spawnSync(join(root, 'node_modules/.bin/wrangler'), args, { cwd: root, encoding: 'utf8' })
  if (status !== 0) throw new Error(`wrangler ${args[0]} failed: ${stderr}`)
}

/** What workerd is busy with from the first byte of the script until it takes requests. */
function startupMs(file: string): number {
  wrangler(['check', 'startup', '--outfile', file])
  const profile = JSON.parse(readFileSync(file, 'utf8')) as {
    nodes: { id: number; callFrame: { functionName: string } }[]
    samples: number[]
    timeDeltas: number[]
  }
  const idle = profile.nodes.find(({ callFrame }) => callFrame.functionName === '(idle)')?.id
  return profile.samples.reduce((sum, id, at) => (id === idle ? sum : sum + (profile.timeDeltas[at] ?? 0)), 0) / 1_000
}

/** What this process, or one of its children, has started of workerd: the Worker, and a development proxy that idles. */
function findWorkerd(): number[] {
  const parents = new Map<number, number>()
  const found: number[] = []
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]))
      if (stat.includes('(workerd)')) found.push(Number(name))
    } catch {
      // It has ended meanwhile.
    }
  }
  const isOurs = (pid: number | undefined): boolean =>
    pid === process.pid || (pid !== undefined && pid > 1 && isOurs(parents.get(pid)))
  return found.filter((pid) => isOurs(pid))
}
