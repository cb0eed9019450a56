import { readFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { TableSource } from '../compile.ts'
import { tables as shipped } from '../sites/index.ts'
import { UsageError } from './config.ts'

/** Loads tables from files; the shipped ones when none is named. A file's default export is the table. */
export async function loadTables(files: string[]): Promise<TableSource[]> {
  if (files.length === 0) return shipped.map(loadShipped)
  const loaded = await Promise.allSettled(files.map(loadTable))
  const faults = loaded.filter((one) => one.status === 'rejected').map((one) => String((one.reason as Error).message))
  if (faults.length > 0) throw new UsageError(faults.join('\n'))
  return loaded.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
}

function loadShipped(table: (typeof shipped)[number]): TableSource {
  const file = fileURLToPath(new URL(`../sites/${table.name}.ts`, import.meta.url))
  return { table, file: toShownPath(file), lines: findRowLines(readFileSync(file, 'utf8')) }
}

async function loadTable(file: string): Promise<TableSource> {
  const path = resolve(file)
  const text = readText(path, file)
  const module = await importTable(path, file)
  if (module.default === undefined)
    throw new UsageError(`${file} exports no table: write 'export default { … } satisfies Table'`)
  return { table: module.default, file: toShownPath(path), lines: findRowLines(text) }
}

async function importTable(path: string, file: string): Promise<{ default?: unknown }> {
  try {
    return await import(pathToFileURL(path).href)
  } catch (error) {
    const line = error instanceof Error ? findLine(error, path) : undefined
    const reason = isModuleReadAsScript(error)
      ? `its package.json says "type": "commonjs"; write "module" there, or name the table ${toModuleName(file)}`
      : error instanceof Error
        ? error.message
        : String(error)
    throw new UsageError(`${file}${line ? `:${line}` : ''} cannot be read as a table: ${reason}`, { cause: error })
  }
}

/** What `npm init` writes makes Node read every file below it as CommonJS, which has no `import` and no `export`. */
const isModuleReadAsScript = (error: unknown): boolean =>
  error instanceof SyntaxError && /^(Unexpected token 'export'|Cannot use import statement)/.test(error.message)

const toModuleName = (file: string): string => file.replace(/\.([jt]s)$/, '.m$1')

/** Where in the file the error came up, as its stack says. */
function findLine({ stack = '' }: Error, path: string): string | undefined {
  const at = stack.indexOf(`${path}:`)
  return at === -1 ? undefined : /^\d+/.exec(stack.slice(at + path.length + 1))?.[0]
}

function readText(path: string, file: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT'
    throw new UsageError(`${file} cannot be opened: ${missing ? 'there is no such file' : String(error)}`, {
      cause: error,
    })
  }
}

/** As one would name the file from here. */
function toShownPath(path: string): string {
  const shown = relative(process.cwd(), path)
  return shown.startsWith('..') ? path : shown
}

/** The lines on which the rows of a table's `routes` lists begin, in their order. Reads brackets, not the language. */
function findRowLines(text: string): number[] {
  const lines: number[] = []
  const open: ('rows' | 'other')[] = []
  let line = 1
  const tokens =
    /\/\/[^\n]*|\/\*[^]*?\*\/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|\broutes\s*:\s*\[|[[\]{}]|\n/g
  for (const [token] of text.matchAll(tokens)) {
    if (token === '{' && open.at(-1) === 'rows') lines.push(line)
    if (token.startsWith('routes')) open.push('rows')
    else if (token === '[' || token === '{') open.push('other')
    else if (token === ']' || token === '}') open.pop()
    line += token.split('\n').length - 1
  }
  return lines
}
