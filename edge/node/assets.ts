import { createHash } from 'node:crypto'
import { createReadStream, readFileSync, realpathSync, statSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { extname, resolve, sep } from 'node:path'
import { isFresh, isNavigation, isServable, toAssetHeaders, toAssetType } from '../actions/files.ts'
import { toClientHeaders } from '../actions/headers.ts'
import type { CompiledFiles } from '../compile.ts'
import { refuse } from '../gateway.ts'
import { limits } from '../limits.ts'
import type { FilesPlan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import { isUnread, sendAnswer } from './answer.ts'
import type { Finish, NodeIo } from './exchange-io.ts'
import { lingerOnClose } from './linger.ts'

export interface Assets {
  send(plan: FilesPlan, io: NodeIo, finish: Finish): void
}

interface Asset {
  file: string
  size: number
  modifiedMs: number
  /** Flat, without the row's edits. */
  headers: string[]
  etag: string
  /** Held in memory, or read as it is sent. */
  body: Buffer | undefined
  /** When the disk was last asked, on the monotonic clock. */
  checkedAt: number
}

/**
 * Files of the folders that tables name. A file is read when it is first asked for and held in memory within a budget;
 * the disk is asked at most once a second whether it has changed. Paths come in canonical form, dotfiles are not
 * served, and what a link leads to must lie in the folder.
 */
export function createAssets(now: () => number = () => performance.now()): Assets {
  const folders = new Map<CompiledFiles, Map<string, Asset>>()
  const memory = { left: limits.assetMemoryBytesMax as number }

  function find({ files, path, exchange }: FilesPlan): Asset | undefined {
    const name = path.includes('%') ? decodeURIComponent(path) : path
    const asset = name.endsWith('/') ? undefined : look(files, name)
    return (
      asset ??
      look(files, `${name.replace(/\/$/, '')}/index.html`) ??
      (files.spa && isNavigation(exchange) ? look(files, '/index.html') : undefined)
    )
  }

  function look(files: CompiledFiles, name: string): Asset | undefined {
    if (!isServable(name)) return undefined
    const folder = folders.get(files) ?? new Map<string, Asset>()
    folders.set(files, folder)
    const known = folder.get(name)
    if (known && now() - known.checkedAt < checkEveryMs) return known
    const current = readAsset(files, name, known, memory, now())
    if (known && current !== known && known.body) memory.left += known.size
    if (current) folder.set(name, current)
    else folder.delete(name)
    return current
  }

  function send(plan: FilesPlan, io: NodeIo, finish: Finish): void {
    const asset = find(plan)
    if (asset) return sendAsset(plan, asset, io, finish)
    const refusal = { code: 'not_found', detail: 'there is no such file' } as const
    sendAnswer(refuse(plan.exchange, refusal), io, finish, { refusal }, plan)
  }

  return { send }
}

const checkEveryMs = 1_000

function sendAsset(plan: FilesPlan, asset: Asset, io: NodeIo, finish: Finish): void {
  const { request, response } = io
  const fresh = isFresh(request.headers['if-none-match'], asset.etag)
  const status = fresh ? 304 : 200
  const bodiless = fresh || plan.exchange.method === 'HEAD'
  const own = fresh ? asset.headers : [...asset.headers, 'Content-Length', String(asset.size)]
  const stream = bodiless || asset.body ? undefined : createReadStream(asset.file, { end: asset.size - 1 })
  let end: Outcome['end'] = 'done'
  response.once('close', () => {
    const whole = response.writableFinished
    if (!whole && end === 'done') end = io.stalled ? 'stalled' : 'client_gone'
    finish(plan, { status, bytes: stream?.bytesRead ?? (whole && !bodiless ? asset.size : 0), end })
  })
  if (isUnread(request, plan.exchange)) {
    response.shouldKeepAlive = false
    lingerOnClose(request)
  }
  response.writeHead(status, toClientHeaders(plan.exchange, plan.response, status, own))
  if (!stream) return void response.end(bodiless ? undefined : asset.body)
  stream.pipe(response, { end: false })
  stream.on('error', () => {})
  response.once('close', () => stream.destroy())
  stream.once('close', () => {
    if (stream.bytesRead === asset.size) return void response.end()
    // The file is shorter than it was: what was promised cannot be kept, and the client must see that.
    if (!response.destroyed) end = 'upstream_cut'
    response.destroy()
  })
}

/** The file as it is now; `known` itself when it has not changed, undefined when there is none that may be served. */
function readAsset(
  files: CompiledFiles,
  name: string,
  known: Asset | undefined,
  memory: { left: number },
  checkedAt: number,
): Asset | undefined {
  const root = resolve(files.root)
  const file = root + name.split('/').join(sep)
  const stat = statFile(file, root)
  if (!stat) return undefined
  if (known && known.size === stat.size && known.modifiedMs === stat.mtimeMs) {
    known.checkedAt = checkedAt
    return known
  }
  const held = stat.size <= limits.assetBytesMax && stat.size <= memory.left
  const body = held ? readFileSync(file) : undefined
  if (body) memory.left -= body.length
  const etag = toEtag(body, stat)
  const headers = [
    ...toAssetHeaders(files, name, toAssetType(extname(file))),
    'ETag',
    etag,
    'Last-Modified',
    stat.mtime.toUTCString(),
  ]
  return { file, size: body?.length ?? stat.size, modifiedMs: stat.mtimeMs, headers, etag, body, checkedAt }
}

/** A regular file that lies in the folder also when all links are followed. */
function statFile(file: string, root: string): Stats | undefined {
  try {
    const stat = statSync(file)
    return stat.isFile() && realpathSync(file).startsWith(realpathSync(root) + sep) ? stat : undefined
  } catch {
    // Not there, not readable, a name no file can have: there is no such file.
    return undefined
  }
}

/** Of the content where it is held, else of size and time. */
const toEtag = (body: Buffer | undefined, stat: Stats): string =>
  `"${body ? createHash('sha256').update(body).digest('base64url').slice(0, 27) : `${stat.size.toString(36)}-${stat.mtimeMs.toString(36)}`}"`
