import { enableCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'

/**
 * Keeps what is compiled from here on for the next start, which takes half the time then; so do the processes and
 * threads that this one starts. `NODE_COMPILE_CACHE` names another folder than the one beside the installed packages.
 * Where nothing can be written, nothing is kept.
 */
export function keepCompiled(): void {
  process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(folder)
  enableCompileCache(process.env['NODE_COMPILE_CACHE'])
}

/** No temporary folder that others may write to: what is in there is run. */
const folder = new URL('../../node_modules/.cache/compiled/', import.meta.url)
