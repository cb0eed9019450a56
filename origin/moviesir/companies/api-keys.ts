import { createHash, randomBytes } from 'node:crypto'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { instantOut, int32, text } from '../../kit/fields.ts'
import type { Accounts, CompanyEnv } from './accounts.ts'
import type { Plan, Quotas } from './quotas.ts'
import { dailyLimits } from './quotas.ts'

type KeyDependencies = { sql: Sql; accounts: Accounts; quotas: Quotas }

/** The API keys of a company, under `/b2b/api-keys`. Another company's key is one that does not exist. */
export function declareApiKeys(api: OpenAPIHono<CompanyEnv>, { sql, accounts, quotas }: KeyDependencies): void {
  const middleware = accounts.signedIn

  api.openapi({ ...listRoute, middleware }, async (c) => {
    const { id, plan } = c.get('company')
    const rows = await sql<StoredKey[]>`
      select ${columns(sql)} from b2b.api_keys where company_id = ${id} order by key_id desc`
    const keys = await Promise.all(rows.map((row) => toKeyOut(row, plan)))
    return c.json({ api_keys: keys }, 200)
  })

  api.openapi({ ...createKeyRoute, middleware }, async (c) => {
    const { id, plan } = c.get('company')
    const key = `${prefix}${randomBytes(24).toString('hex')}`
    const { name } = c.req.valid('json')
    const [row] = await sql.begin(async (tx) => {
      await tx`select from b2b.companies where company_id = ${id} for update`
      const [{ count = 0 } = {}] = await tx<{ count: number }[]>`
        select count(*)::int from b2b.api_keys where company_id = ${id}`
      if (count >= keysMax) throw new OriginError('conflict', `API 키는 ${keysMax}개까지 만들 수 있습니다`)
      return tx<StoredKey[]>`insert into b2b.api_keys (company_id, key_name, key_hash)
        values (${id}, ${name}, ${toKeyHash(key)}) returning ${columns(sql)}`
    })
    return c.json({ ...(await toKeyOut(row!, plan)), api_key: key }, 201, { 'Cache-Control': 'no-store' })
  })

  api.openapi({ ...renameKeyRoute, middleware }, async (c) => {
    const { name } = c.req.valid('json')
    const [row] = await sql<StoredKey[]>`update b2b.api_keys set key_name = ${name}
      where key_id = ${c.req.valid('param').key_id} and company_id = ${c.get('company').id} returning ${columns(sql)}`
    if (!row) throw noKey()
    return c.json(await toKeyOut(row, c.get('company').plan), 200)
  })

  for (const [route, isActive] of [
    [activateRoute, true],
    [deactivateRoute, false],
  ] as const) {
    api.openapi({ ...route, middleware }, async (c) => {
      const [row] = await sql<StoredKey[]>`update b2b.api_keys set is_active = ${isActive}
        where key_id = ${c.req.valid('param').key_id} and company_id = ${c.get('company').id} returning ${columns(sql)}`
      if (!row) throw noKey()
      return c.json(await toKeyOut(row, c.get('company').plan), 200)
    })
  }

  api.openapi({ ...deleteKeyRoute, middleware }, async (c) => {
    const { count } = await sql`delete from b2b.api_keys
      where key_id = ${c.req.valid('param').key_id} and company_id = ${c.get('company').id}`
    if (count === 0) throw noKey()
    return c.body(null, 204)
  })

  async function toKeyOut({ key_hash, ...row }: StoredKey, plan: Plan): Promise<z.infer<typeof keyOut>> {
    const used_today = await quotas.used(row.id)
    return { ...row, masked_key: toMasked(key_hash), used_today, daily_limit: dailyLimits[plan] }
  }
}

/** Who calls with this key; undefined when nobody may. */
export async function findCaller(sql: Sql, key: string): Promise<Caller | undefined> {
  if (!/^sk-moviesir-[\w-]{1,100}$/.test(key)) return undefined
  const [caller] = await sql<Caller[]>`
    select key_id, key_name, company_id, plan from b2b.api_keys join b2b.companies using (company_id)
    where key_hash = ${toKeyHash(key)} and is_active`
  return caller
}

export type Caller = { key_id: number; key_name: string; company_id: number; plan: Plan }

const prefix = 'sk-moviesir-'
const keysMax = 20
const tags = ['api-keys']
const columns = (sql: Sql) => sql`key_id as id, key_name as name, key_hash, is_active, created_at, last_used_at`

// 192 random bits need no salt and no slow hash.
function toKeyHash(key: string): string {
  return createHash('sha256').update(key).digest('hex')
}

function toMasked(hash: string): string {
  return `${prefix}${'*'.repeat(20)}...${hash.slice(-8)}`
}

const keyOut = z
  .object({
    id: z.int(),
    name: z.string(),
    masked_key: z.string(),
    is_active: z.boolean(),
    created_at: instantOut,
    last_used_at: instantOut.nullable(),
    used_today: z.int(),
    daily_limit: z.int(),
  })
  .openapi('ApiKey')

type StoredKey = Omit<z.infer<typeof keyOut>, 'masked_key' | 'used_today' | 'daily_limit'> & { key_hash: string }

const keyIn = z.object({ name: text({ min: 1, max: 100 }) }).openapi('NewApiKey')
const keyId = z.object({ key_id: z.coerce.number().pipe(int32.min(1)) })
const common = { 401: refusals[401], 422: refusals[422] }

const listRoute = createRoute({
  method: 'get',
  path: '/b2b/api-keys',
  tags,
  summary: 'One’s keys, newest first.',
  responses: { 200: jsonAnswer(z.object({ api_keys: z.array(keyOut) }), 'The keys'), 401: refusals[401] },
})

const createKeyRoute = createRoute({
  method: 'post',
  path: '/b2b/api-keys',
  tags,
  summary: 'Make a key. It is shown here and never again: only its hash is kept.',
  request: { body: jsonBody(keyIn) },
  responses: {
    201: jsonAnswer(keyOut.extend({ api_key: z.string() }), 'The key'),
    ...common,
    409: { ...refusals[409], description: `There are ${keysMax} keys already` },
  },
})

const renameKeyRoute = createRoute({
  method: 'patch',
  path: '/b2b/api-keys/{key_id}',
  tags,
  summary: 'Give a key another name.',
  request: { params: keyId, body: jsonBody(keyIn) },
  responses: { 200: jsonAnswer(keyOut, 'The key'), ...common, 404: refusals[404] },
})

const activateRoute = createRoute({
  method: 'patch',
  path: '/b2b/api-keys/{key_id}/activate',
  tags,
  summary: 'Let a key in again.',
  request: { params: keyId },
  responses: { 200: jsonAnswer(keyOut, 'The key'), ...common, 404: refusals[404] },
})

const deactivateRoute = createRoute({
  method: 'patch',
  path: '/b2b/api-keys/{key_id}/deactivate',
  tags,
  summary: 'Refuse a key from the next call on.',
  request: { params: keyId },
  responses: { 200: jsonAnswer(keyOut, 'The key'), ...common, 404: refusals[404] },
})

const deleteKeyRoute = createRoute({
  method: 'delete',
  path: '/b2b/api-keys/{key_id}',
  tags,
  summary: 'Delete a key. Its log lines stay.',
  request: { params: keyId },
  responses: { 204: { description: 'Deleted' }, ...common, 404: refusals[404] },
})

function noKey(): OriginError {
  return new OriginError('not_found', 'API 키를 찾을 수 없습니다')
}
