import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Agent, createServer, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { authority, issue } from './certificates.ts'
import { findFreePort } from './free-port.ts'

/** An ACME server made for tests, by the authority that everybody knows; absent on many machines. */
export const hasPebble = has('pebble', ['-help'])
/** Starts programs at another time. */
export const hasFaketime = has('faketime', ['--version'])

function has(program: string, args: string[]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore' })
    return true
  } catch (error) {
    return error instanceof Error && 'status' in error && typeof error.status === 'number'
  }
}

export interface PebbleOptions {
  /** Where challenges are answered. */
  httpPort: number
  /** Of a hundred nonces, so many are refused. */
  badNonces?: number
  validitySeconds?: number
}

/** What the front does with a request; true: it is not passed on. */
export type Meddle = (incoming: IncomingMessage, outgoing: ServerResponse) => boolean

export interface Pebble {
  /** By https. */
  directory: string
  /** The file with the authority that is trusted by. */
  caFile: string
  /** The same server behind a front that can be told to do worse. */
  front: string
  meddle(how: Meddle | undefined): void
  /** What was asked of the front: 'POST /sign-me'. */
  asked: string[]
  /** Where in the JSON of the directory the front adds a renewalInfo. */
  offerRenewalInfo(window: (() => { start: Date; end: Date }) | undefined): void
  /** The certificate that what it issues is trusted by. */
  root(): Promise<string>
  stop(): Promise<void>
}

export async function startPebble({ httpPort, badNonces = 0, validitySeconds }: PebbleOptions): Promise<Pebble> {
  const folder = mkdtempSync(join(tmpdir(), 'daemun-pebble-'))
  const [port, managementPort] = [await findFreePort(), await findFreePort()]
  const { certificate, key } = issue(['localhost', '127.0.0.1'])
  const caFile = join(folder, 'authority.pem')
  writeFileSync(caFile, authority)
  writeFileSync(join(folder, 'cert.pem'), certificate)
  writeFileSync(join(folder, 'key.pem'), key)
  const pebble = {
    listenAddress: `127.0.0.1:${port}`,
    managementListenAddress: `127.0.0.1:${managementPort}`,
    certificate: join(folder, 'cert.pem'),
    privateKey: join(folder, 'key.pem'),
    httpPort,
    tlsPort: 1,
    ...(validitySeconds !== undefined && { certificateValidityPeriod: validitySeconds }),
  }
  writeFileSync(join(folder, 'pebble.json'), JSON.stringify({ pebble }))
  const dns = await startDns()
  const child = spawn('pebble', ['-config', join(folder, 'pebble.json'), '-dnsserver', `127.0.0.1:${dns.port}`], {
    env: { ...process.env, PEBBLE_VA_NOSLEEP: '1', PEBBLE_WFE_NONCEREJECT: String(badNonces) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output: string[] = []
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => output.push(text))
  await untilAccepting(port, child, output)

  const agent = new Agent({ ca: authority, keepAlive: true })
  let meddle: Meddle | undefined
  let window: (() => { start: Date; end: Date }) | undefined
  const asked: string[] = []
  const front = createServer({ cert: certificate, key }, (incoming, outgoing) => {
    asked.push(`${incoming.method} ${incoming.url}`)
    if (meddle?.(incoming, outgoing)) return
    if (window && incoming.url?.startsWith('/renewal-info/')) {
      const suggestedWindow = window()
      outgoing.setHeader('Retry-After', '3600')
      outgoing.end(JSON.stringify({ suggestedWindow }))
      return
    }
    const passed = request(
      {
        host: '127.0.0.1',
        servername: 'localhost',
        port,
        path: incoming.url,
        method: incoming.method,
        agent,
        headers: incoming.headers,
      },
      (answer) => {
        if (incoming.url !== '/dir' || !window) {
          outgoing.writeHead(answer.statusCode ?? 500, answer.headers)
          return answer.pipe(outgoing)
        }
        let text = ''
        answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
        return answer.on('end', () =>
          outgoing.end(
            JSON.stringify({ ...JSON.parse(text), renewalInfo: `https://${incoming.headers.host}/renewal-info` }),
          ),
        )
      },
    )
    passed.on('error', () => outgoing.destroy())
    incoming.pipe(passed)
  })
  front.listen(0, '127.0.0.1')
  await once(front, 'listening')

  return {
    directory: `https://127.0.0.1:${port}/dir`,
    caFile,
    front: `https://127.0.0.1:${(front.address() as AddressInfo).port}/dir`,
    meddle: (how) => {
      meddle = how
    },
    asked,
    offerRenewalInfo: (how) => {
      window = how
    },
    root: () => fetchText(managementPort, '/roots/0'),
    stop: async () => {
      front.closeAllConnections()
      front.close()
      agent.destroy()
      child.kill('SIGKILL')
      await once(child, 'exit')
      dns.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function untilAccepting(port: number, child: ChildProcess, output: string[]): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    const accepted = await fetchText(port, '/dir').then(
      () => true,
      () => false,
    )
    if (accepted) return
    if (child.exitCode !== null) break
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error(`pebble does not answer:\n${output.join('')}`)
}

const fetchText = (port: number, path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', servername: 'localhost', port, path, ca: authority }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      answer.on('end', () => resolve(text))
    })
    asked.on('error', reject).end()
  })

/** Says of every name that it is this machine (RFC 1035 §4). */
async function startDns(): Promise<{ port: number; close(): void }> {
  const socket = createSocket('udp4')
  socket.on('message', (query, { address, port }) => {
    let end = 12
    while (query[end] !== 0 && end < query.length) end += (query[end] ?? 0) + 1
    end += 5
    const isA = query.readUInt16BE(end - 4) === 1
    const head = Buffer.from(query.subarray(0, 12))
    head.writeUInt16BE(0x8580, 2) // an answer, and no error
    head.writeUInt16BE(isA ? 1 : 0, 6)
    head.writeUInt32BE(0, 8)
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1])
    socket.send(Buffer.concat([head, query.subarray(12, end), ...(isA ? [record] : [])]), port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return { port: socket.address().port, close: () => void socket.close() }
}
