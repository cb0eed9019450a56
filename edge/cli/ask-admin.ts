import { UsageError } from '../node/config.ts'

export interface Admin {
  host: string
  port: number
  token: string | undefined
}

/**
 * Asks a running gateway to change something, on its admin listener; resolves to what it says, with its status.
 * Rejects with a UsageError when there is none, or when it does not take the token.
 */
export async function askAdmin(
  { host, port, token }: Admin,
  path: string,
  body?: unknown,
): Promise<{ status: number; answer: unknown }> {
  if (token === undefined)
    throw new UsageError(`DAEMUN_ADMIN_TOKEN is not set: changes are asked for with the running gateway's`)
  const place = `${host.includes(':') ? `[${host}]` : host}:${port}`
  const response = await fetch(`http://${place}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body ?? {}),
  }).catch((error: unknown) => {
    throw new UsageError(`no gateway's admin listener answers on ${place}: name it with --admin ADDR:PORT`, {
      cause: error,
    })
  })
  const { status } = response
  if (status === 401) throw new UsageError(`the gateway on ${place} has another DAEMUN_ADMIN_TOKEN`)
  if (status === 403) throw new UsageError(`the gateway on ${place} was started without DAEMUN_ADMIN_TOKEN`)
  const answer = await readJson(response)
  if (answer === undefined)
    throw new UsageError(`what answers on ${place} is no admin listener of this version: it says ${status} to ${path}`)
  return { status, answer }
}

/** undefined: something that is no answer of ours. */
async function readJson(response: Response): Promise<unknown> {
  const type = response.headers.get('content-type') ?? ''
  return type.startsWith('application/json') ? response.json() : undefined
}
