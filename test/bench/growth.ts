import { compare, inWorkshop, put, readRounds, startGenerator } from './beside.ts'
import type { Side } from './beside.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { configureDaemun } from './peers.ts'
import { answerFields, host } from './work.ts'

const expected = 1.1

/** CPU time per request as a table grows: ten rows and ten thousand, one host and a thousand. */
export async function benchGrowth(args: string[]): Promise<void> {
  const options = readRounds(args, 'growth', 'none is needed')
  if (!options) return
  const { seconds, rounds } = options
  await inWorkshop(async (workshop) => {
    const generator = startGenerator(workshop, 'load.ts')
    process.stdout.write(`${'CPU µs per request'.padEnd(26)}     small     large   ratio\n`)
    for (const { name, small, large } of growths) {
      const sides = [
        await put(workshop, 'small', (port) => configureDaemun(workshop.folder, port, small.table)),
        await put(workshop, 'large', (port) => configureDaemun(workshop.folder, port, large.table)),
      ]
      const requests = new Map(sides.map((side, index) => [side, index === 0 ? small.requests : large.requests]))
      const load = async (side: Side, length: number) => {
        const order: LoadOrder = {
          port: side.port,
          seconds: length,
          rate: undefined,
          requests: requests.get(side) ?? [],
          bodyLength: 2,
        }
        const { answered, failed } = await generator.run<LoadReport>(order)
        return { units: answered, failed }
      }
      const { costs, ratio } = await compare(sides, { seconds, rounds, load })
      const grown = 1 / ratio
      const figures = costs.map((cost) => cost.toFixed(1).padStart(10)).join('')
      const verdict = grown <= expected ? 'met' : 'not met'
      process.stdout.write(
        `${name.padEnd(26)}${figures}${grown.toFixed(2).padStart(8)}  expected ≤ ${expected}: ${verdict}\n`,
      )
      for (const { started } of sides) await workshop.stop(started)
    }
  })
}

/** A table, and 64 requests that are spread over all of it. */
interface Grown {
  table: object
  requests: string[]
}

const row = (path: string) => ({ path, respond: { status: 200, body: 'ok' } })
const ask = (name: string, path: string): string => `GET ${path} HTTP/1.1\r\nHost: ${name}\r\nAccept: */*\r\n\r\n`
const spread = (count: number, make: (index: number) => string): string[] =>
  Array.from({ length: 64 }, (_, index) => make(Math.floor((index * count) / 64)))

function withRows(count: number): Grown {
  const routes = Array.from({ length: count }, (_, index) => row(`/group-${index % 97}/item-${index}/*`))
  return {
    table: { name: 'bench', sites: [{ hosts: [host], headers: answerFields, routes }] },
    requests: spread(count, (index) => ask(host, `/group-${index % 97}/item-${index}/x`)),
  }
}

function withHosts(count: number): Grown {
  const sites = Array.from({ length: count }, (_, index) => ({
    hosts: [`host-${index}.example`],
    headers: answerFields,
    routes: [row('/api/*')],
  }))
  return {
    table: { name: 'bench', sites },
    requests: spread(count, (index) => ask(`host-${index}.example`, '/api/x')),
  }
}

const growths = [
  { name: '10 → 10,000 rows', small: withRows(10), large: withRows(10_000) },
  { name: '1 → 1,000 hosts', small: withHosts(1), large: withHosts(1_000) },
]
