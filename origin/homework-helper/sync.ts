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
      'At most limit rows',
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
async function readChanges(sql: Sql, range: Range) {
  const { userId, after, limit } = range
  const [newest, sessions, events, predictions] = await sql.begin('isolation level repeatable read read only', (tx) =>
    Promise.all([
      readNewest(tx, userId),
      readTable<Session>(tx, { ...range, table: 'sessions', columns: sessionColumns }),
      readTable<Event>(tx, { ...range, table: 'events', columns: eventColumns }),
      readTable<Prediction>(tx, { ...range, table: 'predictions', columns: predictionColumns }),
    ]),
  )
  if (after > newest)
    throw new OriginError('cursor_unknown', 'The cursor is not of this history; start again without one')
  const changes = [...sessions, ...events, ...predictions].map(({ change }) => change).sort(ascending)
  const cursor = changes.slice(0, limit).at(-1) ?? after
  return {
    user_id: userId,
    sessions: upTo(sessions, cursor),
    events: upTo(events, cursor),
    predictions: upTo(predictions, cursor),
    cursor: String(cursor),
    has_more: changes.length > limit,
  }
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

function ascending(a: bigint, b: bigint): number {
  return a < b ? -1 : 1
}

function upTo<Row>(changes: Changed<Row>[], cursor: bigint): Row[] {
  return changes.filter(({ change }) => change <= cursor).map(({ row }) => row)
}
