import { PGlite } from '@electric-sql/pglite'
import { vector } from '@electric-sql/pglite-pgvector'
import { parentPort, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import type { BridgeLimits } from './postgres-bridge.ts'
import { createPostgresBridge } from './postgres-bridge.ts'

/** What the owner of the worker hands over at start. */
export type EmbeddedWorkerData = { directory: string; limits: BridgeLimits }

/** What the owner may ask later. */
export type EmbeddedWorkerRequest = { kind: 'connect'; port: MessagePort } | { kind: 'close' }

const { directory, limits }: EmbeddedWorkerData = workerData
const server = await PGlite.create(directory, { relaxedDurability: false, extensions: { vector } })
dieOfUnknownErrors(server)
const bridge = createPostgresBridge({ execute }, limits)
const ports = new Set<MessagePort>()

parentPort?.on('message', (request: EmbeddedWorkerRequest) => {
  if (request.kind === 'connect') connect(request.port)
  else void close()
})
parentPort?.postMessage('ready', [])

type ServerModule = { _PostgresMainLoopOnce: () => void }

/**
 * PGlite swallows what it does not know: a RangeError from the stack or a trap of wasm leaves the server half
 * through a statement, and from then on it answers with nothing, or with something wrong. Such a server must not
 * answer once more: the thread ends here, and opening the directory again recovers from the log, as after a kill.
 */
function dieOfUnknownErrors(instance: PGlite): void {
  const { mod, POSTGRES_MAIN_LONGJMP } = instance as unknown as { mod: ServerModule; POSTGRES_MAIN_LONGJMP: number }
  const loopOnce = '_PostgresMainLoopOnce'
  const run = mod[loopOnce]
  mod[loopOnce] = function runOnce() {
    try {
      run()
    } catch (error) {
      if (!isJump(error, POSTGRES_MAIN_LONGJMP)) process.exit(1)
      throw error
    }
  }
}

// How the server leaves a failed statement; the ordinary way of a SQL error.
function isJump(error: unknown, status: number): boolean {
  return typeof error === 'object' && error !== null && 'status' in error && error.status === status
}

function connect(port: MessagePort): void {
  const session = bridge.open({ send: (bytes) => port.postMessage(bytes, []), close: () => port.close() })
  ports.add(port)
  port.on('message', (bytes: Uint8Array) => session.receive(bytes))
  port.on('close', () => {
    ports.delete(port)
    session.end()
  })
}

async function execute(message: Uint8Array): Promise<Buffer> {
  const answer: Uint8Array[] = []
  await server.execProtocolRawStream(message, { onRawData: (bytes) => answer.push(bytes.slice()) })
  return Buffer.concat(answer)
}

async function close(): Promise<void> {
  for (const port of ports) port.close()
  await server.close()
  parentPort?.close()
}
