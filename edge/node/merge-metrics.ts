/**
 * The metrics of several processes as those of one, in Prometheus' text format (version 0.0.4). Counters and histograms
 * are added up, also those of processes that are gone, so that a counter never falls; gauges of those that live are
 * added up too, except for the few of which the least counts.
 */
export function mergeMetrics(alive: string[], gone: string[] = []): string {
  const families = new Map<string, Family>()
  for (const text of alive) for (const family of readFamilies(text)) add(families, family)
  for (const text of gone) for (const family of readFamilies(text)) if (family.type !== 'gauge') add(families, family)
  return [...families.values()].map(toText).join('')
}

interface Family {
  name: string
  help: string
  type: string
  /** By its name and labels. */
  samples: Map<string, number>
}

/** What is so for all is as bad as it is for one. */
const least: ReadonlySet<string> = new Set(['daemun_upstream_server_up', 'daemun_certificate_days_left'])

function add(families: Map<string, Family>, family: Family): void {
  const known = families.get(family.name)
  if (!known) return void families.set(family.name, family)
  for (const [series, value] of family.samples) {
    const before = known.samples.get(series)
    known.samples.set(
      series,
      before === undefined ? value : least.has(known.name) ? Math.min(before, value) : before + value,
    )
  }
}

function readFamilies(text: string): Family[] {
  const families: Family[] = []
  for (const line of text.split('\n')) {
    const [, kind, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    const last = families.at(-1)
    if (kind === 'HELP') families.push({ name, help: rest, type: 'gauge', samples: new Map() })
    else if (kind === 'TYPE' && last) last.type = rest
    else if (line !== '' && last) {
      const end = line.lastIndexOf(' ')
      last.samples.set(line.slice(0, end), Number(line.slice(end + 1)))
    }
  }
  return families
}

const toText = ({ name, help, type, samples }: Family): string =>
  `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${[...samples].map(([series, value]) => `${series} ${value}\n`).join('')}`
