import { parentPort, workerData } from 'node:worker_threads'
import { loadTables } from './load-tables.ts'
import type { Read } from './load-tables-afresh.ts'

// The thread of `loadTablesAfresh`: it has loaded nothing yet, so that files are read as they are now.
const tell = (read: Read): void => parentPort?.postMessage(read, [])
try {
  tell({ sources: await loadTables(workerData as string[]) })
} catch (error) {
  const reason = error instanceof Error ? error.message : String(error)
  tell({ problem: isNoData(error) ? `a table is data, and has no functions: ${reason}` : reason })
}

function isNoData(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'DataCloneError'
}
