import { createHash } from 'node:crypto'
import { createReadStream, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { extname, join, relative, resolve, sep } from 'node:path'
import { pipeline } from 'node:stream'
import { lookup } from 'mrmime'
import { isNavigation, toAssetHeaders } from '../actions/files.ts'
import { toClientHeaders } from '../actions/headers.ts'
import type { CompiledFiles } from '../compile.ts'
import { refuse } from '../gateway.ts'
import { limits } from '../limits.ts'
import type { FilesPlan } from '../plan.ts'
import { sendAnswer } from './answer.ts'
import type { Finish, NodeIo } from './exchange-io.ts'

export interface Assets {
  send(plan: FilesPlan, io: NodeIo, finish: Finish): void
}

interface Asset {
  file: string
  size: number
  /** Flat, without the row's edits. */
  headers: string[]
  etag: string
  /** Held in memory, or read as it is sent. */
  body: Buffer | undefined
}

/**
 * Files of the folders that tables name. A folder is read once into a table of what may be asked for, so a path can only
 * ever name a file that was there: dotfiles and links out of the folder are not.
 */
export function createAssets(): Assets {
  const folders = new Map<CompiledFiles, Map<string, Asset>>()
  const memory = { left: limits.assetMemoryBytesMax as number }

  function find({ files, path, exchange }: FilesPlan): Asset | undefined {
    let folder = folders.get(files)
    if (!folder) {
      folder = readFolder(files, memory)
      folders.set(files, folder)
    }
    const name = readName(path)
    const asset = folder.get(name) ?? folder.get(`${name.replace(/\/$/, '')}/index.html`)
    return asset ?? (files.spa && isNavigation(exchange) ? folder.get('/index.html') : undefined)
  }

  function send(plan: FilesPlan, io: NodeIo, finish: Finish): void {
    const asset = find(plan)
    if (!asset) {
      const refusal = { code: 'not_found', detail: 'there is no such file' } as const
      return sendAnswer(refuse(plan.exchange, refusal), io, finish, { refusal }, plan)
    }
    sendAsset(plan, asset, io, finish)
  }

  return { send }
}

function sendAsset(plan: FilesPlan, asset: Asset, { request, response }: NodeIo, finish: Finish): void {
  const fresh = isFresh(request.headers['if-none-match'], asset.etag)
  const status = fresh ? 304 : 200
  const bodiless = fresh || plan.exchange.method === 'HEAD'
  const own = fresh ? asset.headers : [...asset.headers, 'Content-Length', String(asset.size)]
  response.once('close', () => {
    const end = response.writableFinished ? 'done' : 'client_gone'
    finish(plan, { status, bytes: bodiless ? 0 : asset.size, end })
  })
  response.writeHead(status, toClientHeaders(plan.exchange, plan.response, status, own))
  if (bodiless) return void response.end()
  if (asset.body) return void response.end(asset.body)
  pipeline(createReadStream(asset.file), response, () => {})
}

/** RFC 9110 §13.1.2: compared weakly. */
const isFresh = (ifNoneMatch: string | undefined, etag: string): boolean =>
  ifNoneMatch !== undefined &&
  (ifNoneMatch.trim() === '*' || ifNoneMatch.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag))

/** The path was read strictly: what is left of its escapes names characters. */
const readName = (path: string): string => (path.includes('%') ? decodeURIComponent(path) : path)

function readFolder(files: CompiledFiles, memory: { left: number }): Map<string, Asset> {
  const assets = new Map<string, Asset>()
  const root = resolve(files.root)
  for (const file of listFiles(root)) {
    const name = `/${relative(root, file).split(sep).join('/')}`
    const asset = readAsset(file, name, files, memory)
    if (asset) assets.set(name, asset)
  }
  return assets
}

function listFiles(root: string): string[] {
  try {
    const entries = readdirSync(root, { recursive: true, withFileTypes: true })
    const inside = realpathSync(root) + sep
    return entries
      .filter((entry) => !entry.isDirectory() && !isHidden(relative(root, join(entry.parentPath, entry.name))))
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((file) => realpathOf(file)?.startsWith(inside))
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw error
  }
}

const isHidden = (path: string): boolean => path.split(sep).some((segment) => segment.startsWith('.'))

function realpathOf(file: string): string | undefined {
  try {
    return realpathSync(file)
  } catch {
    return undefined
  }
}

function readAsset(file: string, name: string, files: CompiledFiles, memory: { left: number }): Asset | undefined {
  const stat = statSync(file)
  if (!stat.isFile()) return undefined
  const held = stat.size <= limits.assetBytesMax && stat.size <= memory.left
  const body = held ? readFileSync(file) : undefined
  if (body) memory.left -= stat.size
  const etag = toEtag(body, stat)
  const headers = [
    ...toAssetHeaders(files, name, toType(file)),
    'ETag',
    etag,
    'Last-Modified',
    stat.mtime.toUTCString(),
  ]
  return { file, size: stat.size, headers, etag, body }
}

const toType = (file: string): string => lookup(extname(file)) ?? 'application/octet-stream'

/** Of the content where it is held, else of size and time. */
const toEtag = (body: Buffer | undefined, stat: Stats): string =>
  `"${body ? createHash('sha256').update(body).digest('base64url').slice(0, 27) : `${stat.size.toString(36)}-${stat.mtimeMs.toString(36)}`}"`
