import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { jsonAnswer, jsonBody, refusals } from '../kit/api.ts'
import { contentHash } from '../kit/content-hash.ts'
import type { Sql } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'
import { instant, instantOut, json, text, uuid } from '../kit/fields.ts'
import type { UserEnv } from './authentication.ts'
import { bearer } from './authentication.ts'
import { noSession } from './sessions.ts'
import { answerOnce, uploadHeaders } from './uploads.ts'
import type { Write } from './writes.ts'

/** Events of sessions, under `/api/v1/events`; one at a time or many in one transaction. */
export function declareEvents(api: OpenAPIHono<UserEnv>, { sql, signedIn }: EventDependencies): void {
  const middleware = signedIn

  api.openapi({ ...createEventRoute, middleware }, async (c) => {
    const content = c.req.valid('json')
    return answerOnce(c, sql, { userId: c.get('user').id, content }, async (write) => {
      const { events } = await addEvents(write, [content])
      return events[0]!
    })
  })

  api.openapi({ ...createEventsRoute, middleware }, async (c) => {
    const content = c.req.valid('json')
    return answerOnce(c, sql, { userId: c.get('user').id, content }, (write) => addEvents(write, content.events))
  })

  api.openapi({ ...listEventsRoute, middleware }, async (c) => {
    const { session_id } = c.req.valid('param')
    const { limit, skip } = c.req.valid('query')
    const userId = c.get('user').id
    const [session] = await sql`select from homework_helper.sessions where user_id = ${userId} and id = ${session_id}`
    if (!session) throw noSession()
    const items = await sql<Event[]>`select ${sql(eventColumns)} from homework_helper.events
      where user_id = ${userId} and session_id = ${session_id}
      order by timestamp, id limit ${limit} offset ${skip}`
    return c.json([...items], 200)
  })
}

type EventDependencies = { sql: Sql; signedIn: MiddlewareHandler<UserEnv> }

/** The columns a client sees, in order. */
export const eventColumns = [
  'id',
  'session_id',
  'event_type',
  'resource_type',
  'value',
  'timestamp',
  'created_at',
  'updated_at',
] as const

/** An event as the API writes it. */
export const eventOut = z
  .object({
    id: z.string().openapi({ format: 'uuid' }),
    session_id: z.string().openapi({ format: 'uuid' }),
    event_type: z.string(),
    resource_type: z.string().nullable(),
    value: z.any().openapi({ description: 'any JSON value' }),
    timestamp: instantOut,
    created_at: instantOut,
    updated_at: instantOut,
  })
  .openapi('Event')

export type Event = z.infer<typeof eventOut>

const tags = ['events']
const batchEventsMax = 1_000

const eventIn = z
  .object({
    id: uuid.optional().openapi({ description: 'made by the client, so that it may retry; else the server makes one' }),
    session_id: uuid,
    event_type: text({ min: 1, max: 50 }).openapi({ example: 'resource_change' }),
    resource_type: text({ max: 50 }).nullish().openapi({ example: 'stamina' }),
    value: json.optional(),
    timestamp: instant,
  })
  .openapi('NewEvent')

type NewEvent = z.infer<typeof eventIn>

const createEventRoute = createRoute({
  method: 'post',
  path: '/api/v1/events',
  tags,
  summary: 'Upload one event of an own session.',
  description: 'Safe to retry with the same id or Idempotency-Key.',
  security: bearer,
  request: { headers: uploadHeaders, body: jsonBody(eventIn) },
  responses: {
    201: jsonAnswer(eventOut, 'The event'),
    401: refusals[401],
    404: refusals[404],
    409: refusals[409],
    422: refusals[422],
  },
})

const createEventsRoute = createRoute({
  method: 'post',
  path: '/api/v1/events/batch',
  tags,
  summary: `Upload up to ${batchEventsMax} events: all of them, or none.`,
  description: 'Safe to retry with the same ids or Idempotency-Key. Events that exist already are not stored again.',
  security: bearer,
  request: {
    headers: uploadHeaders,
    body: jsonBody(z.object({ events: z.array(eventIn).min(1).max(batchEventsMax) }).openapi('NewEvents')),
  },
  responses: {
    201: jsonAnswer(
      z.object({ created: z.int(), duplicates: z.int(), events: z.array(eventOut) }).openapi('EventBatch'),
      'The events, in the order of the request',
    ),
    401: refusals[401],
    404: refusals[404],
    409: refusals[409],
    422: refusals[422],
  },
})

const listEventsRoute = createRoute({
  method: 'get',
  path: '/api/v1/sessions/{session_id}/events',
  tags,
  summary: 'List the events of an own session, oldest first.',
  security: bearer,
  request: {
    params: z.object({ session_id: uuid }),
    query: z.object({
      skip: z.coerce.number().int().min(0).max(1_000_000).default(0),
      limit: z.coerce.number().int().min(1).max(1_000).default(100),
    }),
  },
  responses: {
    200: jsonAnswer(z.array(eventOut), 'The events'),
    401: refusals[401],
    404: refusals[404],
    422: refusals[422],
  },
})

type Batch = { created: number; duplicates: number; events: Event[] }

async function addEvents(write: Write, contents: readonly NewEvent[]): Promise<Batch> {
  const events = distinct(
    contents.map((content) => ({ ...content, id: content.id ?? crypto.randomUUID(), hash: contentHash(content) })),
  )
  const known = await findHashes(write, [...events.keys()])
  const missing = [...events.values()].filter(({ id }) => !known.has(id))
  checkSameContent(events, known)
  await checkSessions(write, missing)
  await insertEvents(write, missing)
  const stored = await readEvents(write, [...events.keys()])
  return {
    created: missing.length,
    duplicates: contents.length - missing.length,
    events: [...events.keys()].map((id) => stored.get(id)!),
  }
}

type IdentifiedEvent = NewEvent & { id: string; hash: string }

function distinct(events: IdentifiedEvent[]): Map<string, IdentifiedEvent> {
  const byId = new Map<string, IdentifiedEvent>()
  for (const event of events) {
    const twin = byId.get(event.id)
    if (twin && twin.hash !== event.hash) throw otherContent(event.id)
    byId.set(event.id, event)
  }
  return byId
}

async function findHashes({ tx, userId }: Write, ids: string[]): Promise<Map<string, string>> {
  const rows = await tx<{ id: string; content_hash: string }[]>`
    select id, content_hash from homework_helper.events where user_id = ${userId} and id = any(${ids}::uuid[])`
  return new Map(rows.map(({ id, content_hash }) => [id, content_hash]))
}

function checkSameContent(events: Map<string, IdentifiedEvent>, known: Map<string, string>): void {
  for (const [id, hash] of known) if (events.get(id)?.hash !== hash) throw otherContent(id)
}

async function checkSessions({ tx, userId }: Write, events: IdentifiedEvent[]): Promise<void> {
  const ids = [...new Set(events.map(({ session_id }) => session_id))]
  const found = await tx`select from homework_helper.sessions where user_id = ${userId} and id = any(${ids}::uuid[])`
  if (found.length < ids.length) throw noSession()
}

// One statement and one parameter for any number of rows.
async function insertEvents({ tx, userId, takeChange }: Write, events: IdentifiedEvent[]): Promise<void> {
  const rows = events.map(({ resource_type = null, value = null, ...event }) => ({
    ...event,
    resource_type,
    value,
    change: takeChange(),
  }))
  if (rows.length === 0) return
  await tx`
    insert into homework_helper.events
      (user_id, id, session_id, event_type, resource_type, value, timestamp, content_hash, change)
    select ${userId}, id, session_id, event_type, resource_type, value, timestamp, hash, change
    from jsonb_to_recordset(${tx.json(rows as never)}) as row
      (id uuid, session_id uuid, event_type text, resource_type text, value jsonb, timestamp timestamptz, hash text, change bigint)`
}

async function readEvents({ tx, userId }: Write, ids: string[]): Promise<Map<string, Event>> {
  const rows = await tx<Event[]>`
    select ${tx(eventColumns)} from homework_helper.events where user_id = ${userId} and id = any(${ids}::uuid[])`
  return new Map(rows.map((event) => [event.id, event]))
}

function otherContent(id: string): OriginError {
  return new OriginError('conflict', `Event ${id} exists with other content`)
}
