import { readFileSync } from 'node:fs'
import { costOf, inWorkshop, median, put, readRounds, startGenerator } from './beside.ts'
import type { Side } from './beside.ts'
import type { IdleOrder } from './load-idle.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { configureUpstream, daemun, nginx } from './peers.ts'
import { residentBytes } from './processes.ts'
import { body, toRequest } from './work.ts'

const wanted = 10_000

/** What idle connections cost: memory for each of them, and CPU time and latency of those that work beside them. */
export async function benchIdle(args: string[]): Promise<void> {
  const options = readRounds(args, 'idle', nginx.version)
  if (!options) return
  const { seconds, rounds } = options
  // Both ends and the upstream's have their own; every connection is a file to each.
  const files = Number(/^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 0)
  const connections = Math.min(wanted, files - 1_000)
  if (connections < wanted) process.stdout.write(`only ${connections} connections: 'ulimit -n' is ${files}\n`)
  await inWorkshop(async (workshop) => {
    const { folder } = workshop
    const upstream = await put(workshop, 'upstream', (port) => configureUpstream(folder, port))
    const [generator, holder] = [startGenerator(workshop, 'load.ts'), startGenerator(workshop, 'load-idle.ts')]
    for (const peer of [daemun, nginx]) {
      const side = await put(workshop, peer.name, (port, accessLog) =>
        peer.configure({ folder, port, upstreamPort: upstream.port, accessLog, credentials: undefined }),
      )
      const before = await work(side, rounds)
      const memory = residentBytes(side.started.pid)
      const held = await holder.run<number>({ port: side.port, connections } satisfies IdleOrder)
      const each = (residentBytes(side.started.pid) - memory) / held
      const beside = await work(side, rounds)
      await holder.run<number>({ port: side.port, connections: 0 } satisfies IdleOrder)
      process.stdout.write(
        `${peer.name.padEnd(8)} ${held} idle connections: ${(each / 1_024).toFixed(1)} KB each; a request costs ${before.cost.toFixed(1)} CPU µs without and ${beside.cost.toFixed(1)} with them, p50 ${before.p50.toFixed(2)} and ${beside.p50.toFixed(2)} ms, p99 ${before.p99.toFixed(2)} and ${beside.p99.toFixed(2)} ms\n`,
      )
      await workshop.stop(side.started)
    }

    /** As many as are answered for the cost, a tenth of what a core does for the latency. */
    async function work(side: Side, times: number): Promise<{ cost: number; p50: number; p99: number }> {
      const order = {
        port: side.port,
        seconds,
        requests: Array.from({ length: 64 }, () => toRequest()),
        bodyLength: body.length,
      }
      const load = async (rate?: number) => generator.run<LoadReport>({ ...order, rate } satisfies LoadOrder)
      await load()
      const costs: number[] = []
      const paced: LoadReport[] = []
      for (let round = 0; round < times; round++) {
        costs.push(await costOf(side, async () => toDone(await load())))
        paced.push(await load(2_000))
      }
      return { cost: median(costs), p50: median(paced.map(({ p50 }) => p50)), p99: median(paced.map(({ p99 }) => p99)) }
    }
  })
}

const toDone = ({ answered, failed }: LoadReport) => ({ units: answered, failed })
