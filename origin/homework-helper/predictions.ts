import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { jsonAnswer, jsonBody, refusals } from '../kit/api.ts'
import { contentHash } from '../kit/content-hash.ts'
import type { Sql } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'
import { instantOut, int32, text, uuid } from '../kit/fields.ts'
import type { UserEnv } from './authentication.ts'
import { bearer } from './authentication.ts'
import { noSession } from './sessions.ts'
import { answerOnce, uploadHeaders } from './uploads.ts'
import type { Write } from './writes.ts'

/** What was predicted for a session: created under `/api/v1/predictions`, listed under the session. */
export function declarePredictions(api: OpenAPIHono<UserEnv>, { sql, signedIn }: PredictionDependencies): void {
  const middleware = signedIn

  api.openapi({ ...createPredictionRoute, middleware }, async (c) => {
    const content = c.req.valid('json')
    return answerOnce(c, sql, { userId: c.get('user').id, content }, (write) => addPrediction(write, content))
  })

  api.openapi({ ...listPredictionsRoute, middleware }, async (c) => {
    const { session_id } = c.req.valid('param')
    const userId = c.get('user').id
    const [session] = await sql`select from homework_helper.sessions where user_id = ${userId} and id = ${session_id}`
    if (!session) throw noSession()
    const items = await sql<Prediction[]>`select ${sql(predictionColumns)} from homework_helper.predictions
      where user_id = ${userId} and session_id = ${session_id}
      order by created_at, id limit ${c.req.valid('query').limit} offset ${c.req.valid('query').skip}`
    return c.json([...items], 200)
  })
}

type PredictionDependencies = { sql: Sql; signedIn: MiddlewareHandler<UserEnv> }

/** The columns a client sees, in order. */
export const predictionColumns = [
  'id',
  'session_id',
  'predicted_action',
  'predicted_value',
  'confidence',
  'created_at',
  'updated_at',
] as const

/** A prediction as the API writes it; `confidence` is from 0 to 1. */
export const predictionOut = z
  .object({
    id: z.string().openapi({ format: 'uuid' }),
    session_id: z.string().openapi({ format: 'uuid' }),
    predicted_action: z.string(),
    predicted_value: z.int().nullable(),
    confidence: z.number().nullable(),
    created_at: instantOut,
    updated_at: instantOut,
  })
  .openapi('Prediction')

export type Prediction = z.infer<typeof predictionOut>

const tags = ['predictions']

const predictionIn = z
  .object({
    id: uuid.optional().openapi({ description: 'made by the client, so that it may retry; else the server makes one' }),
    session_id: uuid,
    predicted_action: text({ min: 1, max: 100 }).openapi({ example: 'raid' }),
    predicted_value: int32.nullish(),
    confidence: z.number().min(0).max(1).nullish(),
  })
  .openapi('NewPrediction')

const createPredictionRoute = createRoute({
  method: 'post',
  path: '/api/v1/predictions',
  tags,
  summary: 'Upload a prediction for an own session.',
  description: 'Safe to retry with the same id or Idempotency-Key.',
  security: bearer,
  request: { headers: uploadHeaders, body: jsonBody(predictionIn) },
  responses: {
    201: jsonAnswer(predictionOut, 'The prediction'),
    401: refusals[401],
    404: refusals[404],
    409: refusals[409],
    422: refusals[422],
  },
})

const listPredictionsRoute = createRoute({
  method: 'get',
  path: '/api/v1/sessions/{session_id}/predictions',
  tags,
  summary: 'List the predictions for an own session, oldest first.',
  security: bearer,
  request: {
    params: z.object({ session_id: uuid }),
    query: z.object({
      skip: z.coerce.number().int().min(0).max(1_000_000).default(0),
      limit: z.coerce.number().int().min(1).max(1_000).default(100),
    }),
  },
  responses: {
    200: jsonAnswer(z.array(predictionOut), 'The predictions'),
    401: refusals[401],
    404: refusals[404],
    422: refusals[422],
  },
})

async function addPrediction(write: Write, content: z.infer<typeof predictionIn>): Promise<Prediction> {
  const { tx, userId, takeChange } = write
  const { id = crypto.randomUUID(), session_id, predicted_action, predicted_value = null, confidence = null } = content
  const hash = contentHash(content)
  const known = await findPrediction(write, id)
  if (known && known.content_hash !== hash)
    throw new OriginError('conflict', `Prediction ${id} exists with other content`)
  if (known) return known.prediction
  const [prediction] = await tx<Prediction[]>`
    insert into homework_helper.predictions
      (user_id, id, session_id, predicted_action, predicted_value, confidence, content_hash, change)
    select ${userId}, ${id}, id, ${predicted_action}, ${predicted_value}::int, ${confidence}::float8, ${hash}, ${takeChange()}::bigint
    from homework_helper.sessions where user_id = ${userId} and id = ${session_id}
    returning ${tx(predictionColumns)}`
  if (!prediction) throw noSession()
  return prediction
}

async function findPrediction({ tx, userId }: Write, id: string) {
  const [row] = await tx<(Prediction & { content_hash: string })[]>`
    select ${tx([...predictionColumns, 'content_hash'])} from homework_helper.predictions where user_id = ${userId} and id = ${id}`
  if (!row) return undefined
  const { content_hash, ...prediction } = row
  return { content_hash, prediction }
}
