import { opendir, readFile, stat } from 'node:fs/promises'
import { isHashed, isServable } from '../actions/files.ts'
import { limits } from '../limits.ts'
import { createHeldAsset, release } from './asset.ts'
import type { Asset } from './asset.ts'
import type { Memories } from './folder.ts'

/** Files with a hash in their names, of a folder's builds: a page that was loaded from an earlier one asks for its own. */
export interface Releases {
  find(name: string): Asset | undefined
  /** Reads what the build in this folder has of them. */
  scan(root: string): void
  /** Lets go of all of them. */
  close(): void
}

interface Held {
  body: Buffer
  modifiedMs: number
  /** The last build that had it. */
  build: number
  asset: Asset | undefined
}

interface Listed {
  name: string
  size: number
  modifiedMs: number
}

/** Holds those of the current build and of `keep` before it, as far as memory goes. */
export function createReleases(keep: number, memories: Memories): Releases {
  const held = new Map<string, Held>()
  let build = 0
  let scanning = Promise.resolve()

  function find(name: string): Asset | undefined {
    const entry = held.get(name)
    if (entry) entry.asset ??= createHeldAsset(name, entry.modifiedMs, (one) => held.get(one)?.body, memories.assets)
    return entry?.asset
  }

  async function readBuild(root: string): Promise<void> {
    const listed = await listHashed(root)
    const current = [...held.values()].filter((entry) => entry.build === build).length
    if (listed.length === current && listed.every(({ name }) => held.get(name)?.build === build)) return
    build++
    for (const one of listed) {
      const known = held.get(one.name)
      if (known) known.build = build
      else await hold(root, one)
    }
    for (const [name, entry] of held) if (entry.build < build - keep) drop(name, entry)
  }

  async function hold(root: string, { name, size, modifiedMs }: Listed): Promise<void> {
    makeRoom(size)
    if (size > memories.releases.left) return
    // It may just be taken away.
    const body = await readFile(root + name).catch(() => undefined)
    if (!body || body.length > memories.releases.left) return
    memories.releases.left -= body.length
    held.set(name, { body, modifiedMs, build, asset: undefined })
  }

  /** The oldest build goes first; the current one stays. */
  function makeRoom(size: number): void {
    if (size <= memories.releases.left || size > limits.releaseMemoryBytesMax) return
    const old = [...held].filter(([, entry]) => entry.build < build).sort(([, a], [, b]) => a.build - b.build)
    for (const [name, entry] of old) {
      if (size <= memories.releases.left) return
      drop(name, entry)
    }
  }

  function drop(name: string, { body, asset }: Held): void {
    held.delete(name)
    memories.releases.left += body.length
    if (asset) release(asset, memories.assets)
  }

  let closed = false

  return {
    find,
    scan(root) {
      if (!closed) scanning = scanning.then(() => readBuild(root)).catch(() => {})
    },
    close() {
      closed = true
      scanning = scanning.finally(() => {
        for (const [name, entry] of held) drop(name, entry)
      })
    },
  }
}

/** The small ones first: of those, most pages need many. */
async function listHashed(root: string): Promise<Listed[]> {
  const found: Listed[] = []
  const folders = ['']
  let seen = 0
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop())
    for await (const entry of await opendir(root + folder)) {
      if (++seen > limits.releaseFilesMax) return found
      const name = `${folder}/${entry.name}`
      if (!isServable(name)) continue
      if (entry.isDirectory()) folders.push(name)
      if (!entry.isFile() || !isHashed(name)) continue
      const { size, mtimeMs } = await stat(root + name)
      found.push({ name, size, modifiedMs: mtimeMs })
    }
  return found.sort((a, b) => a.size - b.size)
}
