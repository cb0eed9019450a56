import { randomBytes, randomInt, timingSafeEqual } from 'node:crypto'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import type { Passwords } from '../../kit/passwords.ts'
import type { Mailer } from '../mailer.ts'
import type { Store } from '../store.ts'
import type { Viewer } from './users.ts'
import { addViewer, toKey, whatIsTaken } from './users.ts'

/** How long a code can be used, in seconds. */
export const codeSeconds = 600
const guessesMax = 5
const mailsMax = 5

type Pending = {
  email: string
  nickname: string
  passwordHash: string
  code: string
  ticket: string
  isVerified: boolean
}

type SignUpOptions = { sql: Sql; store: Store; passwords: Passwords; mailer: Mailer }

/**
 * Sign-up by a mailed code of six digits. `request` keeps what was asked for under the address and hands the browser a
 * ticket: a verified address alone does not let somebody else finish the sign-up.
 */
export function createSignUp({ sql, store, passwords, mailer }: SignUpOptions) {
  return { request, verify, confirm }

  /** Mails a code and returns the ticket. */
  async function request({ email, password, nickname }: { email: string; password: string; nickname: string }) {
    const taken = await whatIsTaken(sql, { email, nickname })
    if (taken) throw isTaken(taken)
    const left = await store.take(`signup-mails:${toKey(email)}`, mailsMax, codeSeconds)
    if (left === undefined) throw tooMany('인증 메일을 너무 많이 요청했습니다. 잠시 후 다시 시도해 주세요.')
    const code = String(randomInt(1_000_000)).padStart(6, '0')
    const ticket = randomBytes(16).toString('base64url')
    const pending: Pending = {
      email,
      nickname,
      passwordHash: await passwords.hash(password),
      code,
      ticket,
      isVerified: false,
    }
    await keep(pending)
    await store.delete(guessesKey(email))
    await mailer.send({
      to: email,
      subject: `[MovieSir] 인증 코드 ${code}`,
      text: `MovieSir 가입 인증 코드는 ${code} 입니다. ${codeSeconds / 60}분 안에 입력해 주세요.\n\nYour MovieSir code is ${code}. It can be used for ${codeSeconds / 60} minutes.\n`,
    })
    return ticket
  }

  async function verify({ email, code }: { email: string; code: string }): Promise<void> {
    const pending = await find(email)
    if (!pending) throw isExpired()
    const left = await store.take(guessesKey(email), guessesMax, codeSeconds)
    if (left === undefined) {
      await forget(email)
      throw tooMany('인증 시도가 너무 많습니다. 인증 코드를 다시 요청해 주세요.')
    }
    if (!isSame(code, pending.code)) throw new OriginError('bad_request', '인증 코드가 올바르지 않습니다.')
    await keep({ ...pending, isVerified: true })
  }

  /** Makes the account. Whoever asks shows the ticket of `request`, or the code again. */
  async function confirm({ email, ticket, code }: { email: string; ticket?: string; code?: string }): Promise<Viewer> {
    const pending = await find(email)
    if (!pending) throw isExpired()
    const isTheirs = isSame(ticket ?? '', pending.ticket) || isSame(code ?? '', pending.code)
    if (!pending.isVerified || !isTheirs) throw new OriginError('bad_request', '이메일 인증이 필요합니다.')
    const viewer = await addViewer(sql, pending)
    if (!viewer) throw isTaken((await whatIsTaken(sql, pending)) ?? 'email')
    await forget(email)
    return viewer
  }

  async function find(email: string): Promise<Pending | undefined> {
    const text = await store.get(pendingKey(email))
    return text === undefined ? undefined : (JSON.parse(text) as Pending)
  }

  function keep(pending: Pending): Promise<void> {
    return store.put(pendingKey(pending.email), JSON.stringify(pending), codeSeconds)
  }

  async function forget(email: string): Promise<void> {
    await store.delete(pendingKey(email))
    await store.delete(guessesKey(email))
  }
}

const pendingKey = (email: string) => `signup:${toKey(email)}`
const guessesKey = (email: string) => `signup-guesses:${toKey(email)}`

function isSame(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)]
  return a.length === b.length && timingSafeEqual(a, b)
}

function isTaken(what: 'email' | 'nickname'): OriginError {
  const words = what === 'email' ? '이미 가입된 이메일입니다.' : '이미 사용 중인 닉네임입니다.'
  return new OriginError('bad_request', words)
}

function isExpired(): OriginError {
  return new OriginError('bad_request', '인증 시간이 만료되었습니다. 다시 요청해 주세요.')
}

function tooMany(detail: string): OriginError {
  return new OriginError('rate_limited', detail, { headers: { 'Retry-After': String(codeSeconds) } })
}
