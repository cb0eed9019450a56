import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { compare, heading, inWorkshop, put, readRounds, showLine, startGenerator } from './beside.ts'
import type { Side } from './beside.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { configureDaemunFiles, configureNginxFiles, nginx } from './peers.ts'
import { host } from './work.ts'

const sizes: { name: string; bytes: number; expected?: number; connections: number }[] = [
  { name: '1 KB', bytes: 1_024, expected: 2, connections: 64 },
  { name: '100 KB', bytes: 102_400, expected: 1.8, connections: 64 },
  { name: '10 MB', bytes: 10_485_760, expected: 1.5, connections: 8 },
  { name: '32 MB, read from the disk', bytes: 33_554_432, connections: 8 },
]

/** CPU time per file sent, of Daemun beside nginx: files that are not compressed, to clients that have none of them. */
export async function benchFiles(args: string[]): Promise<void> {
  const options = readRounds(args, 'files', nginx.version)
  if (!options) return
  const { seconds, rounds } = options
  await inWorkshop(async (workshop) => {
    const root = join(workshop.folder, 'web')
    mkdirSync(root)
    for (const { bytes } of sizes) writeFileSync(join(root, `${bytes}.bin`), randomBytes(bytes))
    const generator = startGenerator(workshop, 'load.ts')
    const sides = [
      await put(workshop, 'Daemun', (port) => configureDaemunFiles(workshop.folder, port, root)),
      await put(workshop, 'nginx', (port, log) => configureNginxFiles(workshop.folder, port, root, log)),
    ]
    process.stdout.write(heading('CPU µs per file'))
    for (const { name, bytes, expected, connections } of sizes) {
      const request = `GET /${bytes}.bin HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n`
      const requests = Array.from({ length: connections }, () => request)
      const load = async ({ port }: Side, length: number) => {
        const order: LoadOrder = { port, seconds: length, rate: undefined, requests, bodyLength: bytes }
        const { answered, failed } = await generator.run<LoadReport>(order)
        return { units: answered, failed }
      }
      process.stdout.write(showLine(name, await compare(sides, { seconds, rounds, load }), expected))
    }
  })
}
