import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { MessageChannel, Worker } from 'node:worker_threads'
import type postgres from 'postgres'
import { lockDirectory } from './directory-lock.ts'
import type { EmbeddedWorkerData, EmbeddedWorkerRequest } from './embedded-postgres-worker.ts'
import { OriginError } from './error.ts'
import { PortSocket } from './port-socket.ts'
import type { BridgeLimits } from './postgres-bridge.ts'
import { openPool } from './postgres-driver.ts'

/** The options of postgres.js that make sense for a server without an address. */
type ConnectOptions = Pick<postgres.Options<{}>, 'max' | 'prepare' | 'onnotice' | 'fetch_types' | 'types'>

export type EmbeddedPostgres = {
  /** A postgres.js pool on the embedded server; end it before `close`. */
  connect(options?: ConnectOptions): postgres.Sql
  /** One raw connection of the wire protocol, for a client of your own. */
  socket(): Promise<PortSocket>
  /** Resolves with the reason when the server keeps stopping without being asked to. */
  failed: Promise<Error>
  /** Hangs up on everybody, checkpoints, stops the thread and gives the directory back. */
  close(): Promise<void>
}

type EmbeddedOptions = {
  directory: string
  limits?: Partial<BridgeLimits>
  /** The stack of the server's thread. With less than about 10 MB a deep query runs out of it and kills the server. */
  stackSizeMb?: number
  /** Told each time the server had to be started anew. */
  onRestart?: (reason: Error) => void
}

const defaultLimits: BridgeLimits = { sessionsMax: 100, messageBytesMax: 256_000_000, idleInTransactionMs: 10_000 }
const restartsMax = 3
const restartsWithinMs = 60_000
const closeMs = 10_000

/**
 * Opens a PostgreSQL inside this process (PGlite in a thread of its own), with its files in `directory`, which is
 * made when absent. Throws `directory_in_use` when another process has it. pgvector is there for whoever creates
 * the extension. There is one backend: transactions take turns; `SET`, temporary tables and session advisory locks are
 * shared by every connection; a running query cannot be cancelled. When the server dies its connections fail, and the
 * next one finds it started anew.
 */
export async function openEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const { limits, stackSizeMb = 32, onRestart = () => {} } = options
  const directory = resolve(options.directory)
  const lock = lockDirectory(directory)
  const failed = Promise.withResolvers<Error>()
  const restarts: number[] = []
  let closing = false
  let running = start()
  await running.catch((error: unknown) => {
    lock.release()
    throw error
  })
  return { connect, socket, failed: failed.promise, close }

  async function start(): Promise<Worker> {
    const worker = await startWorker({ directory, limits: { ...defaultLimits, ...limits } }, stackSizeMb)
    worker.once('exit', () => closing || restart(new Error('the embedded database stopped by itself')))
    return worker
  }

  function restart(reason: Error): void {
    const now = performance.now()
    restarts.push(now)
    if (restarts.filter((time) => time > now - restartsWithinMs).length > restartsMax) return failed.resolve(reason)
    onRestart(reason)
    running = start()
    running.catch((error: Error) => failed.resolve(error))
  }

  function connect(connectOptions: ConnectOptions = {}): postgres.Sql {
    // `socket` is an option that postgres.js has and its types lack.
    const poolOptions = { ...connectOptions, ...address, socket }
    return openPool(poolOptions)
  }

  async function socket(): Promise<PortSocket> {
    if (closing) throw unavailable('The embedded database is closed')
    const worker = await running
    const { port1, port2 } = new MessageChannel()
    ask(worker, { kind: 'connect', port: port2 })
    return new PortSocket(port1)
  }

  async function close(): Promise<void> {
    if (closing) return
    closing = true
    const worker = await running.catch(() => undefined)
    if (worker) await stopWorker(worker)
    lock.release()
  }
}

async function startWorker(data: EmbeddedWorkerData, stackSizeMb: number): Promise<Worker> {
  mkdirSync(data.directory, { recursive: true, mode: 0o700 })
  const url = new URL('./embedded-postgres-worker.ts', import.meta.url)
  const worker = new Worker(url, { workerData: data, resourceLimits: { stackSizeMb } })
  const ended = once(worker, 'exit').then(() => {
    throw unavailable('The embedded database could not start')
  })
  await Promise.race([once(worker, 'message'), ended])
  ended.catch(() => 'it was running by then')
  return worker
}

async function stopWorker(worker: Worker): Promise<void> {
  const exited = once(worker, 'exit')
  ask(worker, { kind: 'close' })
  const late = setTimeout(() => void worker.terminate(), closeMs)
  await exited
  clearTimeout(late)
}

function unavailable(detail: string): OriginError {
  return new OriginError('database_unavailable', detail, { headers: { 'Retry-After': '1' } })
}

function ask(worker: Worker, request: EmbeddedWorkerRequest): void {
  worker.postMessage(request, request.kind === 'connect' ? [request.port] : [])
}

// Said here so that PGHOST and its siblings in the environment cannot lead the pool elsewhere.
const address = {
  host: 'embedded',
  port: 5432,
  user: 'postgres',
  database: 'postgres',
  password: '',
  ssl: false,
} as const
