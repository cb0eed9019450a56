import type { Sql } from '../../kit/database.ts'

export type Viewer = { user_id: string; email: string; nickname: string; onboarding_completed: boolean }

/** Adds a viewer; addresses and nicknames that differ only in case are the same. Undefined when one is taken. */
export async function addViewer(
  sql: Sql,
  { email, nickname, passwordHash }: { email: string; nickname: string; passwordHash: string },
): Promise<Viewer | undefined> {
  const [viewer] = await sql<Viewer[]>`
    insert into b2c.users (email, email_key, nickname, nickname_key, password_hash)
    values (${email}, ${toKey(email)}, ${nickname}, ${toKey(nickname)}, ${passwordHash})
    on conflict do nothing
    returning user_id, email, nickname, false as onboarding_completed`
  return viewer
}

export async function findViewer(sql: Sql, userId: string): Promise<Viewer | undefined> {
  const [viewer] = await sql<Viewer[]>`
    select user_id, email, nickname, onboarding_completed_at is not null as onboarding_completed
    from b2c.users where user_id = ${userId}`
  return viewer
}

/** The viewer of this address, with the password's hash. */
export async function findViewerLogin(
  sql: Sql,
  email: string,
): Promise<(Viewer & { password_hash: string }) | undefined> {
  const [login] = await sql<(Viewer & { password_hash: string })[]>`
    select user_id, email, nickname, onboarding_completed_at is not null as onboarding_completed, password_hash
    from b2c.users where email_key = ${toKey(email)}`
  return login
}

/** Whether somebody has this address, or this nickname. */
export async function whatIsTaken(
  sql: Sql,
  { email, nickname }: { email: string; nickname: string },
): Promise<'email' | 'nickname' | undefined> {
  const [row] = await sql<{ email: boolean; nickname: boolean }[]>`select
    exists (select from b2c.users where email_key = ${toKey(email)}) as email,
    exists (select from b2c.users where nickname_key = ${toKey(nickname)}) as nickname`
  if (row?.email) return 'email'
  return row?.nickname ? 'nickname' : undefined
}

/** Gives the viewer another nickname; false when somebody has it. */
export async function renameViewer(sql: Sql, userId: string, nickname: string): Promise<boolean> {
  const { count } = await sql`
    update b2c.users set nickname = ${nickname}, nickname_key = ${toKey(nickname)}, updated_at = now()
    where user_id = ${userId}
      and not exists (select from b2c.users where nickname_key = ${toKey(nickname)} and user_id <> ${userId})`
  return count === 1
}

export async function completeOnboarding(sql: Sql, userId: string): Promise<void> {
  await sql`update b2c.users set onboarding_completed_at = coalesce(onboarding_completed_at, now())
    where user_id = ${userId}`
}

/** What an address or a name is compared by. Not lower() in SQL: its result depends on the locale of the server. */
export function toKey(name: string): string {
  return name.normalize('NFKC').toLowerCase()
}
