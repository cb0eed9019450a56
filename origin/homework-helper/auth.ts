import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { jsonAnswer, jsonBody, refusals } from '../kit/api.ts'
import type { Sql } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'
import { toFaults } from '../kit/faults.ts'
import { instantOut, text } from '../kit/fields.ts'
import type { Passwords } from '../kit/passwords.ts'
import type { Tokens } from '../kit/tokens.ts'
import type { UserEnv } from './authentication.ts'
import { bearer, unauthenticated } from './authentication.ts'
import { addUser, deactivateUser, findLogin, isUsernameTaken } from './users.ts'

type AuthDependencies = {
  sql: Sql
  tokens: Tokens
  passwords: Passwords
  tokenSeconds: number
  signedIn: MiddlewareHandler<UserEnv>
}

/** Registration, login and the account itself, under `/api/v1/auth`. */
export function declareAuth(api: OpenAPIHono<UserEnv>, dependencies: AuthDependencies): void {
  const { sql, tokens, passwords, tokenSeconds, signedIn } = dependencies

  api.openapi(registerRoute, async (c) => {
    const { username, email, password } = c.req.valid('json')
    const user = await addUser(sql, { username, email, passwordHash: await passwords.hash(password) })
    if (!user) throw new OriginError('conflict', await whatIsTaken(sql, username))
    return c.json(user, 201)
  })

  api.openapi(loginRoute, async (c) => {
    const isForm = c.req.header('content-type')?.includes('form')
    const { username, password } = readCredentials(isForm ? c.req.valid('form') : c.req.valid('json'))
    const login = await findLogin(sql, username)
    const isRight = await passwords.verify(password, login?.password_hash)
    if (!login || !isRight) throw unauthenticated('Incorrect username or password')
    const access_token = await tokens.issue(String(login.id))
    return c.json({ access_token, token_type: 'bearer' as const, expires_in: tokenSeconds }, 200, noStore)
  })

  api.openapi({ ...meRoute, middleware: signedIn }, (c) => c.json(c.get('user'), 200))

  api.openapi({ ...leaveRoute, middleware: signedIn }, async (c) => {
    await deactivateUser(sql, c.get('user').id)
    return c.body(null, 204)
  })
}

const tags = ['auth']
const noStore = { 'Cache-Control': 'no-store' }
const passwordCharactersMin = 8
const passwordCharactersMax = 1_024

const userOut = z
  .object({ id: z.int(), username: z.string(), email: z.string(), created_at: instantOut })
  .openapi('User')

const registration = z
  .object({
    username: text({ min: 1, max: 50 }).refine(
      (name) => name.trim() === name,
      'Value should not begin or end with a space',
    ),
    email: z.email().max(100),
    password: text({ min: passwordCharactersMin, max: passwordCharactersMax }),
  })
  .openapi('Registration')

// No lower bound here: a wrong password is wrong, not malformed.
const credentials = z
  .object({ username: text({ max: 50 }), password: text({ max: passwordCharactersMax }) })
  .openapi('Credentials')

const tokenOut = z
  .object({
    access_token: z.string(),
    token_type: z.literal('bearer'),
    expires_in: z.int().openapi({ description: 'seconds' }),
  })
  .openapi('Token')

const registerRoute = createRoute({
  method: 'post',
  path: '/api/v1/auth/register',
  tags,
  summary: 'Make an account.',
  request: { body: jsonBody(registration) },
  responses: { 201: jsonAnswer(userOut, 'The new user'), 409: refusals[409], 422: refusals[422] },
})

const loginRoute = createRoute({
  method: 'post',
  path: '/api/v1/auth/login',
  tags,
  summary: 'Get a bearer token, with a JSON body or the form of the OAuth2 password flow.',
  request: {
    body: {
      content: {
        'application/json': { schema: credentials },
        'application/x-www-form-urlencoded': { schema: credentials },
      },
    },
  },
  responses: { 200: jsonAnswer(tokenOut, 'The token'), 401: refusals[401], 422: refusals[422] },
})

const meRoute = createRoute({
  method: 'get',
  path: '/api/v1/auth/me',
  tags,
  summary: 'Whose token this is.',
  security: bearer,
  responses: { 200: jsonAnswer(userOut, 'The user'), 401: refusals[401] },
})

const leaveRoute = createRoute({
  method: 'delete',
  path: '/api/v1/auth/me',
  tags,
  summary: 'Switch the account off. Its rows stay; its tokens are refused at once.',
  security: bearer,
  responses: { 204: { description: 'Switched off' }, 401: refusals[401] },
})

// A body of either type is optional to the router, so one without any type comes here empty.
function readCredentials(value: unknown): z.infer<typeof credentials> {
  const result = credentials.safeParse(value)
  if (!result.success) throw new OriginError('invalid', toFaults('json', result.error.issues, value))
  return result.data
}

async function whatIsTaken(sql: Sql, username: string): Promise<string> {
  return (await isUsernameTaken(sql, username)) ? 'Username already registered' : 'Email already registered'
}
