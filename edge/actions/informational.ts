import type { ResponseEdits } from './headers.ts'

/** An upstream's informational answer as the client gets it (RFC 8297): without fields of this hop, framing or ours. */
export function toInformationalHeaders({ drops }: ResponseEdits, received: string[]): string[] {
  const fields: [string, string][] = []
  const named = new Set(['content-length'])
  for (let i = 0; i < received.length; i += 2) {
    const [field = '', value = ''] = received.slice(i, i + 2)
    if (field.toLowerCase() === 'connection')
      for (const one of value.toLowerCase().split(/[ \t]*,[ \t]*/)) named.add(one)
    fields.push([field, value])
  }
  return fields.filter(([field]) => !named.has(field.toLowerCase()) && !drops.has(field.toLowerCase())).flat()
}
