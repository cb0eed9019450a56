import { Worker } from 'node:worker_threads'
import type { TableSource } from '../compile.ts'
import { limits } from '../limits.ts'
import { UsageError } from './config.ts'

/**
 * Loads tables and what they import as they are on disk now: in a thread of its own, since a module that was once
 * loaded is never read again. Reading that takes too long or too much memory is given up. Rejects with a UsageError.
 */
export async function loadTablesAfresh(
  files: string[],
  { readMs = limits.reloadReadMs as number } = {},
): Promise<TableSource[]> {
  const { promise, resolve } = Promise.withResolvers<Read>()
  const thread = new Worker(new URL('./load-tables-thread.ts', import.meta.url), {
    workerData: files,
    resourceLimits: { maxOldGenerationSizeMb: limits.reloadMemoryMegabytesMax },
  })
  const fail = (reason: string): void =>
    resolve({ problem: `${files.join(', ') || 'the tables'} cannot be read: ${reason}` })
  const timer = setTimeout(() => fail(`it takes longer than ${readMs} ms (reloadReadMs)`), readMs)
  thread.once('message', resolve)
  thread.once('error', (error) => fail(toReason(error)))
  thread.once('exit', () => fail('the thread that reads them has ended'))
  try {
    const read = await promise
    if ('sources' in read) return read.sources
    throw new UsageError(read.problem)
  } finally {
    clearTimeout(timer)
    await thread.terminate()
  }
}

/** What the thread says. */
export type Read = { sources: TableSource[] } | { problem: string }

const toReason = (error: unknown): string =>
  error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY'
    ? `it takes more memory than ${limits.reloadMemoryMegabytesMax} MB (reloadMemoryMegabytesMax)`
    : String(error)
