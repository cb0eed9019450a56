import { UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'
import type { SplitStatus } from '../upstreams/split-control.ts'
import type { CommandLine } from './command-line.ts'
import { toColumns } from './paint.ts'
import type { Paint } from './paint.ts'

/** What is asked of the splits of a running gateway. */
export type SplitWish =
  | { kind: 'show'; name: string | undefined }
  | { kind: 'weights'; name: string; weights: Record<string, number> }
  | { kind: 'rollout'; name: string }

/** 'app blue=90 green=10', 'app rollout', 'app', or nothing for all. */
export function readSplitWish([name, ...words]: string[]): SplitWish {
  if (name === undefined || words.length === 0) return { kind: 'show', name }
  if (words.length === 1 && words[0] === 'rollout') return { kind: 'rollout', name }
  const pairs = words.map((word): [string, number] => {
    const [, side = '', weight] = /^([a-z][a-z0-9-]*)=(\d{1,4})$/.exec(word) ?? []
    if (weight === undefined)
      throw new UsageError(`'${word}' is no weight of a side: write daemun split ${name} blue=90 green=10`)
    return [side, Number(weight)]
  })
  return { kind: 'weights', name, weights: Object.fromEntries(pairs) }
}

/** Asks the admin listener of a gateway that runs. */
export async function askSplits({ admin, split }: CommandLine, { adminToken }: Config): Promise<SplitStatus[]> {
  if (split.kind !== 'show' && adminToken === undefined)
    throw new UsageError('changes need DAEMUN_ADMIN_TOKEN, in the environment or in .env: the one that the gateway has')
  const { host, port } = admin
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}/splits`
  const path = split.name === undefined ? '' : `/${encodeURIComponent(split.name)}`
  const response = await fetch(`${url}${path}`, toRequest(split, adminToken)).catch((error: unknown) => {
    throw new UsageError(`nothing answers at ${url}: is the gateway running, with --admin ${host}:${port}?`, {
      cause: error,
    })
  })
  const answer = (await response.json().catch(() => ({}))) as SplitStatus | SplitStatus[] | { detail?: string }
  if (!response.ok)
    throw new UsageError('detail' in answer && answer.detail ? answer.detail : `status ${response.status}`)
  return [answer].flat() as SplitStatus[]
}

function toRequest(split: SplitWish, token: string | undefined): RequestInit {
  if (split.kind === 'show') return {}
  const body = split.kind === 'rollout' ? { rollout: true } : { weights: split.weights }
  return {
    method: 'PUT',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  }
}

function toState(state: SplitStatus['state'], changed: SplitStatus['changed'], paint: Paint): string {
  const shown = state === 'rolled back' ? paint.bad(state) : state
  if (!changed) return shown
  return `${state === 'by hand' ? '' : `${shown} `}${paint.dim(`by ${changed.by}: ${changed.reason}`)}`
}

export function showSplits(splits: SplitStatus[], paint: Paint): string {
  if (splits.length === 0) return 'no upstream is split\n'
  return toColumns(
    splits.map(({ upstream, weights, state, changed }) => [
      paint.bold(upstream),
      Object.entries(weights)
        .map(([side, weight]) => `${side} ${weight}`)
        .join(', '),
      toState(state, changed, paint),
    ]),
    '',
  )
}
