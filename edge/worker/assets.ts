import { isFresh, isNavigation, isServable, readConditions, toAssetHeaders } from '../actions/files.ts'
import { toClientHeaders } from '../actions/headers.ts'
import type { FilesPlan } from '../plan.ts'
import { toRefusal, toResponseInit } from './answer.ts'
import type { Finish } from './answer.ts'
import type { Fetcher, WorkerIo } from './platform.ts'
import { createPipe, pump } from './pump.ts'

/**
 * Where a table's folder is among the uploaded assets: 'origin/<system>/web…' at '/<system>/web…'. Other folders are not
 * there, so that a table cannot name the sources that stand beside a system's pages.
 */
export const toAssetFolder = (root: string): string | undefined =>
  /^origin(\/[a-z0-9-]+\/web(?:\/[A-Za-z0-9_-]+)*)$/.exec(root)?.[1]

/** Answers with a file of the ASSETS binding, by the rules that hold on Node too. */
export async function readAsset(
  plan: FilesPlan,
  assets: Fetcher | undefined,
  { request, context }: WorkerIo,
  finish: Finish,
): Promise<Response> {
  const found = assets && (await find(plan, assets))
  if (!found) {
    const refusal = { code: 'not_found', detail: 'there is no such file' } as const
    return toRefusal(plan, refusal, finish)
  }
  const { answer, name } = found
  const etag = answer.headers.get('etag')
  const status = etag !== null && isFresh(readConditions(plan.exchange.headers), etag) ? 304 : 200
  const own = toAssetHeaders(plan.files, name)
  if (etag !== null) own.push('ETag', etag)
  const length = answer.headers.get('content-length')
  if (length !== null && status === 200) own.push('Content-Length', length)
  const init = toResponseInit(status, toClientHeaders(plan.exchange, plan.response, status, own))
  if (!answer.body || status === 304 || request.method === 'HEAD') {
    await answer.body?.cancel()
    finish(plan, { status, bytes: 0, end: 'done' })
    return new Response(null, init)
  }
  const pipe = createPipe(length === null ? null : Number(length))
  context.waitUntil(
    pump(answer.body, pipe.writable, {}).then(({ end, bytes }) =>
      finish(plan, { status, bytes, end: end === 'done' ? 'done' : 'client_gone' }),
    ),
  )
  return new Response(pipe.readable, init)
}

/** The file, a folder's index.html, or the index that stands in for an SPA's pages. */
async function find(plan: FilesPlan, assets: Fetcher): Promise<{ answer: Response; name: string } | undefined> {
  const folder = toAssetFolder(plan.files.root)
  if (folder === undefined) return undefined
  const path = decodeURIComponent(plan.path)
  const names = [path, `${path.replace(/\/$/, '')}/index.html`]
  if (plan.files.spa && isNavigation(plan.exchange)) names.push('/index.html')
  for (const name of names) {
    if (name.endsWith('/') || !isServable(name)) continue
    const url = `http://assets${encodePath(folder + name)}`
    const answer = await assets.fetch(url, { method: plan.exchange.method, redirect: 'manual' })
    if (answer.status === 200) return { answer, name }
    await answer.body?.cancel()
  }
  return undefined
}

/** As the binding itself writes paths: otherwise it redirects to its own spelling. */
const encodePath = (path: string): string => path.split('/').map(encodeURIComponent).join('/')
