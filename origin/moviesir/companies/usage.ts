import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { jsonAnswer, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { instantOut } from '../../kit/fields.ts'
import type { Accounts, CompanyEnv } from './accounts.ts'
import type { Quotas } from './quotas.ts'
import { dailyLimits, toSeoulDay } from './quotas.ts'

type UsageDependencies = { sql: Sql; accounts: Accounts; quotas: Quotas }

/** What a company's keys have done: figures, lines and plots of the console, under `/b2b`. Days are days in Seoul. */
export function declareUsage(api: OpenAPIHono<CompanyEnv>, { sql, accounts, quotas }: UsageDependencies): void {
  const middleware = accounts.signedIn

  api.openapi({ ...dashboardRoute, middleware }, async (c) => {
    const { id, plan } = c.get('company')
    const keys = await sql<{ key_id: number; is_active: boolean }[]>`
      select key_id, is_active from b2b.api_keys where company_id = ${id}`
    const used = await Promise.all(keys.map(({ key_id }) => quotas.used(key_id)))
    const [figures] = await sql<Figures[]>`
      select count(*)::int as total_requests,
        (count(*) filter (where status_code < 400))::int as successes,
        (count(*) filter (where created_at >= ${startOfToday()}))::int as requests_today,
        coalesce(round(avg(latency_ms)::numeric, 1), 0)::float8 as average_latency_ms
      from b2b.api_logs where company_id = ${id} and created_at >= now() - interval '30 days'`
    const { total_requests = 0, successes = 0, requests_today = 0, average_latency_ms = 0 } = figures ?? {}
    return c.json(
      {
        plan,
        daily_limit: dailyLimits[plan],
        keys: keys.length,
        active_keys: keys.filter(({ is_active }) => is_active).length,
        used_today: used.reduce((sum, count) => sum + count, 0),
        requests_today,
        total_requests,
        success_rate: total_requests === 0 ? null : successes / total_requests,
        average_latency_ms,
        resets_in_seconds: quotas.secondsLeft(),
      },
      200,
    )
  })

  api.openapi({ ...logsRoute, middleware }, async (c) => {
    const { limit, offset, start_date, end_date } = c.req.valid('query')
    if (start_date && end_date && start_date > end_date) throw backwards()
    const within = sql`company_id = ${c.get('company').id}
      ${start_date ? sql`and created_at >= ${startOf(start_date)}` : sql``}
      ${end_date ? sql`and created_at < ${startOf(end_date)}::timestamptz + interval '1 day'` : sql``}`
    const logs = await sql<Log[]>`select ${logColumns(sql)} from b2b.api_logs where ${within}
      order by log_id desc limit ${limit} offset ${offset}`
    const [{ total = 0 } = {}] = await sql<
      { total: number }[]
    >`select count(*)::int as total from b2b.api_logs where ${within}`
    return c.json({ logs: [...logs], total, limit, offset }, 200)
  })

  api.openapi({ ...liveFeedRoute, middleware }, async (c) => {
    const { after, limit } = c.req.valid('query')
    const logs = await sql<Log[]>`select ${logColumns(sql)} from b2b.api_logs
      where company_id = ${c.get('company').id} and log_id > ${after}
      order by log_id desc limit ${limit}`
    return c.json({ logs: [...logs], last_id: logs[0]?.id ?? after }, 200, { 'Cache-Control': 'no-store' })
  })

  api.openapi({ ...usageRoute, middleware }, async (c) => {
    const { period } = c.req.valid('query')
    const days = await sql<Day[]>`
      select to_char(day, 'YYYY-MM-DD') as date, count(log_id)::int as requests,
        (count(log_id) filter (where status_code >= 400))::int as errors
      from generate_series(${firstDay(period)}::date, ${toSeoulDay(Date.now())}::date, interval '1 day') as days (day)
      left join b2b.api_logs on company_id = ${c.get('company').id}
        and created_at >= day::timestamp at time zone 'Asia/Seoul'
        and created_at < (day + interval '1 day')::timestamp at time zone 'Asia/Seoul'
      group by day order by day`
    return c.json({ period, days: [...days] }, 200)
  })

  api.openapi({ ...endpointsRoute, middleware }, async (c) => {
    const { period } = c.req.valid('query')
    const endpoints = await sql<Endpoint[]>`
      select endpoint, count(*)::int as requests, (count(*) filter (where status_code >= 400))::int as errors,
        round(avg(latency_ms)::numeric, 1)::float8 as average_latency_ms
      from b2b.api_logs where company_id = ${c.get('company').id} and created_at >= ${startOf(firstDay(period))}
      group by endpoint order by requests desc, endpoint`
    return c.json({ period, endpoints: [...endpoints] }, 200)
  })

  api.openapi({ ...responseTimeRoute, middleware }, async (c) => {
    const { period } = c.req.valid('query')
    const within = sql`company_id = ${c.get('company').id} and created_at >= ${startOf(firstDay(period))}`
    const [all] = await sql<Latency[]>`select ${latencyColumns(sql)} from b2b.api_logs where ${within}`
    const days = await sql<(Latency & { date: string })[]>`
      select to_char(created_at at time zone 'Asia/Seoul', 'YYYY-MM-DD') as date, ${latencyColumns(sql)}
      from b2b.api_logs where ${within} group by date order by date`
    return c.json({ period, ...all!, days: [...days] }, 200)
  })
}

const daysOf = { '7d': 7, '30d': 30 }
const dayMs = 86_400_000

function firstDay(period: keyof typeof daysOf): string {
  return toSeoulDay(Date.now() - (daysOf[period] - 1) * dayMs)
}

const startOf = (day: string): string => `${day}T00:00:00+09:00`
const startOfToday = (): string => startOf(toSeoulDay(Date.now()))

const logColumns = (sql: Sql) =>
  sql`log_id::int8::float8 as id, key_name, request_id, endpoint, method, status_code, error_code, latency_ms, created_at`

const latencyColumns = (sql: Sql) => sql`count(*)::int as requests,
  percentile_cont(0.5) within group (order by latency_ms) as p50,
  percentile_cont(0.95) within group (order by latency_ms) as p95,
  percentile_cont(0.99) within group (order by latency_ms) as p99`

type Figures = { total_requests: number; successes: number; requests_today: number; average_latency_ms: number }

const tags = ['usage']
const date = z.iso.date('Input should be a day such as 2026-01-31')
const periodQuery = z.object({ period: z.enum(['7d', '30d']).default('7d') })

const logOut = z
  .object({
    id: z.number(),
    key_name: z.string(),
    request_id: z.string(),
    endpoint: z.string(),
    method: z.string(),
    status_code: z.int(),
    error_code: z.string().nullable(),
    latency_ms: z.number(),
    created_at: instantOut,
  })
  .openapi('ApiLog')

type Log = z.infer<typeof logOut>

const dayOut = z.object({ date: z.string(), requests: z.int(), errors: z.int() })
type Day = z.infer<typeof dayOut>

const endpointOut = z.object({
  endpoint: z.string(),
  requests: z.int(),
  errors: z.int(),
  average_latency_ms: z.number(),
})
type Endpoint = z.infer<typeof endpointOut>

const milliseconds = z.number().nullable().openapi({ description: 'milliseconds; null when there was no call' })
const latencyOut = z.object({ requests: z.int(), p50: milliseconds, p95: milliseconds, p99: milliseconds })
type Latency = z.infer<typeof latencyOut>

const common = { 401: refusals[401], 422: refusals[422] }

const dashboardRoute = createRoute({
  method: 'get',
  path: '/b2b/dashboard',
  tags,
  summary: 'The figures of the first page: the last 30 days, and what is left of today.',
  responses: {
    200: jsonAnswer(
      z
        .object({
          plan: z.string(),
          daily_limit: z.int().openapi({ description: 'calls of each key in a day' }),
          keys: z.int(),
          active_keys: z.int(),
          used_today: z.int(),
          requests_today: z.int(),
          total_requests: z.int(),
          success_rate: z.number().nullable(),
          average_latency_ms: z.number(),
          resets_in_seconds: z.int(),
        })
        .openapi('Dashboard'),
      'The figures',
    ),
    401: refusals[401],
  },
})

const logsRoute = createRoute({
  method: 'get',
  path: '/b2b/logs',
  tags,
  summary: 'Calls, latest first, a page at a time.',
  request: {
    query: z.object({
      limit: z.coerce.number().int().min(1).max(200).default(50),
      offset: z.coerce.number().int().min(0).max(1_000_000).default(0),
      start_date: date.optional(),
      end_date: date.optional(),
    }),
  },
  responses: {
    200: jsonAnswer(
      z.object({ logs: z.array(logOut), total: z.int(), limit: z.int(), offset: z.int() }),
      'A page of calls',
    ),
    ...common,
  },
})

const liveFeedRoute = createRoute({
  method: 'get',
  path: '/b2b/live-feed',
  tags,
  summary: 'Calls after one that is known, latest first; to be asked again and again.',
  request: {
    query: z.object({
      after: z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
      limit: z.coerce.number().int().min(1).max(100).default(20),
    }),
  },
  responses: { 200: jsonAnswer(z.object({ logs: z.array(logOut), last_id: z.number() }), 'The calls'), ...common },
})

const usageRoute = createRoute({
  method: 'get',
  path: '/b2b/usage',
  tags,
  summary: 'Calls per day.',
  request: { query: periodQuery },
  responses: { 200: jsonAnswer(z.object({ period: z.string(), days: z.array(dayOut) }), 'Every day'), ...common },
})

const endpointsRoute = createRoute({
  method: 'get',
  path: '/b2b/usage/endpoints',
  tags,
  summary: 'Calls per endpoint.',
  request: { query: periodQuery },
  responses: {
    200: jsonAnswer(z.object({ period: z.string(), endpoints: z.array(endpointOut) }), 'Every endpoint'),
    ...common,
  },
})

const responseTimeRoute = createRoute({
  method: 'get',
  path: '/b2b/usage/response-time',
  tags,
  summary: 'How long calls took: percentiles of the period and of each day.',
  request: { query: periodQuery },
  responses: {
    200: jsonAnswer(
      latencyOut.extend({ period: z.string(), days: z.array(latencyOut.extend({ date: z.string() })) }),
      'The percentiles',
    ),
    ...common,
  },
})

function backwards(): OriginError {
  const msg = 'Input should not be earlier than start_date'
  return new OriginError('invalid', [{ type: 'end_before_start', loc: ['query', 'end_date'], msg }])
}
