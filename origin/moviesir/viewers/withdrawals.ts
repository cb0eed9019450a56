import { createHmac } from 'node:crypto'
import type { Sql } from '../../kit/database.ts'
import { toKey } from './users.ts'

const keptSeconds = 30 * 86_400

export type Withdrawals = ReturnType<typeof createWithdrawals>

/**
 * Viewers who have left. Every row about them is deleted at once; for 30 days a keyed hash of the address and the hash
 * of the password remain, so that whoever still knows both is told that the account is gone.
 */
export function createWithdrawals({ sql, secret }: { sql: Sql; secret: string }) {
  return { withdraw, findPasswordHash }

  async function withdraw(userId: string): Promise<void> {
    await sql.begin(async (tx) => {
      const [viewer] = await tx<{ email: string; password_hash: string }[]>`
        delete from b2c.users where user_id = ${userId} returning email, password_hash`
      if (!viewer) return
      await tx`insert into b2c.withdrawals (email_hash, password_hash, expires_at)
        values (${toEmailHash(viewer.email)}, ${viewer.password_hash}, now() + make_interval(secs => ${keptSeconds}))
        on conflict (email_hash) do update set
          password_hash = excluded.password_hash, expires_at = excluded.expires_at`
    })
  }

  /** The hash of the password of whoever left with this address; undefined when nobody did lately. */
  async function findPasswordHash(email: string): Promise<string | undefined> {
    const [withdrawal] = await sql<{ password_hash: string }[]>`
      select password_hash from b2c.withdrawals
      where email_hash = ${toEmailHash(email)} and expires_at > now()`
    return withdrawal?.password_hash
  }

  // Keyed: addresses are easy to guess, so without the secret the table says nothing about anybody.
  function toEmailHash(email: string): string {
    return createHmac('sha256', secret)
      .update(`withdrawal of ${toKey(email)}`)
      .digest('hex')
  }
}

/** Forgets who left long ago. Returns how many. */
export async function forgetOldWithdrawals(sql: Sql): Promise<number> {
  const { count } = await sql`delete from b2c.withdrawals where expires_at <= now()`
  return count
}
