import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { compare, heading, inWorkshop, put, readRounds, showLine, startGenerator } from './beside.ts'
import type { Side } from './beside.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { configureDaemunCache, configureNginxCache, nginx } from './peers.ts'
import { host } from './work.ts'

const connections = 64
/** As for files of that length: what is kept costs no more. */
const sizes = [
  { name: '1 KB', bytes: 1_024, expected: 2 },
  { name: '100 KB', bytes: 102_400, expected: 1.8 },
]

/** CPU time per answer that is kept, of Daemun beside nginx: each asks the upstream once for each size. */
export async function benchCache(args: string[]): Promise<void> {
  const options = readRounds(args, 'cache', nginx.version)
  if (!options) return
  const { seconds, rounds } = options
  const asked = new Map<string, number>()
  const upstream = createServer(({ url = '' }, response) => {
    asked.set(url, (asked.get(url) ?? 0) + 1)
    response.setHeader('Cache-Control', 'max-age=3600')
    response.end('x'.repeat(Number(url.slice(1))))
  })
  upstream.listen(0, '127.0.0.1')
  await once(upstream, 'listening')
  const { port: upstreamPort } = upstream.address() as AddressInfo
  await inWorkshop(async (workshop) => {
    const generator = startGenerator(workshop, 'load.ts')
    const { folder } = workshop
    const sides = [
      await put(workshop, 'Daemun', (port) => configureDaemunCache(folder, port, upstreamPort)),
      await put(workshop, 'nginx', (port, log) => configureNginxCache(folder, port, upstreamPort, log)),
    ]
    process.stdout.write(heading('CPU µs per kept answer'))
    for (const { name, bytes, expected } of sizes) {
      const request = `GET /${bytes} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n`
      const requests = Array.from({ length: connections }, () => request)
      const load = async ({ port }: Side, length: number) => {
        const order: LoadOrder = { port, seconds: length, rate: undefined, requests, bodyLength: bytes }
        const { answered, failed } = await generator.run<LoadReport>(order)
        return { units: answered, failed }
      }
      process.stdout.write(showLine(name, await compare(sides, { seconds, rounds, load }), expected))
      const times = asked.get(`/${bytes}`) ?? 0
      if (times !== 2) throw new Error(`the upstream was asked ${times} times for ${bytes} bytes, not once by each`)
    }
  }).finally(() => {
    upstream.closeAllConnections()
    upstream.close()
  })
}
