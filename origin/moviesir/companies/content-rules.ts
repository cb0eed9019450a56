import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql, Transaction } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { instantOut, int32, text } from '../../kit/fields.ts'
import type { Accounts, CompanyEnv } from './accounts.ts'

/**
 * What a company never wants recommended, under `/b2b/content-rules`. Every call with one of its keys keeps to the
 * rules. Another company's rule is one that does not exist.
 */
export function declareContentRules(api: OpenAPIHono<CompanyEnv>, { sql, accounts }: { sql: Sql; accounts: Accounts }) {
  const middleware = accounts.signedIn

  api.openapi({ ...listRoute, middleware }, async (c) => {
    const { id } = c.get('company')
    const rules = await sql<
      Rule[]
    >`select ${columns(sql)} from b2b.content_rules where company_id = ${id} order by rule_id`
    return c.json({ rules: [...rules], blocked_movies: (await findBlocked(sql, id)).length }, 200)
  })

  api.openapi({ ...addRoute, middleware }, async (c) => {
    const { id } = c.get('company')
    const { filter_type, filter_value, description } = c.req.valid('json')
    const [rule] = await sql.begin(async (tx) => {
      await tx`select from b2b.companies where company_id = ${id} for update`
      const [{ count = 0 } = {}] = await tx<{ count: number }[]>`
        select count(*)::int from b2b.content_rules where company_id = ${id}`
      if (count >= rulesMax) throw new OriginError('conflict', `규칙은 ${rulesMax}개까지 만들 수 있습니다`)
      await refuseUnknown(tx, filter_type, filter_value)
      return tx<Rule[]>`insert into b2b.content_rules (company_id, filter_type, filter_value, description)
        values (${id}, ${filter_type}, ${filter_value}, ${description}) on conflict do nothing returning ${columns(tx)}`
    })
    if (!rule) throw new OriginError('conflict', '같은 규칙이 이미 있습니다')
    return c.json(rule, 201)
  })

  api.openapi({ ...deleteRoute, middleware }, async (c) => {
    const { count } = await sql`delete from b2b.content_rules
      where rule_id = ${c.req.valid('param').rule_id} and company_id = ${c.get('company').id}`
    if (count === 0) throw new OriginError('not_found', '규칙을 찾을 수 없습니다')
    return c.body(null, 204)
  })
}

/** The films that a company's rules block, best known first. All rules are looked for in one pass over the films. */
export async function findBlocked(sql: Sql, companyId: number): Promise<number[]> {
  const rules = await sql<Pick<Rule, 'filter_type' | 'filter_value'>[]>`
    select filter_type, filter_value from b2b.content_rules where company_id = ${companyId}`
  if (rules.length === 0) return []
  const valuesOf = (type: FilterType) =>
    rules.filter(({ filter_type }) => filter_type === type).map(({ filter_value }) => filter_value)
  const films = await sql<{ movie_id: number }[]>`
    select movie_id from public.movies
    where movie_id = any(${valuesOf('ID').map(Number)}::int[])
      or genres && ${valuesOf('GENRE')}::text[]
      or title ilike any(${valuesOf('KEYWORD').map(toPattern)}::text[])
      or adult and ${valuesOf('ADULT').length > 0}::boolean
      or vote_average < ${Math.max(0, ...valuesOf('MIN_RATING').map(Number))}::float8
    order by vote_count desc`
  return films.map(({ movie_id }) => movie_id)
}

const toPattern = (word: string) => `%${word.replace(/[%_\\]/g, String.raw`\$&`)}%`

const rulesMax = 50
const tags = ['content-rules']
const columns = (sql: Sql | Transaction) => sql`rule_id as id, filter_type, filter_value, description, created_at`

const filterTypes = ['ID', 'GENRE', 'KEYWORD', 'ADULT', 'MIN_RATING'] as const
type FilterType = (typeof filterTypes)[number]

const toNumeral = (value: string) => String(Number(value))

/** What a value has to be, and how it is kept, so that the same rule is the same text. */
const values: Record<FilterType, z.ZodType<string>> = {
  ID: z
    .string()
    .regex(/^\d{1,9}$/)
    .transform(toNumeral),
  GENRE: text({ min: 1, max: 40 }),
  KEYWORD: text({ max: 100 })
    .transform((word) => word.trim())
    .pipe(text({ min: 2, max: 100 })),
  ADULT: z.literal(''),
  MIN_RATING: z
    .string()
    .regex(/^\d+(\.\d+)?$/)
    .refine((value) => Number(value) <= 10)
    .transform(toNumeral),
}
const valueFaults: Record<FilterType, string> = {
  ID: 'Input should be the number of a film',
  GENRE: 'Input should be the name of a genre, such as Horror',
  KEYWORD: 'Input should be at least two characters of a title',
  ADULT: 'Input should be empty: this rule blocks every film for adults',
  MIN_RATING: 'Input should be a number from 0 to 10: films with a lower rating are blocked',
}

const ruleIn = z
  .object({
    filter_type: z.enum(filterTypes),
    filter_value: text({ max: 100 }).default(''),
    description: text({ max: 500 }).default(''),
  })
  .transform((rule, context) => {
    const value = values[rule.filter_type].safeParse(rule.filter_value)
    if (value.success) return { ...rule, filter_value: value.data }
    const message = valueFaults[rule.filter_type]
    context.addIssue({ code: 'custom', path: ['filter_value'], message, params: { type: 'filter_value' } })
    return z.NEVER
  })
  .openapi('NewContentRule')

const ruleOut = z
  .object({
    id: z.int(),
    filter_type: z.enum(filterTypes),
    filter_value: z.string(),
    description: z.string(),
    created_at: instantOut,
  })
  .openapi('ContentRule')

type Rule = z.infer<typeof ruleOut>

/** A rule about a film or a genre that is not there would be one that its company relies on in vain. */
async function refuseUnknown(tx: Transaction, type: FilterType, value: string): Promise<void> {
  const found =
    type === 'ID'
      ? await tx`select from public.movies where movie_id = ${Number(value)}`
      : type === 'GENRE'
        ? await tx`select from public.movies where genres @> ${[value]} limit 1`
        : [{}]
  if (found.length > 0) return
  const msg = valueFaults[type]
  throw new OriginError('invalid', [{ type: 'filter_value_unknown', loc: ['body', 'filter_value'], msg }])
}

const common = { 401: refusals[401], 422: refusals[422] }

const listRoute = createRoute({
  method: 'get',
  path: '/b2b/content-rules',
  tags,
  summary: 'One’s rules, and how many films they block.',
  responses: {
    200: jsonAnswer(z.object({ rules: z.array(ruleOut), blocked_movies: z.int() }), 'The rules'),
    401: refusals[401],
  },
})

const addRoute = createRoute({
  method: 'post',
  path: '/b2b/content-rules',
  tags,
  summary: 'Block a film, a genre, a word in titles, films for adults, or films below a rating.',
  request: { body: jsonBody(ruleIn) },
  responses: {
    201: jsonAnswer(ruleOut, 'The rule; the next call keeps to it'),
    ...common,
    409: { ...refusals[409], description: `There is such a rule, or there are ${rulesMax} already` },
  },
})

const deleteRoute = createRoute({
  method: 'delete',
  path: '/b2b/content-rules/{rule_id}',
  tags,
  summary: 'Delete a rule.',
  request: { params: z.object({ rule_id: z.coerce.number().pipe(int32.min(1)) }) },
  responses: { 204: { description: 'Deleted' }, ...common, 404: refusals[404] },
})
