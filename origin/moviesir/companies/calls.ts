import type { Sql } from '../../kit/database.ts'
import type { Caller } from './api-keys.ts'

/** One call of the external API, as it is kept. */
export type Call = {
  requestId: string
  endpoint: string
  method: string
  status: number
  errorCode?: string
  latencyMs: number
}

/** Keeps a line about a call and when its key was used, before it is answered: what a company is shown and charged for must be there. */
export async function keepCall(sql: Sql, { company_id, key_id, key_name }: Caller, call: Call): Promise<void> {
  const { requestId, endpoint, method, status, errorCode = null, latencyMs } = call
  await sql`with used as (update b2b.api_keys set last_used_at = now() where key_id = ${key_id} returning key_id)
    insert into b2b.api_logs
    (company_id, key_id, key_name, request_id, endpoint, method, status_code, error_code, latency_ms)
    values (${company_id}, (select key_id from used), ${key_name}, ${requestId},
      ${endpoint}, ${method}, ${status}, ${errorCode}, ${latencyMs})`
}

const keptFor = '90 days'

/** Forgets calls older than any figure looks back. Returns how many. */
export async function forgetOldCalls(sql: Sql): Promise<number> {
  const { count } = await sql`delete from b2b.api_logs where created_at < now() - ${keptFor}::interval`
  return count
}
