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
  const style = (format: Parameters<typeof styleText>[0]) => (text: string) =>
    styleText(format, text, { stream, validateStream: true })
  return { bold: style('bold'), dim: style('dim'), good: style('green'), bad: style('red'), accent: style('cyan') }
}

const same = (text: string): string => text

/** Text as it is. */
export const plain: Paint = { bold: same, dim: same, good: same, bad: same, accent: same }

/**
 * Rows of cells as columns, at most `widthMax` wide: what does not fit stands on the next line, under the second
 * column. A cell may be painted, its width is what is seen of it.
 */
export function toColumns(rows: string[][], indent = '  '): string {
  const columns = Math.max(...rows.map((row) => row.length))
  const widths = Array.from({ length: columns }, (_, column) =>
    Math.max(...rows.map((row) => seenWidth(row[column] ?? ''))),
  )
  const behindFirst = indent + ' '.repeat((widths[0] ?? 0) + 2)
  return rows
    .map((row) => {
      let line = indent
      let lines = ''
      for (const [column, cell] of row.entries()) {
        if (column > 1 && cell !== '' && seenWidth(line) + seenWidth(cell) > widthMax) {
          lines += `${line.trimEnd()}\n`
          line = behindFirst
        }
        line += cell + ' '.repeat((widths[column] ?? 0) - seenWidth(cell) + 2)
      }
      return `${lines}${line.trimEnd()}\n`
    })
    .join('')
}

const widthMax = 120

// oxlint-disable-next-line no-control-regex
const seenWidth = (text: string): number => text.replace(/\u001b\[[0-9;]*m/g, '').length
