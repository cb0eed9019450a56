export interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

/** Reads Prometheus' text format (version 0.0.4) strictly: throws on any line that a scraper would refuse. */
export function readPrometheus(text: string): { families: Record<string, string>; samples: Sample[] } {
  if (!text.endsWith('\n')) throw new Error('the last line does not end')
  const families: Record<string, string> = {}
  const samples: Sample[] = []
  const seen = new Set<string>()
  for (const line of text.slice(0, -1).split('\n')) {
    const type = /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram)$/.exec(line)
    if (type?.[1] && families[type[1]]) throw new Error(`two types: ${line}`)
    if (type) families[type[1] ?? ''] = type[2] ?? ''
    if (line.startsWith('#') && !type && !/^# HELP [a-zA-Z_:][\w:]* \S/.test(line))
      throw new Error(`no comment: ${line}`)
    if (line.startsWith('#')) continue
    const [, name = '', inside = '', value = ''] =
      /^([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? ([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)$/.exec(
        line,
      ) ?? []
    if (name === '' || seen.has(`${name}{${inside}}`)) throw new Error(`no sample, or a second one: ${line}`)
    seen.add(`${name}{${inside}}`)
    const family = name.replace(/_(bucket|sum|count)$/, '')
    if (!families[name] && families[family] !== 'histogram') throw new Error(`no type: ${line}`)
    const pairs = [...inside.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label = '', quoted = '']) => [
      label,
      unescape(quoted),
    ])
    samples.push({ name, labels: Object.fromEntries(pairs), value: Number(value) })
  }
  return { families, samples }
}

const unescape = (quoted: string): string =>
  quoted.replace(/\\(.)/g, (_, character: string) => (character === 'n' ? '\n' : character))
