import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, readlink, rename, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'

/** What is written, and who may read it. */
export interface PublishedFile {
  text: string
  mode: number
}

/**
 * Puts files where `parent/name/` stands, all of them in one step: they are written into a folder of their own, and
 * the name, a symbolic link, is then made to point to it. Whoever reads through the link, now or after a power cut, has
 * the files from before or these, and no mixture. The folder from before stays for those who are reading it.
 */
export async function publishFolder(parent: string, name: string, files: Record<string, PublishedFile>): Promise<void> {
  await mkdir(parent, { recursive: true })
  const version = `.${name}-${randomBytes(6).toString('hex')}`
  const before = await readlink(join(parent, name)).catch(() => undefined)
  try {
    await mkdir(join(parent, version), { mode: 0o700 })
    for (const [file, { text, mode }] of Object.entries(files))
      await writeThrough(join(parent, version, file), text, mode)
    await syncFolder(join(parent, version))
    await symlink(version, join(parent, `${version}.link`), 'junction')
    await replace(join(parent, `${version}.link`), join(parent, name))
    await syncFolder(parent)
  } catch (error) {
    await removeVersions(parent, name, (one) => one.startsWith(version)).catch(() => {})
    throw error
  }
  await removeVersions(parent, name, (one) => !one.startsWith(version) && one !== before).catch(() => {})
}

/** Puts a file's new content in the place of the old in one step, and resolves when a power cut cannot undo that. */
export async function replaceFile(path: string, text: string, mode: number): Promise<void> {
  const next = `${path}.${randomBytes(6).toString('hex')}`
  try {
    await writeThrough(next, text, mode)
    await rename(next, path)
    await syncFolder(join(path, '..'))
  } catch (error) {
    await rm(next, { force: true }).catch(() => {})
    throw error
  }
}

async function writeThrough(path: string, text: string, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** What a folder lists is on the disk only when the folder itself is; Windows has no such call and does so by itself. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const folder = await open(path)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function replace(link: string, name: string): Promise<void> {
  // There a link to a folder is a folder, which nothing can be renamed to.
  if (process.platform === 'win32') await rm(name, { force: true, recursive: true })
  await rename(link, name)
}

async function removeVersions(parent: string, name: string, isOld: (version: string) => boolean): Promise<void> {
  const own = new RegExp(`^\\.${name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}-[0-9a-f]{12}(\\.link)?$`)
  for (const entry of await readdir(parent))
    if (own.test(entry) && isOld(entry)) await rm(join(parent, entry), { recursive: true, force: true })
}
