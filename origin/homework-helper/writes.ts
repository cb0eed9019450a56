import type { Sql, Transaction } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'

export type Write = {
  tx: Transaction
  userId: number
  /** The next number in this user's history of changes, as text. */
  takeChange(): string
}

/**
 * Runs `work` in a transaction that holds the user's row. A user's writes therefore happen one after another,
 * their change numbers grow in the order in which they become visible, and a phone that has read up to a number
 * can never be overtaken by a smaller one. Throws `unauthenticated` when the user has become inactive.
 */
export async function writeAs<T>(sql: Sql, userId: number, work: (write: Write) => Promise<T>): Promise<T> {
  const result = await sql.begin(async (tx) => {
    const [user] = await tx<{ change: string }[]>`
      select change from homework_helper.users where id = ${userId} and is_active for update`
    if (!user) throw new OriginError('unauthenticated', 'Could not validate credentials')
    const before = BigInt(user.change)
    let change = before
    const done = await work({ tx, userId, takeChange: () => String((change += 1n)) })
    if (change !== before) await tx`update homework_helper.users set change = ${String(change)} where id = ${userId}`
    return { done }
  })
  return result.done as T
}
