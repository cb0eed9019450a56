import { existsSync } from 'node:fs'
import { z } from 'zod'
import { OriginError } from './error.ts'

/** A record of variables; the process environment or a test's own. */
export type Environment = Readonly<Record<string, string | undefined>>

/** One setting: the variables that may carry it, first one set wins, and the schema its text must pass. */
export type Setting<S extends z.ZodType = z.ZodType> = { from: readonly string[]; schema: S }

type Values<T extends Record<string, Setting>> = { [K in keyof T]: z.output<T[K]['schema']> }

/**
 * The only place in the origins that reads the process environment; called once, at the top of the program. What
 * `.env` in the working folder says counts where the environment says nothing, as it does for the gateway.
 */
export function processEnvironment(): Environment {
  if (existsSync('.env')) process.loadEnvFile('.env')
  return { ...process.env }
}

/**
 * Reads every setting and returns the values, or throws one `config_invalid` that lists all faults, a line each.
 * An empty variable counts as absent. Values never appear in the message: some of them are secrets.
 */
export function readSettings<T extends Record<string, Setting>>(environment: Environment, settings: T): Values<T> {
  const faults: string[] = []
  const values: Record<string, unknown> = {}
  for (const [key, { from, schema }] of Object.entries(settings)) {
    const name = from.find((candidate) => environment[candidate])
    const result = schema.safeParse(name && environment[name])
    if (result.success) values[key] = result.data
    else faults.push(`${name ?? from.join(' or ')}: ${result.error.issues.map(({ message }) => message).join('; ')}`)
  }
  if (faults.length > 0)
    throw new OriginError('config_invalid', ['The configuration is not usable:', ...faults].join('\n  '))
  return values as Values<T>
}

const secretBytesMin = 32
const publishedSecrets = /change.?me|change.?this|your.?super.?secret|replace.?(me|this)/i

/** A secret for signing: at least 32 bytes, and never one that a document has published as an example. */
export const secretSetting = z
  .string({ error: 'is missing; make one with: openssl rand -hex 32' })
  .refine((secret) => Buffer.byteLength(secret) >= secretBytesMin, `needs at least ${secretBytesMin} bytes`)
  .refine((secret) => !publishedSecrets.test(secret), 'is a published example; make one with: openssl rand -hex 32')

/** The address of a PostgreSQL server; absent means the embedded one. */
export const databaseUrlSetting = z
  .string()
  .refine(
    (text) => /^postgres(ql)?:$/.test(protocolOf(text)),
    'must look like postgresql://user:password@host:5432/database',
  )
  .optional()

/** Origins allowed to call with credentials: a JSON list or words between commas. `*` is refused. */
export function originsSetting(fallback: readonly string[]) {
  return z
    .string()
    .optional()
    .transform((text) => (text === undefined ? [...fallback] : toList(text)))
    .refine((list) => list.every(isOrigin), 'must list origins such as http://localhost:3000, without * or a path')
}

/** A whole number between `min` and `max`. */
export function numberSetting({ min, max, fallback }: { min: number; max: number; fallback: number }) {
  return z.coerce.number({ error: 'must be a number' }).int().min(min).max(max).default(fallback)
}

function toList(text: string): string[] {
  if (!text.trim().startsWith('['))
    return text
      .split(',')
      .map((word) => word.trim())
      .filter(Boolean)
  try {
    return z.array(z.string()).parse(JSON.parse(text))
  } catch {
    return ['not a list']
  }
}

function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text && text !== 'null'
}

function protocolOf(text: string): string {
  return URL.canParse(text) ? new URL(text).protocol : ''
}
