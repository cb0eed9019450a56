import { request } from 'node:http'
import type { ClientRequest } from 'node:http'
import { parseArgs } from 'node:util'
import { inWorkshop } from './beside.ts'
import type { Side } from './beside.ts'
import { nginx } from './peers.ts'
import { cpuMicroseconds, residentBytes } from './processes.ts'
import { putStreams } from './streams.ts'
import { host } from './work.ts'

const growthMax = 64

/** Memory while an upload passes to an upstream that is slower than the client, and CPU time for each megabyte. */
export async function benchUploads(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      megabytes: { type: 'string', default: '1024' },
      rate: { type: 'string', default: '100' },
      help: { type: 'boolean', default: false },
    },
  })
  const [megabytes, rate] = [Number(values.megabytes), Number(values.rate)]
  if (values.help || !(megabytes > 0 && rate > 0) || nginx.version === undefined) {
    process.stdout.write(`npm run bench -- uploads [options]
  --megabytes N  how long the upload is (1024)
  --rate N       how many megabytes a second the upstream takes (100)
It needs Linux and nginx on PATH.
`)
    if (!values.help) process.exitCode = 2
    return
  }
  await inWorkshop(async (workshop) => {
    const { sides } = await putStreams(workshop)
    for (const side of sides) {
      await upload(side.port, 8, 1_000)
      const [idle, used] = [residentBytes(side.started.pid), cpuMicroseconds(side.started.pid)]
      let most = idle
      const timer = setInterval(() => {
        most = Math.max(most, residentBytes(side.started.pid))
      }, 50)
      await upload(side.port, megabytes, rate)
      clearInterval(timer)
      const cost = (cpuMicroseconds(side.started.pid) - used) / megabytes
      process.stdout.write(toLine(side, { megabytes, rate, idle, most, cost }))
    }
  })
}

function toLine(
  { name }: Side,
  { megabytes, rate, idle, most, cost }: { megabytes: number; rate: number; idle: number; most: number; cost: number },
): string {
  const grown = (most - idle) / 1_048_576
  const verdict = name === 'Daemun' ? `, expected ≤ ${growthMax}: ${grown <= growthMax ? 'met' : 'not met'}` : ''
  return `${name.padEnd(8)} ${megabytes} MB to an upstream that takes ${rate} MB/s: ${cost.toFixed(0)} CPU µs for each MB, ${grown.toFixed(0)} MB more memory than idle (${(idle / 1_048_576).toFixed(0)} MB)${verdict}\n`
}

/** As fast as it is taken. */
function upload(port: number, megabytes: number, rate: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        port,
        host: '127.0.0.1',
        method: 'PUT',
        path: `/slow/${rate * 1_048_576}`,
        headers: { host, 'content-length': megabytes * 1_048_576 },
        agent: false,
      },
      (answer) => {
        answer.resume()
        if (answer.statusCode === 200) answer.once('end', resolve)
        else reject(new Error(`the upload got ${answer.statusCode}`))
      },
    )
    sent.on('error', reject)
    write(sent, megabytes)
  })
}

const megabyte = Buffer.alloc(1_048_576, 'x')

function write(sent: ClientRequest, left: number): void {
  if (left === 0) return void sent.end()
  sent.write(megabyte, () => write(sent, left - 1))
}
