import { realpathSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { loadAsset, release, toVersion } from './asset.ts'
import type { Asset, Memory } from './asset.ts'
import { createReleases } from './releases.ts'

/** A folder that a table names, as it is now and, for files with a hash in their names, as it was. */
export interface Folder {
  /** The file at a path below the folder. */
  look(name: string): Asset | undefined
  /** What the disk has is not taken as known any more. */
  lookAgain(): void
  /** Lets go of what is held of it. */
  close(): void
}

export interface Memories {
  /** Files of the builds that are served. */
  assets: Memory
  /** Files of earlier ones. */
  releases: Memory
}

/** What the folder's path leads to until it is switched: a link to another folder, another folder of the name. */
interface Build {
  real: string
  version: string
  /** index.html, by which a build that is written over the last one is noticed. */
  index: string
  assets: Map<string, Asset>
}

/**
 * The disk is asked at most once a second, for the folder and for each file. When the path leads to another folder, the
 * new build begins at once for all files: nothing that was read of the one is served with what was read of the other.
 */
export function createFolder(path: string, keep: number, memories: Memories, now: () => number): Folder {
  const root = resolve(path)
  const releases = keep > 0 ? createReleases(keep, memories) : undefined
  let build: Build | undefined
  let checkedAt = -Infinity
  /** Since when the path has led nowhere, though it did. */
  let goneAt: number | undefined

  function look(name: string): Asset | undefined {
    const at = now()
    if (at - checkedAt >= lookEveryMs) renew(at)
    const known = build?.assets.get(name)
    if (known && at - known.checkedAt < lookEveryMs) return known
    return read(name, at)
  }

  /** What is read may already be of the next build: then that begins, and the file is looked for there. */
  function read(name: string, at: number, attempts = 2): Asset | undefined {
    const known = build?.assets.get(name)
    const asset = build && loadAsset(build.real, name, known, memories.assets)
    if (asset !== known || !asset)
      if (renew(at) && attempts > 0) {
        if (asset && asset !== known) release(asset, memories.assets)
        return read(name, at, attempts - 1)
      }
    if (!asset && known && goneAt !== undefined) return known
    if (known && asset !== known) release(known, memories.assets)
    if (!asset) build?.assets.delete(name)
    if (!asset || !build) return releases?.find(name)
    asset.checkedAt = at
    build.assets.set(name, asset)
    return asset
  }

  /** Whether another build has begun. */
  function renew(at: number): boolean {
    checkedAt = at
    const current = readBuild(root)
    const before = build
    if (current && before && current.real === before.real && current.version === before.version) {
      goneAt = undefined
      if (current.index !== before.index) releases?.scan(current.real)
      before.index = current.index
      return false
    }
    goneAt = current || !before ? undefined : (goneAt ?? at)
    // One folder was moved away and the other is about to come: what is in memory goes on until then.
    if (goneAt !== undefined && at - goneAt < graceMs) return false
    if (!current && !before) return false
    for (const asset of before?.assets.values() ?? []) release(asset, memories.assets)
    build = current
    if (current) releases?.scan(current.real)
    return true
  }

  function lookAgain(): void {
    checkedAt = -Infinity
    for (const asset of build?.assets.values() ?? []) asset.checkedAt = -Infinity
  }

  function close(): void {
    for (const asset of build?.assets.values() ?? []) release(asset, memories.assets)
    build?.assets.clear()
    releases?.close()
  }

  return { look, lookAgain, close }
}

const lookEveryMs = 1_000
const graceMs = 2_000

function readBuild(root: string): Build | undefined {
  try {
    const real = realpathSync.native(root)
    const { dev, ino } = statSync(real)
    const index = statSync(join(real, 'index.html'), { throwIfNoEntry: false })
    return { real, version: `${dev} ${ino}`, index: index ? toVersion(index) : '', assets: new Map() }
  } catch {
    // Not there yet, or just being switched.
    return undefined
  }
}
