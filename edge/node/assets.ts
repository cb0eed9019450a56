import { closeSync, fstatSync, openSync } from 'node:fs'
import { chooseCoding } from '../actions/encoding.ts'
import { fitsRange, isFresh, isNavigation, isServable, readConditions } from '../actions/files.ts'
import type { Conditions } from '../actions/files.ts'
import { toClientHeaders } from '../actions/headers.ts'
import { readRange } from '../actions/range.ts'
import type { ByteRange } from '../actions/range.ts'
import type { CompiledFiles } from '../compile.ts'
import type { Refusal } from '../error.ts'
import { refuse } from '../gateway.ts'
import { limits } from '../limits.ts'
import type { FilesPlan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import { isUnread, sendAnswer } from './answer.ts'
import { holdSoon, toFileHeaders, toVersion } from './asset.ts'
import type { Asset, Representation } from './asset.ts'
import type { Finish, NodeIo } from './exchange-io.ts'
import { createFolder } from './folder.ts'
import type { Folder, Memories } from './folder.ts'
import { lingerOnClose } from './linger.ts'
import { sendOpenFile } from './open-file.ts'

export interface Assets {
  send(plan: FilesPlan, io: NodeIo, finish: Finish): void
  /** Only these folders are served from now on, and what is on disk is looked at again. */
  keep(folders: CompiledFiles[]): void
}

/**
 * Files of the folders that tables name. A file is read when it is first asked for and held in memory within a budget.
 * Paths come in canonical form, dotfiles are not served, and what a link leads to must lie in the folder.
 */
export function createAssets(now: () => number = () => performance.now()): Assets {
  const folders = new Map<string, Folder>()
  const memories: Memories = {
    assets: { left: limits.assetMemoryBytesMax },
    releases: { left: limits.releaseMemoryBytesMax },
  }

  function find({ files, path, exchange }: FilesPlan): Asset | undefined {
    const name = path.includes('%') ? decodeURIComponent(path) : path
    const folder = folderOf(files)
    const look = (one: string): Asset | undefined => (isServable(one) ? folder.look(one) : undefined)
    const asset = name.endsWith('/') ? undefined : look(name)
    return (
      asset ??
      look(`${name.replace(/\/$/, '')}/index.html`) ??
      (files.spa && isNavigation(exchange) ? look('/index.html') : undefined)
    )
  }

  /** Rows that name the same folder share what is held of it. */
  function folderOf(files: CompiledFiles): Folder {
    const key = toKey(files)
    const { root, releases } = files
    const known = folders.get(key)
    if (known) return known
    const folder = createFolder(root, releases, memories, now)
    folders.set(key, folder)
    return folder
  }

  function send(plan: FilesPlan, io: NodeIo, finish: Finish): void {
    const conditions = readConditions(plan.exchange.headers)
    // A file that is replaced between being looked at and being opened is looked at again.
    for (let attempt = 0; attempt < 3; attempt++) {
      const asset = find(plan)
      if (!asset) break
      const answer = toFileAnswer(plan, asset, conditions)
      if ('refusal' in answer) return sendRefusal(plan, answer.refusal, io, finish)
      const source = answer.bodiless ? undefined : openBody(answer)
      if (typeof source === 'number') holdSoon(asset, answer.representation, memories.assets)
      if (answer.bodiless || source !== undefined) return sendFile(plan, answer, source, io, finish)
      asset.checkedAt = -Infinity
    }
    sendRefusal(plan, noFile, io, finish)
  }

  function keep(kept: CompiledFiles[]): void {
    const keys = new Set(kept.map(toKey))
    for (const [key, folder] of folders)
      if (keys.has(key)) folder.lookAgain()
      else {
        folder.close()
        folders.delete(key)
      }
  }

  return { send, keep }
}

const toKey = ({ root, releases }: CompiledFiles): string => `${releases} ${root}`

const noFile: Refusal = { code: 'not_found', detail: 'there is no such file' }

function sendRefusal(plan: FilesPlan, refusal: Refusal, io: NodeIo, finish: Finish): void {
  sendAnswer(refuse(plan.exchange, refusal), io, finish, { refusal }, plan)
}

interface FileAnswer {
  status: 200 | 206 | 304
  representation: Representation
  /** Flat, without the row's edits. */
  headers: string[]
  range: ByteRange | undefined
  /** Of the body, also where it is not sent. */
  length: number
  bodiless: boolean
}

/** Which form of the file, and how much of it (RFC 9110 §13.2.2: what the client has counts before what it wants). */
function toFileAnswer(
  { files, exchange }: FilesPlan,
  asset: Asset,
  conditions: Conditions,
): FileAnswer | { refusal: Refusal } {
  const representation = asset.varies ? choose(asset, conditions) : asset.own
  const { size, etag } = representation
  const headers = toFileHeaders(asset, representation, files)
  const common = { representation, range: undefined, length: size }
  if (isFresh(conditions, etag, asset.modifiedMs)) return { ...common, status: 304, headers, bodiless: true }
  const asked = exchange.method === 'GET' && conditions.range !== undefined && fitsRange(conditions, etag)
  const range = asked ? readRange(conditions.range ?? '', size) : 'whole'
  if (range === 'unsatisfiable') return { refusal: toUnsatisfiable(size) }
  if (range === 'whole')
    return {
      ...common,
      status: 200,
      headers: [...headers, 'Content-Length', String(size)],
      bodiless: exchange.method === 'HEAD',
    }
  const { start, end } = range
  const length = end - start + 1
  const part = ['Content-Range', `bytes ${start}-${end}/${size}`, 'Content-Length', String(length)]
  return { ...common, status: 206, headers: [...headers, ...part], range, length, bodiless: false }
}

/** Whoever takes none of the forms gets the file as it is stored: better than nothing. */
function choose({ codings, representations, own }: Asset, { encodings }: Conditions): Representation {
  const coding = chooseCoding(encodings, codings)
  return representations.find((one) => one.coding === coding) ?? own
}

const toUnsatisfiable = (size: number): Refusal => ({
  code: 'range_not_satisfiable',
  detail: `the file has ${size} bytes`,
  headers: ['Content-Range', `bytes */${size}`],
})

const empty = Buffer.alloc(0)

/** The bytes, or an open file; undefined when the file is not the one that was looked at. */
function openBody({ representation, range }: FileAnswer): Buffer | number | undefined {
  const { body, file, etag, size } = representation
  if (size === 0) return empty
  if (body) return range ? body.subarray(range.start, range.end + 1) : body
  try {
    const descriptor = openSync(file, 'r')
    const stat = fstatSync(descriptor)
    if (stat.size === size && etag.startsWith(`"${toVersion(stat)}`)) return descriptor
    closeSync(descriptor)
  } catch {
    // Gone, or not readable any more.
  }
  return undefined
}

function sendFile(
  plan: FilesPlan,
  { status, headers, range, length, bodiless }: FileAnswer,
  source: Buffer | number | undefined,
  io: NodeIo,
  finish: Finish,
): void {
  const { request, response } = io
  let end: Outcome['end'] = 'done'
  let sent: number | undefined
  response.once('close', () => {
    const whole = response.writableFinished
    if (!whole && end === 'done') end = io.stalled ? 'stalled' : 'client_gone'
    finish(plan, { status, bytes: sent ?? (whole && !bodiless ? length : 0), end })
  })
  if (isUnread(request, plan.exchange)) {
    response.shouldKeepAlive = false
    lingerOnClose(request)
  }
  response.writeHead(status, toClientHeaders(plan.exchange, plan.response, status, headers))
  if (typeof source !== 'number') return void response.end(source)
  sent = 0
  sendOpenFile({ descriptor: source, start: range?.start ?? 0, length }, response, (bytes, isShort) => {
    sent = bytes
    if (bytes === length) return void response.end()
    // What was promised cannot be kept, and the client must see that.
    if (isShort) end = 'upstream_cut'
    response.destroy()
  })
}
