import { createHash } from 'node:crypto'
import type { Sql } from '../../kit/database.ts'

const shownMax = 100
const sessionSeconds = 7 * 86_400

/** Films that a company's own user was shown lately, latest first. */
export async function findShown(sql: Sql, companyId: number, clientUserId: string): Promise<number[]> {
  const [session] = await sql<{ shown: number[] }[]>`
    select shown_movie_ids as shown from b2b.guest_sessions
    where company_id = ${companyId} and guest_hash = ${toGuestHash(clientUserId)} and expires_at > now()`
  return session?.shown ?? []
}

/** Remembers what was shown: the latest hundred, for seven days after the last. Of calls at once all are remembered. */
export async function keepShown(sql: Sql, companyId: number, clientUserId: string, ids: number[]): Promise<void> {
  if (ids.length === 0) return
  await sql`insert into b2b.guest_sessions as kept (company_id, guest_hash, shown_movie_ids, expires_at)
    values (${companyId}, ${toGuestHash(clientUserId)}, ${ids}, now() + make_interval(secs => ${sessionSeconds}))
    on conflict (company_id, guest_hash) do update set
      shown_movie_ids = case when kept.expires_at > now()
        then (excluded.shown_movie_ids || kept.shown_movie_ids)[1:${shownMax}]
        else excluded.shown_movie_ids end,
      expires_at = excluded.expires_at`
}

/** Forgets whom nobody has asked for in time. Returns how many. */
export async function forgetOldGuests(sql: Sql): Promise<number> {
  const { count } = await sql`delete from b2b.guest_sessions where expires_at <= now()`
  return count
}

// Whatever a company calls its users, an address perhaps, is not kept.
function toGuestHash(clientUserId: string): string {
  return createHash('sha256').update(clientUserId).digest('hex')
}
