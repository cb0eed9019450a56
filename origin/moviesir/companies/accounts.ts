import type { MiddlewareHandler } from 'hono'
import type { ApiEnv } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import type { Tokens } from '../../kit/tokens.ts'
import { createTokens } from '../../kit/tokens.ts'
import { toKey } from '../viewers/users.ts'
import type { Plan } from './quotas.ts'

export type Company = {
  id: number
  name: string
  email: string
  plan: Plan
  oauth_provider: string | null
  is_admin: boolean
  created_at: string
}

/** The context of routes that know their company. */
export type CompanyEnv = ApiEnv<{ company: Company }>

type Stored = Company & { password_hash: string; tokens_valid_from: string }

const tokenSeconds = 7 * 86_400

/** Companies and their bearer tokens of seven days; a changed password ends every token there was. */
export function createAccounts(sql: Sql, secret: string) {
  const tokens = createTokens({ secret, lifetimeSeconds: tokenSeconds, type: 'b2b_access' })
  return { add, findLogin, changePassword, token, signedIn: signedIn(sql, tokens) }

  /** Undefined when the address is taken. */
  async function add({ name, email, passwordHash }: { name: string; email: string; passwordHash: string }) {
    const [company] = await sql<Stored[]>`
      insert into b2b.companies (name, email, email_key, password_hash)
      values (${name}, ${email}, ${toKey(email)}, ${passwordHash})
      on conflict do nothing returning ${stored(sql)}`
    return company
  }

  async function findLogin(email: string): Promise<Stored | undefined> {
    const [company] = await sql<Stored[]>`select ${stored(sql)} from b2b.companies where email_key = ${toKey(email)}`
    return company
  }

  async function changePassword(companyId: number, passwordHash: string): Promise<void> {
    await sql`update b2b.companies set password_hash = ${passwordHash}, tokens_valid_from = clock_timestamp()
      where company_id = ${companyId}`
  }

  function token({ id, tokens_valid_from }: Stored): Promise<string> {
    return tokens.issue(String(id), { since: tokens_valid_from })
  }
}

export type Accounts = ReturnType<typeof createAccounts>

/** The company as a client sees it. */
export function toCompany({ id, name, email, plan, oauth_provider, is_admin, created_at }: Stored): Company {
  return { id, name, email, plan, oauth_provider, is_admin, created_at }
}

function stored(sql: Sql) {
  return sql`company_id as id, name, email, plan, null as oauth_provider, is_admin, created_at, password_hash, tokens_valid_from`
}

function signedIn(sql: Sql, tokens: Tokens): MiddlewareHandler<CompanyEnv> {
  return async function authenticates(c, next) {
    const token = /^bearer +([\w.~+/=-]+)$/i.exec(c.req.header('authorization') ?? '')?.[1]
    if (!token) throw refused('인증이 필요합니다')
    const { sub = '', since } = (await tokens.read(token)) ?? {}
    if (!/^\d{1,9}$/.test(sub)) throw refused('유효하지 않은 토큰입니다')
    const [company] = await sql<Stored[]>`select ${stored(sql)} from b2b.companies where company_id = ${Number(sub)}`
    if (!company || company.tokens_valid_from !== since) throw refused('유효하지 않은 토큰입니다')
    c.set('company', toCompany(company))
    await next()
  }
}

function refused(detail: string): OriginError {
  return new OriginError('unauthenticated', detail, { headers: { 'WWW-Authenticate': 'Bearer' } })
}
