import type { Figure, Result } from './proxy.ts'

/** The figures as a table a person reads. */
export function showResults(results: Result[]): string {
  const head = ['', 'CPU µs', 'Daemun is', 'expected', 'peak/s', 'cores', 'p50 ms', 'p99 ms', '']
  const lines = results.flatMap(({ title, figures }) => [
    [`${title} (latency at ${Math.round(figures[0]?.latency.asked ?? 0)}/s)`],
    ...figures.map(toLine),
  ])
  const widths = head.map((name, column) =>
    Math.max(name.length, ...lines.filter((line) => line.length > 1).map((line) => line[column]?.length ?? 0)),
  )
  const pad = (line: string[]): string =>
    line.length === 1
      ? `\n${line[0]}`
      : line
          .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
          .join('  ')
          .trimEnd()
  return `\n${[head, ...lines].map(pad).join('\n')}\n\nCPU µs: user and system time of the proxy's process for each request answered, the median of the rounds.\n`
}

const toRemark = (failed: number, { asked, held }: Figure['latency']): string =>
  [failed > 0 ? `${failed} failed` : '', held < asked * 0.97 ? `only ${Math.round(held)}/s: latency says little` : '']
    .filter(Boolean)
    .join(', ')

function toLine(figure: Figure): string[] {
  const { peer, missing, microseconds, ratio, expected, peak, cores, latency, failed } = figure
  const own = peer === 'Daemun'
  return [
    `  ${peer}${missing && ` (${missing})`}`,
    microseconds.toFixed(1),
    own ? '' : `${ratio.toFixed(2)} ×`,
    expected === undefined ? '' : `≤ ${expected.toFixed(2)} ${ratio <= expected ? '✓' : '✗'}`,
    String(Math.round(peak)),
    cores.toFixed(2),
    latency.p50.toFixed(2),
    latency.p99.toFixed(2),
    toRemark(failed, latency),
  ]
}
