import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { WebSocket, WebSocketServer } from 'ws'
import { createFolder, serveCli } from '../support/cli.ts'
import type { Served } from '../support/cli.ts'
import { startLoad } from '../support/steady-load.ts'
import { residentBytes } from './processes.ts'

const token = 'cmVsb2Fkcy1iZW5jaC10b2tlbi1vZi10aGUtYmVuY2g='
const socketsMax = 20

/** Reloads under load: what they cost clients, WebSockets and memory, in one process and in two workers. */
export async function benchReload(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { reloads: { type: 'string', default: '100' }, help: { type: 'boolean' } },
  })
  const reloads = Number(values.reloads)
  if (values.help || !Number.isInteger(reloads) || reloads < 1 || !existsSync('/proc/self/status')) {
    process.stdout.write('npm run bench -- reload [--reloads 100]\nIt needs Linux.\n')
    if (!values.help) process.exitCode = 2
    return
  }
  for (const workers of [1, 2]) process.stdout.write(`${await measure(workers, reloads)}\n`)
}

async function measure(workers: number, reloads: number): Promise<string> {
  const folder = createFolder({})
  const origin = createServer((request, response) => response.end(String(request.headers['x-asked-by'])))
  new WebSocketServer({ server: origin }).on('connection', (socket) =>
    socket.on('message', (data) => socket.send(data)),
  )
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
  const { port: originPort } = origin.address() as AddressInfo
  writeTable(folder.path, originPort, 1)
  const served = await serveCli(['shop.ts', ...(workers > 1 ? ['--workers', String(workers)] : [])], {
    folder: folder.path,
    env: { DAEMUN_ADMIN_TOKEN: token },
  })
  try {
    const sockets = await Promise.all(Array.from({ length: socketsMax }, () => openSocket(served.port)))
    const load = startLoad(served.port, { connections: 32 })
    const memory: number[] = []
    for (let generation = 2; generation <= reloads + 1; generation++) {
      writeTable(folder.path, originPort, generation)
      const answer = await fetch(`${served.adminUrl}/reload`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}` },
      })
      if (answer.status !== 200) throw new Error(`reload ${generation} was answered ${answer.status}`)
      memory.push(memoryOf(served))
    }
    const { answered, failed, mixed } = await load.stop()
    const echoed = (await Promise.all(sockets.map(echoes))).filter(Boolean).length
    for (const socket of sockets) socket.terminate()
    const tenth = Math.ceil(reloads / 10)
    const megabytes = (list: number[]) => (list.reduce((sum, bytes) => sum + bytes, 0) / list.length / 1e6).toFixed(0)
    return [
      `${workers === 1 ? 'one process' : `${workers} workers`}: ${reloads} reloads while ${answered} requests were answered:`,
      `${failed} failed, ${mixed} saw two tables, ${socketsMax - echoed} of ${socketsMax} WebSockets cut;`,
      `memory ${megabytes(memory.slice(0, tenth))} MB in the first tenth, ${megabytes(memory.slice(-tenth))} MB in the last`,
    ].join(' ')
  } finally {
    await served.stop()
    origin.closeAllConnections()
    origin.close()
    folder.remove()
  }
}

/** The row of all requests changes each time, that of WebSockets never. */
function writeTable(folder: string, originPort: number, generation: number): void {
  const body = `generation ${generation}`
  const table = {
    name: 'shop',
    upstreams: { origin: { servers: [`http://127.0.0.1:${originPort}`] } },
    sites: [
      {
        hosts: ['shop.example'],
        routes: [
          { path: '/ws', proxy: { to: 'origin', websocket: true } },
          {
            path: '/*',
            requestHeaders: { set: { 'X-Asked-By': body } },
            responseHeaders: { set: { 'X-Body': body } },
            proxy: { to: 'origin' },
          },
        ],
      },
    ],
  }
  writeFileSync(join(folder, 'shop.ts'), `export default ${JSON.stringify(table)}\n`)
}

async function openSocket(port: number): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: { Host: 'shop.example' } })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  return socket
}

function echoes(socket: WebSocket): Promise<boolean> {
  if (socket.readyState !== WebSocket.OPEN) return Promise.resolve(false)
  return new Promise((resolve) => {
    socket.once('message', () => resolve(true)).once('close', () => resolve(false))
    socket.send('still there')
  })
}

/** Of the program and its workers. */
function memoryOf({ child: { pid = 0 } }: Served): number {
  const workers = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
  const pids = [pid, ...workers]
  return pids
    .map(residentBytes)
    .filter(Number.isFinite)
    .reduce((sum, bytes) => sum + bytes, 0)
}
