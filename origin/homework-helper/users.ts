import type { Sql } from '../kit/database.ts'

export type User = { id: number; username: string; email: string; created_at: string }

const columns = ['id', 'username', 'email', 'created_at'] as const

/** Adds a user; names and addresses that differ only in case are the same. Undefined when one is taken. */
export async function addUser(
  sql: Sql,
  { username, email, passwordHash }: { username: string; email: string; passwordHash: string },
): Promise<User | undefined> {
  const [user] = await sql<User[]>`
    insert into homework_helper.users (username, username_key, email, email_key, password_hash)
    values (${username}, ${toKey(username)}, ${email}, ${toKey(email)}, ${passwordHash})
    on conflict do nothing
    returning ${sql(columns)}`
  return user
}

/** Whether somebody, active or not, has this name. */
export async function isUsernameTaken(sql: Sql, username: string): Promise<boolean> {
  const rows = await sql`select from homework_helper.users where username_key = ${toKey(username)}`
  return rows.length > 0
}

/** The active user of this id. */
export async function findUser(sql: Sql, id: number): Promise<User | undefined> {
  const [user] = await sql<User[]>`select ${sql(columns)} from homework_helper.users where id = ${id} and is_active`
  return user
}

/** The active user of this name, with the password's hash. */
export async function findLogin(
  sql: Sql,
  username: string,
): Promise<{ id: number; password_hash: string } | undefined> {
  const [login] = await sql<{ id: number; password_hash: string }[]>`
    select id, password_hash from homework_helper.users where username_key = ${toKey(username)} and is_active`
  return login
}

/** Soft delete: the user cannot log in and every token is refused from now on; the rows stay. */
export async function deactivateUser(sql: Sql, id: number): Promise<void> {
  await sql`update homework_helper.users set is_active = false, updated_at = now() where id = ${id}`
}

// Made here and not by lower() in SQL, whose result depends on the locale of the server.
function toKey(name: string): string {
  return name.normalize('NFKC').toLowerCase()
}
