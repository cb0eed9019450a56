import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { MessageChannel, Worker } from 'node:worker_threads'
import postgres from 'postgres'
import { lockDirectory } from './directory-lock.ts'
import type { EmbeddedWorkerData, EmbeddedWorkerRequest } from './embedded-postgres-worker.ts'
import { OriginError } from './error.ts'
import { PortSocket } from './port-socket.ts'
import type { BridgeLimits } from './postgres-bridge.ts'

/** The options of postgres.js that make sense for a server without an address. */
export type ConnectOptions = Pick<postgres.Options<{}>, 'max' | 'prepare' | 'onnotice' | 'types'>

export type EmbeddedPostgres = {
  /** A postgres.js pool on the embedded server; end it before `close`. */
  connect(options?: ConnectOptions): postgres.Sql
  /** One raw connection of the wire protocol, for a client of your own. */
  socket(): PortSocket
  /** Resolves with the reason when the server stops without being asked to. */
  failed: Promise<Error>
  /** Hangs up on everybody, checkpoints, stops the thread and gives the directory back. */
  close(): Promise<void>
}

const defaultLimits: BridgeLimits = { sessionsMax: 100, messageBytesMax: 256_000_000, idleInTransactionMs: 10_000 }
const closeMs = 10_000

/**
 * Opens a PostgreSQL inside this process (PGlite in a thread of its own), with its files in `directory`, which is
 * made when absent. Throws `directory_in_use` when another process has it. There is one backend: transactions
 * take turns, and `SET`, temporary tables and session advisory locks are shared by every connection.
 */
export async function openEmbeddedPostgres(options: {
  directory: string
  limits?: Partial<BridgeLimits>
}): Promise<EmbeddedPostgres> {
  const directory = resolve(options.directory)
  const lock = lockDirectory(directory)
  try {
    const worker = await startWorker({ directory, limits: { ...defaultLimits, ...options.limits } })
    return attach(worker, () => lock.release())
  } catch (error) {
    lock.release()
    throw error
  }
}

async function startWorker(data: EmbeddedWorkerData): Promise<Worker> {
  mkdirSync(data.directory, { recursive: true })
  const worker = new Worker(new URL('./embedded-postgres-worker.ts', import.meta.url), { workerData: data })
  await once(worker, 'message')
  return worker
}

function attach(worker: Worker, release: () => void): EmbeddedPostgres {
  let state: 'open' | 'closing' | 'closed' = 'open'
  const failed = Promise.withResolvers<Error>()
  let reason: unknown
  worker.on('error', (error) => (reason = error))
  worker.on('exit', () => {
    if (state === 'open') failed.resolve(new Error('the embedded database stopped', { cause: reason }))
    state = 'closed'
    release()
  })

  return { connect, socket, failed: failed.promise, close }

  function connect(connectOptions: ConnectOptions = {}): postgres.Sql {
    // `socket` is an option that postgres.js has and its types lack.
    const options = { ...connectOptions, ...address, socket: async () => socket() }
    return postgres(options)
  }

  function socket(): PortSocket {
    if (state !== 'open') throw new OriginError('database_unavailable', 'The embedded database is closed')
    const { port1, port2 } = new MessageChannel()
    ask(worker, { kind: 'connect', port: port2 })
    return new PortSocket(port1)
  }

  async function close(): Promise<void> {
    if (state !== 'open') return
    state = 'closing'
    const exited = once(worker, 'exit')
    ask(worker, { kind: 'close' })
    const late = setTimeout(() => void worker.terminate(), closeMs)
    await exited
    clearTimeout(late)
  }
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
