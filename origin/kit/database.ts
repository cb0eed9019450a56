import type postgres from 'postgres'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { OriginError } from './error.ts'
import { toInstant } from './instant.ts'
import { openPool } from './postgres-driver.ts'

/** A pool of connections. Times come back as `toInstant` text, dates and bigints as text. */
export type Sql = postgres.Sql
/** The same inside a transaction. */
export type Transaction = postgres.TransactionSql

export type Database = {
  sql: Sql
  /** True when the server answers a query within the time. */
  isAlive(withinMs: number): Promise<boolean>
  /** Lets running queries end, for at most five seconds. */
  close(): Promise<void>
}

type DatabaseOptions = { name: string; url?: string; embedded?: EmbeddedPostgres; connectionsMax?: number }

const closeSeconds = 5

/** Connects to the server at `url`, or to the embedded one; the code above it is the same. Connects lazily. */
export function openDatabase({ name, url, embedded, connectionsMax = 10 }: DatabaseOptions): Database {
  // A transaction that would be the last to fit into a bounded line is none (`postgres-driver.ts`).
  const shared = { max: connectionsMax, max_pipeline: Infinity, onnotice() {}, fetch_types: false, types }
  if (!url && !embedded)
    throw new OriginError('config_invalid', `${name} has neither a DATABASE_URL nor an embedded database`)
  const sql = url ? openPool(url, { ...shared, ...serverOptions(name) }) : embedded!.connect(shared)
  return {
    sql,
    isAlive: (withinMs) => isAlive(sql, withinMs),
    close: () => sql.end({ timeout: closeSeconds }),
  }
}

/** Says in words that the server cannot be reached, without the password; any other error comes back as it is. */
export function explainUnreachable(error: unknown, name: string, url: string | undefined): unknown {
  if (!isUnavailable(error) || error instanceof OriginError) return error
  const where = url ? ` at ${new URL(url).host}` : ''
  const message = `The database of ${name}${where} cannot be reached: ${error.message}`
  return new OriginError('database_unavailable', message, { cause: error })
}

/** True for errors that say the database cannot be reached now, whatever the query was. */
export function isUnavailable(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && unavailableCodes.test(String(error.code))
}

// Connection trouble of postgres.js and of the socket; SQLSTATE classes 08 and 57P,
// 53300 too many clients, 25P03 hung up on for idling, 3D000 no such database.
const unavailableCodes =
  /^(CONNECT_TIMEOUT|CONNECTION_\w+|ECONN\w+|EPIPE|ENOENT|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|08\w{3}|57P0[1-5]|53300|25P03|3D000)$/

function serverOptions(name: string) {
  return {
    connect_timeout: 5,
    max_lifetime: 30 * 60,
    connection: {
      application_name: name,
      TimeZone: 'UTC',
      statement_timeout: 10_000,
      idle_in_transaction_session_timeout: 10_000,
    },
  } satisfies postgres.Options<{}>
}

// postgres.js reads timestamptz into a Date, which drops the microseconds that Python clients send.
const instantType = {
  to: 1184,
  from: [1184],
  serialize: (value: string) => value,
  parse: (text: string) => toInstant(text) ?? text,
}

// A date is a day on a calendar, not the midnight of some time zone.
const dayType = { to: 1082, from: [1082], serialize: (value: string) => value, parse: (text: string) => text }

/**
 * The arrays that there are. postgres.js can ask the server for all instead, first thing on each connection: but when that
 * connection is lost meanwhile, as all are when a server starts anew, nobody takes the rejection, and the process ends.
 */
const types = {
  date: instantType,
  day: dayType,
  texts: toArrayType(1009, (text) => text),
  integers: toArrayType(1007, Number),
  uuids: toArrayType(2951, (text) => text),
}

function toArrayType<T>(oid: number, parse: (text: string) => T) {
  return { to: oid, from: [oid], serialize: writeArray, parse: (text: string) => readArray(text).map(parse) }
}

/** One level, as PostgreSQL writes it; null comes in no array here. */
function readArray(text: string): string[] {
  const items = text.slice(1, -1).matchAll(/"((?:\\.|[^"\\])*)"|[^,]+/g)
  return [...items].map(([item, quoted]) => quoted?.replace(/\\(.)/gs, '$1') ?? item)
}

function writeArray(items: readonly unknown[] | string): string {
  if (typeof items === 'string') return items
  return `{${items.map((item) => `"${String(item).replace(/["\\]/g, '\\$&')}"`).join()}}`
}

async function isAlive(sql: Sql, withinMs: number): Promise<boolean> {
  const late = Promise.withResolvers<boolean>()
  const timer = setTimeout(() => late.resolve(false), withinMs)
  const answer = sql`select 1`.then(
    () => true,
    () => false,
  )
  return Promise.race([answer, late.promise]).finally(() => clearTimeout(timer))
}
