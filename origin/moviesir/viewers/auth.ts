import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import { getCookie, setCookie } from 'hono/cookie'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { text } from '../../kit/fields.ts'
import type { Passwords } from '../../kit/passwords.ts'
import type { Logins, ViewerEnv } from './logins.ts'
import type { createSignUp } from './sign-up.ts'
import { codeSeconds } from './sign-up.ts'
import { findViewerLogin, toKey } from './users.ts'
import type { Withdrawals } from './withdrawals.ts'

type AuthDependencies = {
  sql: Sql
  passwords: Passwords
  logins: Logins
  signUp: ReturnType<typeof createSignUp>
  withdrawals: Withdrawals
  isProduction: boolean
}

/** Sign-up, login and logout, under `/auth`. */
export function declareViewerAuth(api: OpenAPIHono<ViewerEnv>, dependencies: AuthDependencies): void {
  const { sql, passwords, logins, signUp, withdrawals, isProduction } = dependencies

  api.openapi(loginRoute, async (c) => {
    const { email, password, remember_me } = c.req.valid('json')
    const [login, leftWith] = await Promise.all([findViewerLogin(sql, email), withdrawals.findPasswordHash(email)])
    const isRight = await passwords.verify(password, login?.password_hash ?? leftWith)
    if (!login && isRight) throw new OriginError('forbidden', '탈퇴한 회원입니다')
    if (!login || !isRight) throw new OriginError('unauthenticated', '이메일 또는 비밀번호가 일치하지 않습니다')
    const { password_hash: _, ...user } = login
    await logins.start(c, user, { remember: remember_me })
    return c.json({ user }, 200, noStore)
  })

  api.openapi(refreshRoute, async (c) => {
    await logins.refresh(c)
    return c.json({ message: '토큰이 갱신되었습니다' }, 200, noStore)
  })

  api.openapi(logoutRoute, async (c) => {
    await logins.end(c)
    return c.json({ message: '로그아웃되었습니다' }, 200, noStore)
  })

  api.openapi({ ...whoRoute, middleware: logins.signedIn }, (c) => c.json(c.get('viewer'), 200, noStore))

  api.openapi(requestRoute, async (c) => {
    const wanted = c.req.valid('json')
    const ticket = await signUp.request(wanted)
    setCookie(c, ticketCookie, ticket, {
      path: '/auth/signup',
      httpOnly: true,
      sameSite: 'Strict',
      secure: isProduction,
      maxAge: codeSeconds,
    })
    return c.json({ email: wanted.email, expires_in: codeSeconds }, 200, noStore)
  })

  api.openapi(verifyRoute, async (c) => {
    await signUp.verify(c.req.valid('json'))
    return c.json({ valid: true, message: '인증되었습니다' }, 200)
  })

  api.openapi(confirmRoute, async (c) => {
    const { email, code } = c.req.valid('json')
    const viewer = await signUp.confirm({ email, code, ticket: getCookie(c, ticketCookie) })
    await logins.start(c, viewer, { remember: true })
    return c.json(viewer, 200, noStore)
  })
}

const tags = ['auth']
const ticketCookie = 'signup_ticket'
const noStore = { 'Cache-Control': 'no-store' }

const email = z.email().max(254)
const password = text({ min: 8, max: 1_024 })
/** A name without spaces at its ends, of which two do not look the same. */
export const nickname = ({ min, max }: { min: number; max: number }) =>
  text({ min, max }).refine((name) => name.trim() === name && toKey(name) !== '', '닉네임 앞뒤에 공백을 둘 수 없습니다')

/** A viewer as the API writes it. */
export const viewerOut = z
  .object({
    user_id: z.string().openapi({ format: 'uuid' }),
    email: z.string(),
    nickname: z.string(),
    onboarding_completed: z.boolean(),
  })
  .openapi('User')

const messageOut = z.object({ message: z.string() })
const badRequest = { 400: { ...refusals[409], description: 'Taken, expired or wrong; the words say which' } }

const loginRoute = createRoute({
  method: 'post',
  path: '/auth/login',
  tags,
  summary: 'Log in; the tokens are in HttpOnly cookies.',
  request: {
    body: jsonBody(
      z.object({ email: text({ max: 254 }), password: text({ max: 1_024 }), remember_me: z.boolean().default(true) }),
    ),
  },
  responses: {
    200: jsonAnswer(z.object({ user: viewerOut }), 'Logged in'),
    401: refusals[401],
    403: { ...refusals[403], description: 'The account was deleted less than 30 days ago' },
    422: refusals[422],
  },
})

const refreshRoute = createRoute({
  method: 'post',
  path: '/auth/refresh',
  tags,
  summary: 'Exchange the refresh token, once, for a new pair of cookies.',
  responses: { 200: jsonAnswer(messageOut, 'Renewed'), 401: refusals[401] },
})

const logoutRoute = createRoute({
  method: 'post',
  path: '/auth/logout',
  tags,
  summary: 'Log out; without a login too.',
  responses: { 200: jsonAnswer(messageOut, 'Logged out') },
})

const whoRoute = createRoute({
  method: 'get',
  path: '/auth/me',
  tags,
  summary: 'Whose login this is.',
  responses: { 200: jsonAnswer(viewerOut, 'The viewer'), 401: refusals[401] },
})

const requestRoute = createRoute({
  method: 'post',
  path: '/auth/signup/request',
  tags,
  summary: 'Ask for an account; a code of six digits is mailed.',
  request: { body: jsonBody(z.object({ email, password, nickname: nickname({ min: 1, max: 30 }) })) },
  responses: {
    200: jsonAnswer(
      z.object({ email: z.string(), expires_in: z.int().openapi({ description: 'seconds' }) }),
      'The code was mailed',
    ),
    ...badRequest,
    422: refusals[422],
  },
})

const verifyRoute = createRoute({
  method: 'post',
  path: '/auth/signup/verify',
  tags,
  summary: 'Show the mailed code.',
  request: { body: jsonBody(z.object({ email, code: text({ max: 16 }) })) },
  responses: {
    200: jsonAnswer(z.object({ valid: z.boolean(), message: z.string() }), 'It is right'),
    ...badRequest,
    422: refusals[422],
  },
})

const confirmRoute = createRoute({
  method: 'post',
  path: '/auth/signup/confirm',
  tags,
  summary: 'Make the account of a verified address, and log in.',
  description: 'In the browser that asked for the code; elsewhere with the code once more.',
  request: { body: jsonBody(z.object({ email, code: text({ max: 16 }).optional() })) },
  responses: { 200: jsonAnswer(viewerOut, 'The account'), ...badRequest, 422: refusals[422] },
})
