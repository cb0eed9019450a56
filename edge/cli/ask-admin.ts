import { UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'

/** Asks a running gateway to change something; resolves to what it answers, rejects with why it did not. */
export async function askAdmin(
  path: string,
  body: unknown,
  { admin: { host, port }, config }: { admin: { host: string; port: number }; config: Config },
): Promise<Record<string, unknown>> {
  const { adminToken } = config
  if (adminToken === undefined)
    throw new UsageError('DAEMUN_ADMIN_TOKEN is not set: it must be the one that the gateway was started with')
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}`
  const answer = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${adminToken}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    redirect: 'error',
  }).catch((error: unknown) => {
    throw new UsageError(`no gateway answers at ${url}: start one, or name its --admin`, { cause: error })
  })
  const said = (await answer.json().catch(() => ({}))) as Record<string, unknown>
  if (answer.ok) return said
  throw new UsageError(typeof said['detail'] === 'string' ? said['detail'] : `${url} answered ${answer.status}`)
}
