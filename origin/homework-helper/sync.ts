import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { jsonAnswer, refusals } from '../kit/api.ts'
import type { Sql, Transaction } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'
import type { UserEnv } from './authentication.ts'
import { bearer } from './authentication.ts'
import type { Event } from './events.ts'
import { eventColumns, eventOut } from './events.ts'
import type { Prediction } from './predictions.ts'
import { predictionColumns, predictionOut } from './predictions.ts'
import type { Session } from './sessions.ts'
import { sessionColumns, sessionOut } from './sessions.ts'

/** `GET /api/v1/sync/{user_id}?cursor=…`: what is new since the cursor, in the order in which it was stored. */
export function declareSync(api: OpenAPIHono<UserEnv>, { sql, signedIn }: SyncDependencies): void {
  api.openapi({ ...syncRoute, middleware: signedIn }, async (c) => {
    const userId = c.get('user').id
    if (c.req.valid('param').user_id !== userId) throw new OriginError('forbidden', 'Not enough permissions')
    const { cursor, limit } = c.req.valid('query')
    return c.json(await readChanges(sql, { userId, after: BigInt(cursor), limit }), 200)
  })
}

type SyncDependencies = { sql: Sql; signedIn: MiddlewareHandler<UserEnv> }

const syncRoute = createRoute({
  method: 'get',
  path: '/api/v1/sync/{user_id}',
  tags: ['sync'],
  summary: 'Download what is new since the cursor.',
  description:
    'Start without a cursor, keep the one that comes back, and ask again while has_more is true. A row that changes comes again. Nothing is ever skipped.',
  security: bearer,
  request: {
    params: z.object({ user_id: z.coerce.number().int().min(1).max(2_147_483_647) }),
    query: z.object({
      cursor: z
        .string()
        .regex(/^\d{1,18}$/, 'Input should be a cursor of this list')
        .default('0'),
      limit: z.coerce.number().int().min(1).max(1_000).default(500),
    }),
  },
  responses: {
    200: jsonAnswer(
      z
        .object({
          user_id: z.int(),
          sessions: z.array(sessionOut),
          events: z.array(eventOut),
          predictions: z.array(predictionOut),
          cursor: z.string(),
          has_more: z.boolean(),
        })
        .openapi('Changes'),
      'At most limit rows, and the sessions that they belong to',
    ),
    401: refusals[401],
    403: refusals[403],
    410: refusals[410],
    422: refusals[422],
  },
})

type Changed<Row> = { change: bigint; row: Row }
type Range = { userId: number; after: bigint; limit: number }

/**
 * Reads one page of a user's history. The three tables are read from one snapshot: rows of one table that were
 * committed between two reads would otherwise move the cursor past rows of another that were not seen.
 */
function readChanges(sql: Sql, range: Range) {
  return sql.begin('isolation level repeatable read read only', async (tx) => {
    const { userId, after, limit } = range
    const newest = await readNewest(tx, userId)
    if (after > newest) throw cursorUnknown()
    const sessions = await readTable<Session>(tx, { ...range, table: 'sessions', columns: sessionColumns })
    const events = await readTable<Event>(tx, { ...range, table: 'events', columns: eventColumns })
    const predictions = await readTable<Prediction>(tx, { ...range, table: 'predictions', columns: predictionColumns })

    const changes = [...sessions, ...events, ...predictions].map(({ change }) => change).sort(ascending)
    const cursor = changes.slice(0, limit).at(-1) ?? after
    const page = { events: upTo(events, cursor), predictions: upTo(predictions, cursor) }
    const ahead = changes.length > limit ? await readSessionsAhead(tx, { userId, cursor, ...page }) : []
    return {
      user_id: userId,
      sessions: [...upTo(sessions, cursor), ...ahead],
      ...page,
      cursor: String(cursor),
      has_more: changes.length > limit,
    }
  })
}

function cursorUnknown(): OriginError {
  return new OriginError('cursor_unknown', 'The cursor is not of this history; start again without one')
}

async function readNewest(tx: Transaction, userId: number): Promise<bigint> {
  const [user] = await tx<{ change: string }[]>`select change from homework_helper.users where id = ${userId}`
  return BigInt(user?.change ?? 0)
}

type Source = Range & { table: string; columns: readonly string[] }

async function readTable<Row extends object>(tx: Transaction, source: Source): Promise<Changed<Row>[]> {
  const { userId, after, limit, table, columns } = source
  const names: string[] = [...columns, 'change']
  const rows = await tx<(Row & { change: string })[]>`
    select ${tx(names)} from ${tx(`homework_helper.${table}`)}
    where user_id = ${userId} and change > ${String(after)} order by change limit ${limit + 1}`
  return rows.map(({ change, ...row }) => ({ change: BigInt(change), row: row as unknown as Row }))
}

type Page = { userId: number; cursor: bigint; events: Event[]; predictions: Prediction[] }

// A session that was ended after its events were uploaded comes after them. The page carries it already, so that
// a phone never holds an event whose session it has not seen; it comes again in its own place.
async function readSessionsAhead(tx: Transaction, { userId, cursor, events, predictions }: Page): Promise<Session[]> {
  const ids = [...new Set([...events, ...predictions].map(({ session_id }) => session_id))]
  return tx<Session[]>`
    select ${tx(sessionColumns)} from homework_helper.sessions
    where user_id = ${userId} and id = any(${ids}::uuid[]) and change > ${String(cursor)}`
}

function ascending(a: bigint, b: bigint): number {
  return a < b ? -1 : 1
}

function upTo<Row>(changes: Changed<Row>[], cursor: bigint): Row[] {
  return changes.filter(({ change }) => change <= cursor).map(({ row }) => row)
}
