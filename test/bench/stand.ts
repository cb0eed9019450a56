import { once } from 'node:events'
import { truncateSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LoadOrder, LoadReport } from './load.ts'
import { configureUpstream } from './peers.ts'
import type { Peer } from './peers.ts'
import { cpuMicroseconds, freePort, waitForPort } from './processes.ts'
import type { Started, Workshop } from './processes.ts'
import { answerFields, body, host, path, toRequest } from './work.ts'
import type { Credentials } from './work.ts'

/** The upstream and the load generator, and peers that stand between them. */
export interface Stand {
  put(peer: Peer, credentials: Credentials | undefined): Promise<Stood>
  /** Sends requests for so long, at a rate or as many as are answered. */
  load(stood: Stood, seconds: number, rate?: number): Promise<Load>
  remove(stood: Stood): Promise<void>
}

export interface Stood {
  peer: Peer
  started: Started
  port: number
  accessLog: string
  credentials: Credentials | undefined
}

export interface Load extends LoadReport {
  /** CPU time of the peer for each request answered. */
  microseconds: number
  perSecond: number
  /** Share of one core that the peer had. */
  cores: number
}

export async function openStand(workshop: Workshop, connections: number): Promise<Stand> {
  const { folder } = workshop
  const upstreamPort = await freePort()
  await waitForPort(upstreamPort, workshop.start(configureUpstream(folder, upstreamPort).command))
  const generator = workshop.start([process.execPath, fileURLToPath(new URL('load.ts', import.meta.url))], {
    ipc: true,
  })
  const broken = ended(generator)
  broken.catch(() => {})

  async function put(peer: Peer, credentials: Credentials | undefined): Promise<Stood> {
    const port = await freePort()
    const accessLog = join(folder, `access-${port}.log`)
    const { command, env } = peer.configure({ folder, port, upstreamPort, accessLog, credentials })
    const started = workshop.start(command, { stdout: accessLog, ...(env && { env }) })
    const stood: Stood = { peer, started, port, accessLog, credentials }
    await waitForPort(port, started).catch((error: unknown) => {
      throw new Error(`${peer.name} does not start`, { cause: error })
    })
    await prove(stood)
    return stood
  }

  async function load(stood: Stood, seconds: number, rate?: number): Promise<Load> {
    const { tokens } = stood.credentials ?? { tokens: [] }
    const order: LoadOrder = {
      port: stood.port,
      seconds,
      rate,
      requests: Array.from({ length: connections }, (_, index) => toRequest(tokens[index])),
      bodyLength: body.length,
    }
    const before = cpuMicroseconds(stood.started.pid)
    generator.process.send(order)
    const [report] = (await Promise.race([once(generator.process, 'message'), broken])) as [LoadReport]
    const used = cpuMicroseconds(stood.started.pid) - before
    truncateSync(stood.accessLog)
    if (report.failed > report.answered / 1_000)
      throw new Error(`${stood.peer.name} failed ${report.failed} of ${report.failed + report.answered} requests`)
    return {
      ...report,
      microseconds: used / report.answered,
      perSecond: report.answered / report.seconds,
      cores: used / 1_000_000 / report.seconds,
    }
  }

  return { put, load, remove: ({ started }) => workshop.stop(started) }
}

async function ended(generator: Started): Promise<never> {
  await once(generator.process, 'exit')
  throw new Error(`the load generator ended: ${generator.said().trim()}`)
}

/** One request by hand: no figure from a peer that does not do the work. */
async function prove({ peer, port, credentials }: Stood): Promise<void> {
  const token = credentials?.tokens[0]
  const good = await ask(port, token)
  const wrong = Object.entries(answerFields).find(([name, value]) => good.fields[name.toLowerCase()] !== value)
  if (good.status !== 200 || good.body !== body || wrong || good.fields['x-request-id'] === undefined)
    throw new Error(`${peer.name} does not answer as it should: ${JSON.stringify(good)}`)
  if (token === undefined || peer.missing[credentials?.algorithm ?? 'bare'] !== '') return
  const forged = await ask(port, `${token.slice(0, -8)}AAAAAAAA`)
  if (forged.status !== 401) throw new Error(`${peer.name} answers a forged token with ${forged.status}`)
}

async function ask(port: number, token: string | undefined) {
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const sent = request({ port, host: '127.0.0.1', path, headers: { host, ...authorization }, agent: false }).end()
  const [response] = await once(sent, 'response')
  let text = ''
  for await (const chunk of response) text += String(chunk)
  return { status: Number(response.statusCode), fields: response.headers, body: text }
}
