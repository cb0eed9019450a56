import { createHash, createPrivateKey, createPublicKey } from 'node:crypto'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createKeys, toKeyText } from './issue-certificate.ts'
import type { Issued, KeyPair } from './issue-certificate.ts'
import { publishFolder, replaceFile } from './publish-folder.ts'

/** What ACME keeps below the certificates' folder, and hands to other processes by that. */
export interface AcmeFiles {
  /** The key of the account at a directory; a new one when there is none. `unsaved`: why it could not be kept. */
  openAccount(directory: string): Promise<{ keys: KeyPair; unsaved: string | undefined }>
  /** Puts a certificate into `issued/<name>/`, and which directory it came from. */
  save(name: string, issued: Issued, directory: string): Promise<void>
  /** Which directory the certificate in `issued/<name>/` came from. */
  readOrigin(name: string): Promise<string | undefined>
  /** What answers a challenge: held here, and in the file that other processes, or certbot, look for. */
  publish(token: string, text: string | undefined): Promise<void>
  find(token: string): string | Promise<string | undefined>
  /** The folder for the lock. */
  prepare(): Promise<string>
}

export function createAcmeFiles(folder: string): AcmeFiles {
  const challenges = join(folder, 'acme', '.well-known', 'acme-challenge')
  const open = new Map<string, string>()

  async function openAccount(directory: string): Promise<{ keys: KeyPair; unsaved: string | undefined }> {
    const mark = createHash('sha256').update(directory).digest('hex').slice(0, 8)
    const path = join(folder, 'accounts', `${new URL(directory).hostname}-${mark}.pem`)
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (toCode(error) === 'ENOENT' || toCode(error) === 'ENOTDIR') return undefined
      throw error
    })
    if (text !== undefined) {
      const privateKey = createPrivateKey(text)
      return { keys: { privateKey, publicKey: createPublicKey(privateKey) }, unsaved: undefined }
    }
    const keys = createKeys()
    try {
      await mkdir(join(folder, 'accounts'), { recursive: true, mode: 0o700 })
      await replaceFile(path, toKeyText(keys.privateKey), 0o600)
      return { keys, unsaved: undefined }
    } catch (error) {
      return { keys, unsaved: toCode(error) }
    }
  }

  const save = (name: string, { certificate, key }: Issued, directory: string): Promise<void> =>
    publishFolder(join(folder, 'issued'), name, {
      'fullchain.pem': { text: certificate, mode: 0o644 },
      'privkey.pem': { text: key, mode: 0o600 },
      origin: { text: `${directory}\n`, mode: 0o644 },
    })

  async function publish(token: string, text: string | undefined): Promise<void> {
    const path = join(challenges, token)
    if (text === undefined) {
      open.delete(token)
      return rm(path, { force: true }).catch(() => {})
    }
    open.set(token, text)
    // Where there is no room for it, this process can still answer.
    await mkdir(challenges, { recursive: true })
      .then(() => replaceFile(path, text, 0o644))
      .catch(() => {})
  }

  return {
    openAccount,
    save,
    readOrigin: (name) =>
      readFile(join(folder, 'issued', name, 'origin'), 'utf8').then(
        (text) => text.trim(),
        () => undefined,
      ),
    publish,
    find: (token) => open.get(token) ?? readFile(join(challenges, token), 'utf8').catch(() => undefined),
    prepare: async () => {
      await mkdir(join(folder, 'accounts'), { recursive: true, mode: 0o700 })
      return join(folder, 'accounts')
    },
  }
}

export const toCode = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : error instanceof Error ? error.message : 'unknown'
