import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { jsonAnswer, jsonBody, refusals } from '../kit/api.ts'
import { contentHash } from '../kit/content-hash.ts'
import type { Sql } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'
import { instant, instantOut, int32, text, uuid } from '../kit/fields.ts'
import { secondsBetween } from '../kit/instant.ts'
import type { UserEnv } from './authentication.ts'
import { bearer } from './authentication.ts'
import { answerOnce, uploadHeaders } from './uploads.ts'
import type { Write } from './writes.ts'
import { writeAs } from './writes.ts'

/** Play sessions, under `/api/v1/sessions`. */
export function declareSessions(api: OpenAPIHono<UserEnv>, { sql, signedIn }: SessionDependencies): void {
  const middleware = signedIn

  api.openapi({ ...createSessionRoute, middleware }, async (c) => {
    const content = c.req.valid('json')
    return answerOnce(c, sql, { userId: c.get('user').id, content }, (write) => addSession(write, content))
  })

  api.openapi({ ...listSessionsRoute, middleware }, async (c) => {
    const page = await listSessions(sql, c.get('user').id, c.req.valid('query'))
    return c.json(page, 200)
  })

  api.openapi({ ...readSessionRoute, middleware }, async (c) => {
    const [session] = await sql<Session[]>`select ${sql(sessionColumns)} from homework_helper.sessions
      where user_id = ${c.get('user').id} and id = ${c.req.valid('param').session_id}`
    if (!session) throw noSession()
    return c.json(session, 200)
  })

  for (const route of [endSessionRoute, endSessionByPostRoute]) {
    api.openapi({ ...route, middleware }, async (c) => {
      const { session_id } = c.req.valid('param')
      const { end_ts } = c.req.valid('json')
      const session = await writeAs(sql, c.get('user').id, (write) => endSession(write, session_id, end_ts))
      return c.json(session, 200)
    })
  }
}

type SessionDependencies = { sql: Sql; signedIn: MiddlewareHandler<UserEnv> }

/** The columns a client sees, in order. */
export const sessionColumns = [
  'id',
  'user_id',
  'process_id',
  'game_name',
  'start_ts',
  'end_ts',
  'duration',
  'created_at',
  'updated_at',
] as const

/** A session as the API writes it; `duration` is in seconds. */
export const sessionOut = z
  .object({
    id: z.string().openapi({ format: 'uuid' }),
    user_id: z.int(),
    process_id: z.int().nullable(),
    game_name: z.string().nullable(),
    start_ts: instantOut,
    end_ts: instantOut.nullable(),
    duration: z.int().nullable().openapi({ description: 'seconds; counted by the server once the end is known' }),
    created_at: instantOut,
    updated_at: instantOut,
  })
  .openapi('Session')

export type Session = z.infer<typeof sessionOut>

/** 404 with the words every route uses for a session that is not there or not this user's. */
export function noSession(): OriginError {
  return new OriginError('not_found', 'Session not found')
}

const tags = ['sessions']
const durationSecondsMax = 2_147_483_647
const endsBeforeStart = { message: 'Input should not be earlier than start_ts', params: { type: 'end_before_start' } }

const sessionIn = z
  .object({
    id: uuid.optional().openapi({ description: 'made by the client, so that it may retry; else the server makes one' }),
    process_id: int32.nullish(),
    game_name: text({ max: 100 }).nullish(),
    start_ts: instant,
    end_ts: instant.nullish(),
    duration: int32
      .min(0)
      .nullish()
      .openapi({ description: 'seconds; replaced by end_ts - start_ts when the end is given' }),
  })
  .refine(({ start_ts, end_ts }) => !end_ts || isLater(start_ts, end_ts), { path: ['end_ts'], ...endsBeforeStart })
  .openapi('NewSession')

const sessionEnd = z
  .object({ end_ts: instant, duration: int32.min(0).nullish().openapi({ description: 'accepted and counted anew' }) })
  .openapi('SessionEnd')

const sessionId = z.object({ session_id: uuid })

const createSessionRoute = createRoute({
  method: 'post',
  path: '/api/v1/sessions',
  tags,
  summary: 'Upload a play session.',
  description: 'Safe to retry with the same id or Idempotency-Key: the session is stored once.',
  security: bearer,
  request: { headers: uploadHeaders, body: jsonBody(sessionIn) },
  responses: { 201: jsonAnswer(sessionOut, 'The session'), 401: refusals[401], 409: refusals[409], 422: refusals[422] },
})

const listSessionsRoute = createRoute({
  method: 'get',
  path: '/api/v1/sessions',
  tags,
  summary: 'List own sessions, newest start first, a page at a time.',
  security: bearer,
  request: {
    query: z.object({
      limit: z.coerce.number().int().min(1).max(200).default(50),
      cursor: z.string().max(100).optional().openapi({ description: 'next_cursor of the page before' }),
    }),
  },
  responses: {
    200: jsonAnswer(
      z.object({ items: z.array(sessionOut), next_cursor: z.string().nullable() }).openapi('SessionPage'),
      'A page; next_cursor is null on the last one',
    ),
    401: refusals[401],
    422: refusals[422],
  },
})

const readSessionRoute = createRoute({
  method: 'get',
  path: '/api/v1/sessions/{session_id}',
  tags,
  summary: 'Read one session.',
  security: bearer,
  request: { params: sessionId },
  responses: { 200: jsonAnswer(sessionOut, 'The session'), 401: refusals[401], 404: refusals[404], 422: refusals[422] },
})

const endSessionRoute = createRoute({
  method: 'put',
  path: '/api/v1/sessions/{session_id}/end',
  tags,
  summary: 'End a session. Ending it again at the same time changes nothing; at another time is a conflict.',
  security: bearer,
  request: { params: sessionId, body: jsonBody(sessionEnd) },
  responses: {
    200: jsonAnswer(sessionOut, 'The session'),
    401: refusals[401],
    404: refusals[404],
    409: refusals[409],
    422: refusals[422],
  },
})

const endSessionByPostRoute = { ...endSessionRoute, method: 'post' as const, hide: true }

async function addSession({ tx, userId, takeChange }: Write, content: z.infer<typeof sessionIn>): Promise<Session> {
  const { id = crypto.randomUUID(), process_id = null, game_name = null, start_ts, end_ts = null } = content
  const hash = contentHash(content)
  const known = await findSession(tx, userId, id)
  if (known && known.content_hash !== hash) throw new OriginError('conflict', `Session ${id} exists with other content`)
  if (known) return known.session
  const duration = end_ts ? secondsBetween(start_ts, end_ts) : (content.duration ?? null)
  const [session] = await tx<Session[]>`
    insert into homework_helper.sessions
      (user_id, id, process_id, game_name, start_ts, end_ts, duration, content_hash, change)
    values (${userId}, ${id}, ${process_id}, ${game_name}, ${start_ts}, ${end_ts}, ${duration}, ${hash}, ${takeChange()})
    returning ${tx(sessionColumns)}`
  return session!
}

async function findSession(tx: Write['tx'], userId: number, id: string) {
  const [row] = await tx<(Session & { content_hash: string })[]>`
    select ${tx([...sessionColumns, 'content_hash'])} from homework_helper.sessions where user_id = ${userId} and id = ${id}`
  if (!row) return undefined
  const { content_hash, ...session } = row
  return { content_hash, session }
}

async function endSession({ tx, userId, takeChange }: Write, id: string, endTs: string): Promise<Session> {
  const known = await findSession(tx, userId, id)
  if (!known) throw noSession()
  const { session } = known
  if (session.end_ts === endTs) return session
  if (session.end_ts) throw new OriginError('conflict', `Session ${id} has ended at ${session.end_ts}`)
  if (!isLater(session.start_ts, endTs)) throw endFault(endTs)
  const [ended] = await tx<Session[]>`
    update homework_helper.sessions
    set end_ts = ${endTs}, duration = ${secondsBetween(session.start_ts, endTs)}, change = ${takeChange()}, updated_at = now()
    where user_id = ${userId} and id = ${id}
    returning ${tx(sessionColumns)}`
  return ended!
}

function isLater(start: string, end: string): boolean {
  const seconds = secondsBetween(start, end)
  return seconds >= 0 && seconds <= durationSecondsMax
}

function endFault(input: string): OriginError {
  return new OriginError('invalid', [
    { type: 'end_before_start', loc: ['body', 'end_ts'], msg: endsBeforeStart.message, input },
  ])
}

async function listSessions(sql: Sql, userId: number, { limit, cursor }: { limit: number; cursor?: string }) {
  const after = cursor === undefined ? undefined : fromCursor(cursor)
  const rows = await sql<Session[]>`
    select ${sql(sessionColumns)} from homework_helper.sessions
    where user_id = ${userId} ${after ? sql`and (start_ts, id) < (${after.start}, ${after.id})` : sql``}
    order by start_ts desc, id desc limit ${limit + 1}`
  const items = rows.slice(0, limit)
  const last = items.at(-1)
  return { items, next_cursor: last && rows.length > limit ? toCursor(last) : null }
}

function toCursor({ start_ts, id }: Session): string {
  return Buffer.from(`${start_ts} ${id}`).toString('base64url')
}

function fromCursor(cursor: string): { start: string; id: string } {
  const [start, id] = Buffer.from(cursor, 'base64url').toString().split(' ')
  const position = z.object({ start: instant, id: uuid }).safeParse({ start, id })
  if (position.success) return position.data
  throw new OriginError('invalid', [
    { type: 'cursor_invalid', loc: ['query', 'cursor'], msg: 'Input should be a cursor of this list' },
  ])
}
