import { randomBytes } from 'node:crypto'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { int32, text } from '../../kit/fields.ts'
import type { Passwords } from '../../kit/passwords.ts'
import type { Mailer } from '../mailer.ts'
import type { Store } from '../store.ts'
import { toKey } from '../viewers/users.ts'
import type { Accounts, CompanyEnv } from './accounts.ts'
import { companyColumns, companyOut, loginOut } from './accounts.ts'
import type { Company } from './accounts.ts'
import { plans } from './quotas.ts'

type AuthDependencies = { sql: Sql; accounts: Accounts; passwords: Passwords; mailer: Mailer; store: Store }

/** Accounts of companies, under `/b2b/auth`, `/b2b/me` and, for who runs MovieSir, `/b2b/admin`. */
export function declareCompanyAuth(api: OpenAPIHono<CompanyEnv>, dependencies: AuthDependencies): void {
  const { sql, accounts, passwords, mailer, store } = dependencies
  const middleware = accounts.signedIn

  api.openapi(registerRoute, async (c) => {
    const { name, email, password } = c.req.valid('json')
    const company = await accounts.add({ name, email, passwordHash: await passwords.hash(password) })
    if (!company) throw new OriginError('bad_request', '이미 가입된 이메일입니다.')
    return c.json(await accounts.toLogin(company), 201, noStore)
  })

  api.openapi(loginRoute, async (c) => {
    const { email, password } = c.req.valid('json')
    const company = await accounts.findLogin(email)
    const isRight = await passwords.verify(password, company?.password_hash ?? undefined)
    if (!company || !isRight) throw new OriginError('unauthenticated', '이메일 또는 비밀번호가 일치하지 않습니다')
    return c.json(await accounts.toLogin(company), 200, noStore)
  })

  api.openapi({ ...changePasswordRoute, middleware }, async (c) => {
    const { current_password, new_password } = c.req.valid('json')
    const company = await accounts.findLogin(c.get('company').email)
    if (company?.password_hash === null) throw new OriginError('bad_request', noPassword)
    const isRight = await passwords.verify(current_password, company?.password_hash)
    if (!company || !isRight) throw new OriginError('bad_request', '현재 비밀번호가 일치하지 않습니다')
    await accounts.changePassword(company.id, await passwords.hash(new_password))
    return c.json({ message: '비밀번호가 변경되었습니다. 다시 로그인해 주세요.' }, 200)
  })

  api.openapi(forgotPasswordRoute, async (c) => {
    const { email } = c.req.valid('json')
    const left = await store.take(`b2b-resets:${toKey(email)}`, resetsMax, resetSeconds)
    const company = left === undefined ? undefined : await accounts.findLogin(email)
    if (company) {
      const token = randomBytes(24).toString('base64url')
      await store.put(resetKey(email), token, resetSeconds)
      const body = `새 비밀번호를 정하는 데 쓰는 코드입니다: ${token}\n${resetSeconds / 60}분 안에 쓸 수 있습니다.\n`
      // Not awaited: how long a mail takes would tell who has an account.
      mailer
        .send({ to: company.email, subject: '[MovieSir] 비밀번호 재설정', text: body })
        .catch(() => 'it is in the log')
    }
    return c.json({ message: '가입된 이메일이라면 재설정 코드를 보냈습니다.' }, 200)
  })

  api.openapi(resetPasswordRoute, async (c) => {
    const { email, code, new_password } = c.req.valid('json')
    const expected = await store.get(resetKey(email))
    const company = await accounts.findLogin(email)
    if (!company || expected !== code) throw wrongCode()
    if (!(await store.delete(resetKey(email)))) throw wrongCode()
    await accounts.changePassword(company.id, await passwords.hash(new_password))
    return c.json({ message: '비밀번호가 변경되었습니다. 다시 로그인해 주세요.' }, 200)
  })

  api.openapi({ ...meRoute, middleware }, (c) => c.json(c.get('company'), 200))

  api.openapi({ ...renameRoute, middleware }, async (c) => {
    const { name } = c.req.valid('json')
    await sql`update b2b.companies set name = ${name} where company_id = ${c.get('company').id}`
    return c.json({ ...c.get('company'), name }, 200)
  })

  api.openapi({ ...leaveRoute, middleware }, async (c) => {
    await sql`delete from b2b.companies where company_id = ${c.get('company').id}`
    return c.body(null, 204)
  })

  // Whatever is asked for under it, also what is not there.
  api.use('/b2b/admin/*', middleware, refuseUnlessAdmin)

  api.openapi(companiesRoute, async (c) => {
    const companies = await sql<Company[]>`select ${companyColumns(sql)} from b2b.companies order by company_id`
    return c.json({ companies: [...companies] }, 200)
  })

  api.openapi(planRoute, async (c) => {
    const { plan } = c.req.valid('json')
    const [company] = await sql<Company[]>`
      update b2b.companies set plan = ${plan} where company_id = ${c.req.valid('param').company_id}
      returning ${companyColumns(sql)}`
    if (!company) throw new OriginError('not_found', '회사를 찾을 수 없습니다')
    return c.json(company, 200)
  })
}

function wrongCode(): OriginError {
  return new OriginError('bad_request', '재설정 코드가 올바르지 않거나 만료되었습니다.')
}

const refuseUnlessAdmin: MiddlewareHandler<CompanyEnv> = async (c, next) => {
  if (!c.get('company').is_admin) throw new OriginError('forbidden', '관리자만 사용할 수 있습니다')
  await next()
}

const tags = ['b2b']
const noStore = { 'Cache-Control': 'no-store' }
const resetsMax = 5
const resetSeconds = 1_800
const resetKey = (email: string) => `b2b-reset:${toKey(email)}`

const email = z.email().max(254)
const password = text({ min: 8, max: 1_024 })
const name = text({ min: 1, max: 100 })

const noPassword = '비밀번호가 없는 계정입니다. 비밀번호 재설정으로 정할 수 있습니다.'

const messageOut = jsonAnswer(z.object({ message: z.string() }), 'Done')
const badRequest = { 400: { ...refusals[409], description: 'Taken, expired or wrong; the words say which' } }
const invalid = { 422: refusals[422] }
const unauthenticated = { 401: refusals[401] }

const registerRoute = createRoute({
  method: 'post',
  path: '/b2b/auth/register',
  tags,
  summary: 'Make an account for a company.',
  request: { body: jsonBody(z.object({ name, email, password })) },
  responses: { 201: jsonAnswer(loginOut, 'The account'), ...badRequest, ...invalid },
})

const loginRoute = createRoute({
  method: 'post',
  path: '/b2b/auth/login',
  tags,
  summary: 'Get a bearer token.',
  request: { body: jsonBody(z.object({ email: text({ max: 254 }), password: text({ max: 1_024 }) })) },
  responses: { 200: jsonAnswer(loginOut, 'The token'), ...unauthenticated, ...invalid },
})

const changePasswordRoute = createRoute({
  method: 'post',
  path: '/b2b/auth/change-password',
  tags,
  summary: 'Another password; every token there was ends.',
  request: { body: jsonBody(z.object({ current_password: text({ max: 1_024 }), new_password: password })) },
  responses: { 200: messageOut, ...badRequest, ...unauthenticated, ...invalid },
})

const forgotPasswordRoute = createRoute({
  method: 'post',
  path: '/b2b/auth/forgot-password',
  tags,
  summary: 'Mail a code for another password. The answer is the same whoever asks.',
  request: { body: jsonBody(z.object({ email })) },
  responses: { 200: messageOut, ...invalid },
})

const resetPasswordRoute = createRoute({
  method: 'post',
  path: '/b2b/auth/reset-password',
  tags,
  summary: 'Set another password with the mailed code.',
  request: { body: jsonBody(z.object({ email, code: text({ max: 100 }), new_password: password })) },
  responses: { 200: messageOut, ...badRequest, ...invalid },
})

const meRoute = createRoute({
  method: 'get',
  path: '/b2b/me',
  tags,
  summary: 'Whose token this is.',
  responses: { 200: jsonAnswer(companyOut, 'The company'), ...unauthenticated },
})

const renameRoute = createRoute({
  method: 'patch',
  path: '/b2b/me',
  tags,
  summary: 'Another name.',
  request: { body: jsonBody(z.object({ name })) },
  responses: { 200: jsonAnswer(companyOut, 'The company'), ...unauthenticated, ...invalid },
})

const leaveRoute = createRoute({
  method: 'delete',
  path: '/b2b/me',
  tags,
  summary: 'Delete the account, its keys and its logs.',
  responses: { 204: { description: 'Deleted' }, ...unauthenticated },
})

const companiesRoute = createRoute({
  method: 'get',
  path: '/b2b/admin/companies',
  tags,
  summary: 'Every company; for admins.',
  responses: {
    200: jsonAnswer(z.object({ companies: z.array(companyOut) }), 'The companies'),
    ...unauthenticated,
    403: refusals[403],
  },
})

const planRoute = createRoute({
  method: 'patch',
  path: '/b2b/admin/companies/{company_id}',
  tags,
  summary: 'Put a company on another plan; for admins.',
  request: {
    params: z.object({ company_id: z.coerce.number().pipe(int32.min(1)) }),
    body: jsonBody(z.object({ plan: z.enum(plans) })),
  },
  responses: {
    200: jsonAnswer(companyOut, 'The company'),
    ...unauthenticated,
    403: refusals[403],
    404: refusals[404],
    ...invalid,
  },
})
