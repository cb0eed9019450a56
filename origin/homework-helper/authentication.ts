import type { MiddlewareHandler } from 'hono'
import type { ApiEnv } from '../kit/api.ts'
import type { Sql } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'
import type { Tokens } from '../kit/tokens.ts'
import type { User } from './users.ts'
import { findUser } from './users.ts'

/** The context of routes that know their user. */
export type UserEnv = ApiEnv<{ user: User }>

/** The security scheme of `createRoute` for those routes. */
export const bearer = [{ OAuth2PasswordBearer: [] }]

/** Lets a request through with its `user` when the Bearer token is good and the user active; 401 otherwise. */
export function authenticate(sql: Sql, tokens: Tokens): MiddlewareHandler<UserEnv> {
  return async function authenticates(c, next) {
    const token = /^bearer +([\w.~+/=-]+)$/i.exec(c.req.header('authorization') ?? '')?.[1]
    if (!token) throw unauthenticated('Not authenticated')
    const subject = await tokens.verify(token)
    const user = subject && /^\d{1,9}$/.test(subject) ? await findUser(sql, Number(subject)) : undefined
    if (!user) throw unauthenticated('Could not validate credentials')
    c.set('user', user)
    await next()
  }
}

/** 401 with the challenge that the clients look for. */
export function unauthenticated(detail: string): OriginError {
  return new OriginError('unauthenticated', detail, { headers: { 'WWW-Authenticate': 'Bearer' } })
}
