/**
 * Whether a program printed what a page says. Compared without what differs each time: ids, times, durations, tokens,
 * the seconds of a limit, and the length of a body that has such things in it. `…` in a page stands for anything on its
 * line, and alone on a line for any lines.
 */
export function isSameOutput(expected: string, actual: string): boolean {
  const pattern = toComparable(expected)
    .split('\n')
    .map((line) => (line.trim() === '…' ? anyLines : escape(line).replaceAll('…', '[^\\n]*')))
    .join('\n')
    .replaceAll(`${anyLines}\n`, '(?:[^\\n]*\\n)*')
    .replaceAll(`\n${anyLines}`, '(?:\\n[^\\n]*)*')
  return new RegExp(`^${pattern}$`).test(toComparable(actual))
}

const anyLines = '\u0001'

export const toComparable = (text: string): string =>
  variable
    .reduce((known, [pattern, name]) => known.replace(pattern, name), text.replace(/\r/g, ''))
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
    .trim()

const variable: [RegExp, string][] = [
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, '(id)'],
  [/\b\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)/g, '(time)'],
  [/\b\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT/g, '(time)'],
  [/(Content-Length): \d+/g, '$1: (bytes)'],
  [/"(exp|iat)":\d+/g, '"$1":(time)'],
  [/\beyJ[\w-]+\.[\w-]+\.[\w-]+/g, '(token)'],
  [/("ms"|"upstreamMs"):[\d.]+/g, '$1:(ms)'],
  [/(after|in|Retry-After:|;t=) ?[\d.]+( s)?\b/g, '$1 (seconds)'],
]

const escape = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
