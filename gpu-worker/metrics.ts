/** Counts what the worker does, in Prometheus' text format (version 0.0.4). Labels come from fixed lists only. */
interface Counter {
  add(labels: Labels, value?: number): void
}

interface Histogram {
  observe(labels: Labels, value: number): void
}

type Labels = Readonly<Record<string, string>>

export interface Registry {
  counter(name: string, help: string): Counter
  histogram(name: string, help: string, buckets: readonly number[]): Histogram
  /** Read when the text is made. */
  gauge(name: string, help: string, read: () => { labels: Labels; value: number }[]): void
  toText(): string
}

export function createRegistry(): Registry {
  const families: (() => string)[] = []

  return {
    counter(name, help) {
      const values = new Map<string, number>()
      families.push(() =>
        family(
          name,
          'counter',
          help,
          [...values].map(([key, value]) => `${name}${key} ${value}`),
        ),
      )
      return {
        add(labels, value = 1) {
          const key = toText(labels)
          values.set(key, (values.get(key) ?? 0) + value)
        },
      }
    },
    histogram(name, help, buckets) {
      const series = new Map<string, Series>()
      families.push(() =>
        family(
          name,
          'histogram',
          help,
          [...series.values()].flatMap((one) => toLines(name, one, buckets)),
        ),
      )
      return {
        observe(labels, value) {
          const key = toText(labels)
          const one = series.get(key) ?? { labels, counts: new Float64Array(buckets.length), sum: 0, total: 0 }
          series.set(key, one)
          one.sum += value
          one.total++
          const at = buckets.findIndex((bucket) => value <= bucket)
          if (at !== -1) one.counts[at] = (one.counts[at] ?? 0) + 1
        },
      }
    },
    gauge(name, help, read) {
      families.push(() =>
        family(
          name,
          'gauge',
          help,
          read().map(({ labels, value }) => `${name}${toText(labels)} ${value}`),
        ),
      )
    },
    toText: () => families.map((toFamily) => toFamily()).join(''),
  }
}

interface Series {
  labels: Labels
  counts: Float64Array
  sum: number
  total: number
}

function toLines(name: string, { labels, counts, sum, total }: Series, buckets: readonly number[]): string[] {
  let below = 0
  const lines = buckets.map((bucket, at) => {
    below += counts[at] ?? 0
    return `${name}_bucket${toText({ ...labels, le: String(bucket) })} ${below}`
  })
  const own = toText(labels)
  return [
    ...lines,
    `${name}_bucket${toText({ ...labels, le: '+Inf' })} ${total}`,
    `${name}_sum${own} ${sum}`,
    `${name}_count${own} ${total}`,
  ]
}

const family = (name: string, type: string, help: string, lines: string[]): string =>
  `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.map((line) => `${line}\n`).join('')}`

function toText(labels: Labels): string {
  const pairs = Object.entries(labels)
  if (pairs.length === 0) return ''
  return `{${pairs.map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (one) => (one === '\n' ? '\\n' : `\\${one}`))}"`).join(',')}}`
}
