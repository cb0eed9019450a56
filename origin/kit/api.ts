import { OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context, ErrorHandler, MiddlewareHandler } from 'hono'
import { cors } from 'hono/cors'
import { HTTPException } from 'hono/http-exception'
import { boundBody } from './bound-body.ts'
import { isUnavailable } from './database.ts'
import { serveDocs } from './docs.ts'
import { OriginError } from './error.ts'
import { toFaults } from './faults.ts'

/** Takes one record; the program that starts the origin decides where it goes. */
export type Log = (entry: Record<string, unknown>) => void

/** What every handler can read from the context. */
export type ApiEnv<Variables extends object = {}> = { Variables: { requestId: string } & Variables }

export type ApiOptions = {
  system: string
  title: string
  version: string
  description: string
  /** Who may call with credentials; `*` lets every origin call without them. */
  corsOrigins: readonly string[] | '*'
  /** Where Swagger UI is; `/docs` when absent. */
  docsPath?: string
  log: Log
  bodyBytesMax?: number
  inFlightMax?: number
}

type Api<E extends ApiEnv> = OpenAPIHono<E>

/**
 * An API whose one set of schemas validates requests and writes the OpenAPI 3.1 document. `declare` adds the
 * routes; around them come request ids, one log entry per request, CORS, bounds, FastAPI's error bodies, 405 for
 * a known path with another method, and the documents of `serveDocs`.
 */
export function createApi<E extends ApiEnv>(options: ApiOptions, declare: (api: Api<E>) => void): Api<E> {
  const { bodyBytesMax = 1_048_576, inFlightMax = 512 } = options
  const api = new OpenAPIHono<E>({ defaultHook: refuseFaults })
  api.onError(answerError(options))
  api.notFound((c) => c.json({ detail: 'Not Found' }, 404))

  api.use(logRequest(options))
  api.use(allowOrigins(options.corsOrigins))
  api.use(boundInFlight(inFlightMax))
  api.use(boundBody(bodyBytesMax))
  declare(api)
  serveDocs(api, options)
  refuseOtherMethods(api)
  return api
}

/** A JSON answer for `createRoute`. */
export function jsonAnswer<S extends z.ZodType>(schema: S, description: string) {
  return { description, content: { 'application/json': { schema } } }
}

/** A JSON body for `createRoute`; a request without it is refused. */
export function jsonBody<S extends z.ZodType>(schema: S) {
  return { required: true, content: { 'application/json': { schema } } }
}

const refusal = z.object({ detail: z.string() }).openapi('Refusal')
const faultList = z
  .object({
    detail: z.array(
      z.object({
        loc: z.array(z.union([z.string(), z.int()])),
        msg: z.string(),
        type: z.string(),
        input: z.unknown().optional(),
      }),
    ),
  })
  .openapi('HTTPValidationError')

/** The refusals every route may answer with, as `createRoute` documents them. */
export const refusals = {
  401: { description: 'The token is missing, wrong, expired, or its user is inactive', content: content(refusal) },
  403: { description: 'The data is another user’s', content: content(refusal) },
  404: { description: 'There is no such thing among this user’s', content: content(refusal) },
  409: { description: 'It exists already, with other content', content: content(refusal) },
  410: { description: 'The cursor is from another history; start again without one', content: content(refusal) },
  422: { description: 'The request has faults', content: content(faultList) },
}

function content<S extends z.ZodType>(schema: S) {
  return { 'application/json': { schema } }
}

type HookResult = { success: boolean; error?: unknown; data?: unknown; target?: unknown }

function refuseFaults(result: HookResult): void {
  if (result.success || !(result.error instanceof z.core.$ZodError || result.error instanceof z.ZodError)) return
  throw new OriginError('invalid', toFaults(String(result.target), result.error.issues, result.data))
}

const requestIdPattern = /^[\w.:-]{1,128}$/

function logRequest({ system, log }: ApiOptions): MiddlewareHandler<ApiEnv> {
  return async function logsRequest(c, next) {
    const given = c.req.header('x-request-id') ?? ''
    c.set('requestId', requestIdPattern.test(given) ? given : crypto.randomUUID())
    const start = performance.now()
    await next()
    c.header('X-Request-Id', c.get('requestId'))
    const ms = Math.round((performance.now() - start) * 10) / 10
    log({
      event: 'request',
      system,
      requestId: c.get('requestId'),
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
      ms,
    })
  }
}

function allowOrigins(origins: readonly string[] | '*'): MiddlewareHandler {
  return cors({
    origin: origins === '*' ? '*' : [...origins],
    credentials: origins !== '*',
    allowMethods: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
    exposeHeaders: ['X-Request-Id', 'Idempotency-Replayed', 'Retry-After'],
    maxAge: 600,
  })
}

function boundInFlight(inFlightMax: number): MiddlewareHandler {
  let inFlight = 0
  return async function boundsInFlight(_c, next) {
    if (inFlight >= inFlightMax)
      throw new OriginError('busy', 'Service Unavailable', { headers: { 'Retry-After': '1' } })
    inFlight += 1
    try {
      await next()
    } finally {
      inFlight -= 1
    }
  }
}

function answerError<E extends ApiEnv>({ system, log }: ApiOptions): ErrorHandler<E> {
  return function answersError(error, c) {
    const refused = toOriginError(error)
    if (refused.status >= 500) log(toLogEntry({ system, requestId: c.get('requestId'), error }))
    for (const [name, value] of Object.entries(refused.headers)) c.header(name, value)
    return c.json({ detail: refused.detail }, refused.status as 400)
  }
}

function toOriginError(error: unknown): OriginError {
  if (error instanceof OriginError) return error
  if (error instanceof HTTPException) return fromHono(error)
  const headers = { 'Retry-After': '1' }
  if (isUnavailable(error))
    return new OriginError('database_unavailable', 'Service Unavailable', { headers, cause: error })
  return new OriginError('internal', 'Internal Server Error', { cause: error })
}

// Hono's validator throws before any schema runs: 400 for a body it cannot parse, 415 for one of another type.
function fromHono(error: HTTPException): OriginError {
  if (error.status === 415) return new OriginError('unsupported_media_type', 'Unsupported Media Type')
  if (error.status === 400)
    return new OriginError('invalid', [{ type: 'json_invalid', loc: ['body'], msg: 'JSON decode error' }])
  return new OriginError('internal', 'Internal Server Error', { cause: error })
}

// Name, code and stack only: other fields of a database error carry the row it was about.
function toLogEntry({ system, requestId, error }: { system: string; requestId: string; error: Error }) {
  const code = 'code' in error ? String(error.code) : undefined
  return { event: 'error', system, requestId, error: error.message, name: error.name, code, stack: error.stack }
}

function refuseOtherMethods<E extends ApiEnv>(api: Api<E>): void {
  const methodsOf = Map.groupBy(
    api.routes.filter(({ method }) => method !== 'ALL'),
    ({ path }) => path,
  )
  for (const [path, routes] of methodsOf) {
    const methods = new Set(routes.map(({ method }) => method))
    if (methods.has('GET')) methods.add('HEAD')
    api.all(path, (_c: Context) => {
      throw new OriginError('method_not_allowed', 'Method Not Allowed', { headers: { Allow: [...methods].join(', ') } })
    })
  }
}
