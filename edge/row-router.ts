import type { Params, Result, Router } from 'hono/router'

/**
 * A router of Hono's interface for what rows have: exact paths, and prefixes of whole segments ('/api/*'). Finds all that
 * match in one look-up per segment of the asked path, however many rows there are: exact ones first, then longer
 * prefixes before shorter ones, and those of one path as they were added.
 */
export class RowRouter<Row> implements Router<Row> {
  readonly name = 'RowRouter'
  readonly #exact = new Map<string, Added<Row>[]>()
  /** By the path without its '/*': '/api', and '' for '/*'. */
  readonly #prefixes = new Map<string, Added<Row>[]>()

  add(method: string, path: string, row: Row): void {
    const isPrefix = path.endsWith('/*')
    const rows = isPrefix ? this.#prefixes : this.#exact
    const key = isPrefix ? path.slice(0, -2) : path
    const added = { method, result: [row, {}] as [Row, Params] }
    const known = rows.get(key)
    if (known) known.push(added)
    else rows.set(key, [added])
  }

  match(method: string, path: string): Result<Row> {
    const found: [Row, Params][] = []
    collect(this.#exact.get(path), method, found)
    for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1))
      collect(this.#prefixes.get(path.slice(0, end)), method, found)
    collect(this.#prefixes.get(''), method, found)
    return [found]
  }
}

interface Added<Row> {
  method: string
  result: [Row, Params]
}

function collect<Row>(rows: Added<Row>[] | undefined, method: string, found: [Row, Params][]): void {
  if (!rows) return
  for (const row of rows) if (row.method === 'ALL' || row.method === method) found.push(row.result)
}
