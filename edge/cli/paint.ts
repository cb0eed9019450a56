import { styleText } from 'node:util'

/** Colours for a terminal; the same text without them for a pipe or with NO_COLOR. */
export interface Paint {
  bold(text: string): string
  dim(text: string): string
  good(text: string): string
  bad(text: string): string
  accent(text: string): string
}

export function createPaint(stream: NodeJS.WriteStream): Paint {
  const style = (format: Parameters<typeof styleText>[0]) => (text: string) => styleText(format, text, { stream, validateStream: true })
  return { bold: style('bold'), dim: style('dim'), good: style('green'), bad: style('red'), accent: style('cyan') }
}

/** Rows of cells as columns; a cell may be painted, its width is what is seen of it. */
export function toColumns(rows: string[][], indent = '  '): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => seenWidth(row[column] ?? ''))))
  return rows
    .map((row) => indent + row.map((cell, column) => (column === row.length - 1 ? cell : cell + ' '.repeat((widths[column] ?? 0) - seenWidth(cell)))).join('  '))
    .map((line) => `${line.trimEnd()}\n`)
    .join('')
}

// eslint-disable-next-line no-control-regex
const seenWidth = (text: string): number => text.replace(/\u001b\[[0-9;]*m/g, '').length
