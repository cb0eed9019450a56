import { createHash } from 'node:crypto'
import { readFileSync, realpathSync, statSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { open } from 'node:fs/promises'
import { sep } from 'node:path'
import { readStored, toAssetHeaders } from '../actions/files.ts'
import { isCompressible } from '../actions/encoding.ts'
import type { Coding } from '../actions/encoding.ts'
import type { CompiledFiles } from '../compile.ts'
import { limits } from '../limits.ts'
import { compressLater } from './compress-later.ts'

/** A file of a folder in the codings that there are of it. */
export interface Asset {
  name: string
  /** The file itself: what is sent to whoever takes none of the codings. */
  own: Representation
  /** The best first; `own` is one. */
  representations: Representation[]
  codings: Coding[]
  /** Whether the answer depends on Accept-Encoding, now or in a moment. */
  varies: boolean
  modifiedMs: number
  /** Of all files it was made from; changes with any of them. */
  fingerprint: string
  /** When the disk was last asked, on the monotonic clock. */
  checkedAt: number
}

export interface Representation {
  coding: Coding
  etag: string
  size: number
  /** Held in memory, or read as it is sent. */
  body: Buffer | undefined
  /** Whether the body is part of what `Memory` counts. */
  counted: boolean
  /** How often it was read from the disk to be sent. */
  reads: number
  /** Empty when it is on no disk, or not any more. */
  file: string
  /** Flat, without the row's edits. */
  headers: Map<CompiledFiles, string[]>
}

/** What may still be held. */
export interface Memory {
  left: number
}

interface Found {
  coding: Coding
  file: string
  stat: Stats
}

/** The file as it is now; `known` itself when nothing of it has changed, undefined when there is none to be served. */
export function loadAsset(root: string, name: string, known: Asset | undefined, memory: Memory): Asset | undefined {
  const own = find(root, name, readStored(name).coding)
  if (!own) return undefined
  const found = [own, ...findEncoded(root, name, own)]
  const fingerprint = found.map(({ coding, stat }) => `${coding} ${toVersion(stat)}`).join()
  if (known?.fingerprint === fingerprint) return known
  const representations = found.map((one) => toRepresentation(one, memory))
  return createAsset(name, representations, own.stat.mtimeMs, fingerprint, memory)
}

/** A file that is only in memory, with its encoded forms where they are too. */
export function createHeldAsset(
  name: string,
  modifiedMs: number,
  read: (name: string) => Buffer | undefined,
  memory: Memory,
): Asset | undefined {
  const { coding: stored } = readStored(name)
  const forms: [Coding, string][] = [
    [stored, name],
    ...endings.map(([coding, ending]) => [coding, name + ending] as [Coding, string]),
  ]
  const representations = forms.flatMap(([coding, one]): Representation[] => {
    const body = read(one)
    return body
      ? [
          {
            coding,
            etag: toEtag(body, coding),
            size: body.length,
            body,
            counted: false,
            reads: 0,
            file: '',
            headers: new Map(),
          },
        ]
      : []
  })
  return representations[0] && createAsset(name, representations, modifiedMs, '', memory)
}

function createAsset(
  name: string,
  found: Representation[],
  modifiedMs: number,
  fingerprint: string,
  memory: Memory,
): Asset {
  const own = found[0] as Representation
  const missing = findMissing(name, own, found)
  const asset: Asset = {
    name,
    own,
    representations: [],
    codings: [],
    varies: found.length + missing.length > 1,
    modifiedMs,
    fingerprint,
    checkedAt: 0,
  }
  takeOver(asset, found)
  for (const coding of missing) encode(asset, coding, memory)
  return asset
}

/** Those who ask for it meanwhile get it plain. */
function encode(asset: Asset, coding: 'br' | 'gzip', memory: Memory): void {
  const { body } = asset.own
  if (!body) return
  compressLater(coding, body, (encoded) => {
    if (asset.checkedAt === gone || encoded.length >= body.length || encoded.length > memory.left) return
    memory.left -= encoded.length
    const etag = toEtag(encoded, coding)
    takeOver(asset, [
      ...asset.representations,
      { coding, etag, size: encoded.length, body: encoded, counted: true, reads: 0, file: '', headers: new Map() },
    ])
  })
}

function takeOver(asset: Asset, representations: Representation[]): void {
  asset.representations = order.flatMap((coding) => representations.filter((one) => one.coding === coding))
  asset.codings = asset.representations.map(({ coding }) => coding)
}

/** Smallest first, as a rule. */
const order: Coding[] = ['br', 'zstd', 'gzip', 'identity']

/** Gives back what it holds, for it will not be sent again. */
export function release(asset: Asset, memory: Memory): void {
  if (asset.checkedAt === gone) return
  asset.checkedAt = gone
  for (const { body, counted } of asset.representations) if (body && counted) memory.left += body.length
}

const gone = Infinity

/** Holds a larger file too once it was asked for again and again, if there is room for it. */
export function holdSoon(asset: Asset, representation: Representation, memory: Memory): void {
  const { size, file } = representation
  if (++representation.reads !== readsUntilHeld || size > limits.assetHotBytesMax || size > memory.left) return
  memory.left -= size
  void hold()

  async function hold(): Promise<void> {
    const body = await readWhole(file, representation).catch(() => undefined)
    if (body && asset.checkedAt !== gone) representation.body = body
    else memory.left += size
  }
}

const readsUntilHeld = 3

/** The file, if it is the one that was looked at and stays it while it is read. */
async function readWhole(file: string, { size, etag }: Representation): Promise<Buffer | undefined> {
  const handle = await open(file)
  try {
    const body = Buffer.allocUnsafeSlow(size)
    for (let at = 0; at < size;) {
      const { bytesRead } = await handle.read(body, at, Math.min(readBytes, size - at), at)
      if (bytesRead === 0) return undefined
      at += bytesRead
    }
    return etag.startsWith(`"${toVersion(await handle.stat())}`) ? body : undefined
  } finally {
    await handle.close()
  }
}

const readBytes = 1_048_576

/** What a row's answers with it carry, without the row's edits. */
export function toFileHeaders(asset: Asset, representation: Representation, files: CompiledFiles): string[] {
  const known = representation.headers.get(files)
  if (known) return known
  const headers = toAssetHeaders(files, asset.name, representation.coding)
  if (asset.varies) headers.push('Vary', 'Accept-Encoding')
  headers.push('ETag', representation.etag, 'Last-Modified', new Date(asset.modifiedMs).toUTCString())
  headers.push('Accept-Ranges', 'bytes')
  representation.headers.set(files, headers)
  return headers
}

/** A regular file that lies in the folder also when all links are followed. `root` is followed already. */
function find(root: string, name: string, coding: Coding): Found | undefined {
  const file = root + name.split('/').join(sep)
  const stat = statOf(file)
  return stat?.isFile() && isInside(file, root) ? { coding, file, stat } : undefined
}

function isInside(file: string, root: string): boolean {
  try {
    return realpathSync.native(file).startsWith(root + sep)
  } catch {
    return false
  }
}

function statOf(file: string): Stats | undefined {
  try {
    return statSync(file, { throwIfNoEntry: false })
  } catch {
    // Not readable, or a name that no file can have: there is no such file.
    return undefined
  }
}

const endings: [Coding, string][] = [
  ['br', '.br'],
  ['zstd', '.zst'],
  ['gzip', '.gz'],
]

/** The same content in other codings, beside the file. One that is older than the file is of an earlier one. */
function findEncoded(root: string, name: string, own: Found): Found[] {
  const { base } = readStored(name)
  if (base === name && endings.some(([, ending]) => name.endsWith(ending))) return []
  const others: [Coding, string][] = base === name ? endings : [['identity', ''], ...endings]
  return others.flatMap(([coding, ending]) => {
    const found = coding === own.coding ? undefined : find(root, base + ending, coding)
    if (!found || found.stat.size === 0) return []
    return base === name && toSeconds(found.stat) < toSeconds(own.stat) ? [] : [found]
  })
}

const toSeconds = ({ mtimeMs }: Stats): number => Math.floor(mtimeMs / 1_000)

function toRepresentation({ coding, file, stat }: Found, memory: Memory): Representation {
  const held = stat.size <= limits.assetBytesMax && stat.size <= memory.left
  const body = held ? readFileSync(file) : undefined
  if (body) memory.left -= body.length
  const etag = body ? toEtag(body, coding) : `"${toVersion(stat)}${toEnding(coding)}"`
  return { coding, etag, size: body?.length ?? stat.size, body, counted: true, reads: 0, file, headers: new Map() }
}

const toEtag = (body: Buffer, coding: Coding): string =>
  `"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}${toEnding(coding)}"`

const toEnding = (coding: Coding): string => (coding === 'identity' ? '' : `-${coding}`)

/** Two files that differ never have the same: a build may give all its files one time, but not one inode and change. */
export const toVersion = ({ size, mtimeMs, ctimeMs, ino }: Stats): string =>
  [size, mtimeMs, ctimeMs, ino].map((part) => part.toString(36)).join('-')

/** The codings that a text in memory is worth being brought into. */
function findMissing(name: string, own: Representation, found: Representation[]): ('br' | 'gzip')[] {
  if (own.coding !== 'identity' || !own.body || own.size < limits.compressBytesMin) return []
  if (!isCompressible(readStored(name).type)) return []
  return (['br', 'gzip'] as const).filter((coding) => !found.some((one) => one.coding === coding))
}
