import { readFileSync } from 'node:fs'

/** What a fenced block of a page asks of whoever runs the page. */
export type Block =
  /** Shell: ends with this status. */
  | { kind: 'run'; line: number; text: string; status: number; waitMs: number }
  /** Shell that goes on running; it is up when something listens on this port. */
  | { kind: 'serve'; line: number; text: string; port: number }
  /** What the block before it prints; after Ctrl-C: what the server before it still prints when it is stopped. */
  | { kind: 'output'; line: number; text: string; stopped: boolean }
  | { kind: 'file'; line: number; text: string; name: string }
  /** For the eye only. */
  | { kind: 'other'; line: number; text: string }

/**
 * The blocks of a page, by their info strings:
 *
 *   sh               run with bash, in order, in one shell for the whole page
 *   sh exits 2       the same, and ends with that status
 *   sh after a second   the same, after a second: what the block before it did is in the log by then
 *   sh server 8080   started in the background and stopped at the end of the page
 *   sh elsewhere     not run here; commands.test.ts says why, and where it is
 *   text             directly behind one of these: what it prints, both streams
 *   text on Ctrl-C   what the server prints when it is interrupted
 *   ts, js, ini      a first line that is a comment with nothing but a name makes it a file of that name
 */
export function readPage(file: URL): Block[] {
  const lines = readFileSync(file, 'utf8').split('\n')
  const blocks: Block[] = []
  for (let at = 0; at < lines.length; at++) {
    const info = /^```(.+)$/.exec(lines[at] ?? '')?.[1]
    if (info === undefined) continue
    const end = lines.indexOf('```', at)
    if (end === -1) throw new Error(`${file.pathname}:${at + 1}: the block has no end`)
    blocks.push(toBlock(info, lines.slice(at + 1, end).join('\n'), at + 1))
    at = end
  }
  return blocks
}

function toBlock(info: string, text: string, line: number): Block {
  const [language, ...words] = info.split(' ')
  if (language === 'text') return { kind: 'output', line, text, stopped: words.join(' ') === 'on Ctrl-C' }
  const name = /^(?:\/\/|#) ([\w./-]+)$/m.exec(text.split('\n')[0] ?? '')?.[1]
  if (language !== 'sh') return name === undefined ? { kind: 'other', line, text } : { kind: 'file', line, text, name }
  if (words[0] === 'elsewhere') return { kind: 'other', line, text }
  if (words[0] === 'server') return { kind: 'serve', line, text, port: Number(words[1]) }
  return {
    kind: 'run',
    line,
    text,
    status: words[0] === 'exits' ? Number(words[1]) : 0,
    waitMs: words[0] === 'after' ? 1_000 : 0,
  }
}
