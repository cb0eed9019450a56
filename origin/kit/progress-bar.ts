const barCharacters = 30

/** Shows on a terminal how much of a long work is done, in [0, 1]; nothing where the output goes into a file. */
export function showProgress(what: string, share: number): void {
  if (!process.stderr.isTTY) return
  const filled = Math.round(share * barCharacters)
  const bar = '█'.repeat(filled) + '░'.repeat(barCharacters - filled)
  process.stderr.write(share < 1 ? `\r\u001b[K${bar} ${what}` : '\r\u001b[K')
}
