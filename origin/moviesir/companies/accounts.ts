import { z } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import type { ApiEnv } from '../../kit/api.ts'
import type { Sql, Transaction } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { instantOut } from '../../kit/fields.ts'
import type { Tokens } from '../../kit/tokens.ts'
import { createTokens } from '../../kit/tokens.ts'
import { toKey } from '../viewers/users.ts'
import type { Identity, ProviderName } from './login-providers.ts'
import { plans } from './quotas.ts'

/** A company as the API writes it. */
export const companyOut = z
  .object({
    id: z.int(),
    name: z.string(),
    email: z.string(),
    plan: z.enum(plans),
    oauth_provider: z
      .string()
      .nullable()
      .openapi({ description: 'the provider one logged in with first; null for none' }),
    is_admin: z.boolean(),
    created_at: instantOut,
  })
  .openapi('Company')

export type Company = z.infer<typeof companyOut>

/** A company's login as the API writes it. */
export const loginOut = z
  .object({ access_token: z.string(), token_type: z.literal('bearer'), company: companyOut })
  .openapi('CompanyLogin')

/** The context of routes that know their company. */
export type CompanyEnv = ApiEnv<{ company: Company }>

type Stored = Company & { password_hash: string | null; tokens_valid_from: string }

const tokenSeconds = 7 * 86_400

/** Companies and their bearer tokens of seven days; a changed password ends every token there was. */
export function createAccounts(sql: Sql, secret: string) {
  const tokens = createTokens({ secret, lifetimeSeconds: tokenSeconds, type: 'b2b_access' })
  return {
    add,
    findLogin,
    changePassword,
    toLogin,
    enter,
    identities,
    removeIdentity,
    signedIn: signedIn(sql, tokens),
  }

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

  async function toLogin(company: Stored): Promise<z.infer<typeof loginOut>> {
    const access_token = await tokens.issue(String(company.id), { since: company.tokens_valid_from })
    return { access_token, token_type: 'bearer', company: toCompany(company) }
  }

  /**
   * The company of this identity: the one that has it, else `companyId`, to which it is added, else a new one. An
   * account that merely has the same address is another's until its owner adds the identity: whoever registered it
   * never had to show that the address is theirs.
   */
  async function enter(provider: ProviderName, identity: Identity, companyId?: number): Promise<Stored | EnterProblem> {
    return sql.begin(async (tx) => {
      // One at a time for each identity, so that two first logins at once find each other.
      await tx`select pg_advisory_xact_lock(hashtextextended(${`${provider} ${identity.subject}`}, 0))`
      const [known] = await tx<Stored[]>`select ${stored(tx)} from b2b.companies where company_id = (
        select company_id from b2b.company_identities where provider = ${provider} and subject = ${identity.subject})`
      if (known) return companyId === undefined || companyId === known.id ? known : 'linked elsewhere'
      const id = companyId ?? (await addFromIdentity(tx, identity))
      if (id === undefined) return 'email taken'
      const { count } = await tx`insert into b2b.company_identities (provider, subject, company_id)
        select ${provider}, ${identity.subject}, company_id from b2b.companies where company_id = ${id}
        on conflict do nothing`
      if (count === 0) return 'linked already'
      const [company] = await tx<Stored[]>`select ${stored(tx)} from b2b.companies where company_id = ${id}`
      return company!
    })
  }

  async function identities(companyId: number) {
    const rows = await sql<{ provider: ProviderName; created_at: string }[]>`
      select provider, created_at from b2b.company_identities where company_id = ${companyId} order by created_at`
    const [{ has = false } = {}] = await sql<{ has: boolean }[]>`
      select password_hash is not null as has from b2b.companies where company_id = ${companyId}`
    return { identities: [...rows], hasPassword: has }
  }

  /** `last` when nobody could log in afterwards. */
  async function removeIdentity(companyId: number, provider: ProviderName): Promise<'removed' | 'none' | 'last'> {
    return sql.begin(async (tx) => {
      const [company] = await tx<{ has: boolean }[]>`
        select password_hash is not null as has from b2b.companies where company_id = ${companyId} for update`
      const rows = await tx<{ provider: string }[]>`
        select provider from b2b.company_identities where company_id = ${companyId}`
      if (!rows.some((row) => row.provider === provider)) return 'none'
      if (!company?.has && rows.length === 1) return 'last'
      await tx`delete from b2b.company_identities where company_id = ${companyId} and provider = ${provider}`
      return 'removed'
    })
  }
}

export type Accounts = ReturnType<typeof createAccounts>

export type EnterProblem = 'email taken' | 'linked elsewhere' | 'linked already'

const nameMax = 100

/** Undefined when the address is taken. */
async function addFromIdentity(tx: Transaction, { email, name }: Identity): Promise<number | undefined> {
  const wanted = name.replaceAll('\0', '').toWellFormed().trim() || email.slice(0, email.indexOf('@'))
  const [company] = await tx<{ id: number }[]>`
    insert into b2b.companies (name, email, email_key)
    values (${[...wanted].slice(0, nameMax).join('')}, ${email}, ${toKey(email)})
    on conflict do nothing returning company_id as id`
  return company?.id
}

function toCompany({ id, name, email, plan, oauth_provider, is_admin, created_at }: Stored): Company {
  return { id, name, email, plan, oauth_provider, is_admin, created_at }
}

/** The columns of a company that a client sees. */
export function companyColumns(sql: Sql | Transaction) {
  return sql`company_id as id, name, email, plan, is_admin, created_at,
    (select provider from b2b.company_identities i where i.company_id = companies.company_id
      order by i.created_at limit 1) as oauth_provider`
}

function stored(sql: Sql | Transaction) {
  return sql`${companyColumns(sql)}, password_hash, tokens_valid_from`
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
