import { isRecord } from './shape.ts'
import type { Report } from './shape.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Puts variables into every text of some data, as compose files do: '${NAME}' and '${NAME:-default}' (the default also
 * stands in for an empty value). One pass: what a variable brings in is not read again.
 */
export function fillVariables(data: unknown, environment: Environment, report: Report): unknown {
  function fill(value: unknown, at: string, around: unknown[]): unknown {
    if (typeof value === 'string') return fillText(value, environment, report, at)
    if (!Array.isArray(value) && !isRecord(value)) return value
    if (around.includes(value)) return void report(at, 'contains itself', 'write data that could be JSON')
    const inside = [...around, value]
    if (Array.isArray(value)) return value.map((entry, index) => fill(entry, `${at}[${index}]`, inside))
    return Object.fromEntries(
      Object.entries(value).map(([key, entry]) => [key, fill(entry, at === '' ? key : `${at}.${key}`, inside)]),
    )
  }
  return fill(data, '', [])
}

/** The names of the variables in some data that have no default. */
export function requiredVariables(data: unknown): string[] {
  const names = [...JSON.stringify(data).matchAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g)].map((match) => match[1] ?? '')
  return [...new Set(names)]
}

function fillText(text: string, environment: Environment, report: Report, at: string): string {
  return text.replace(/\$\{([^}]*)\}/g, (whole, inside: string) => {
    const parts = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s.exec(inside)
    if (!parts) {
      report(at, `has '${whole}', which is no variable`, "write '${NAME}' or '${NAME:-default}'")
      return whole
    }
    const [, name = '', fallback] = parts
    const value = environment[name]
    if (value !== undefined && value !== '') return value
    if (fallback !== undefined) return fallback
    report(at, `needs the variable ${name}, which is not set`, `set ${name} in the environment or in .env`)
    return whole
  })
}
