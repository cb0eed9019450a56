import { z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { contentHash } from '../kit/content-hash.ts'
import type { Sql } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'
import type { Write } from './writes.ts'
import { writeAs } from './writes.ts'

/** The header a client may send with any upload. */
export const uploadHeaders = z.object({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'Input should be 1 to 255 visible ASCII characters')
    .optional()
    .openapi({ description: 'Makes a retry safe: the same key with the same body gets the first answer again.' }),
})

type Upload = { userId: number; content: unknown }
type Answer = { status: number; body: string }

/**
 * Runs an upload once. Without an Idempotency-Key that is `writeAs`; with one, the answer is kept with the write
 * and given again to a retry, marked `Idempotency-Replayed: true`. The key with another request is refused
 * (422). `work` returns the JSON body of a 201.
 */
export async function answerOnce<T extends object>(
  c: Context,
  sql: Sql,
  { userId, content }: Upload,
  work: (write: Write) => Promise<T>,
) {
  const key = c.req.header('idempotency-key')
  const hash = contentHash([c.req.method, c.req.path, content])
  return writeAs(sql, userId, async (write) => {
    const kept = key ? await readAnswer(write, key, hash) : undefined
    if (kept) return replay(c, kept)
    const body = await work(write)
    if (key) await keepAnswer(write, { key, hash, body })
    return c.json(body, 201)
  })
}

const keptFor = '7 days'

/** Forgets answers older than any client retries. Returns how many. */
export async function forgetOldAnswers(sql: Sql): Promise<number> {
  const { count } = await sql`delete from homework_helper.answers where created_at < now() - ${keptFor}::interval`
  return count
}

async function readAnswer({ tx, userId }: Write, key: string, hash: string): Promise<Answer | undefined> {
  const [kept] = await tx<(Answer & { content_hash: string })[]>`
    select status, body, content_hash from homework_helper.answers where user_id = ${userId} and key = ${key}`
  if (kept && kept.content_hash !== hash) throw keyReused()
  return kept
}

function replay(c: Context, { status, body }: Answer) {
  c.header('Idempotency-Replayed', 'true')
  c.header('Content-Type', 'application/json')
  return c.body(body, status as 201) as never
}

async function keepAnswer({ tx, userId }: Write, { key, hash, body }: { key: string; hash: string; body: object }) {
  await tx`insert into homework_helper.answers (user_id, key, content_hash, status, body)
    values (${userId}, ${key}, ${hash}, 201, ${JSON.stringify(body)})`
}

function keyReused(): OriginError {
  const msg = 'This key was used with another request'
  return new OriginError('invalid', [{ type: 'idempotency_key_reused', loc: ['header', 'idempotency-key'], msg }])
}
