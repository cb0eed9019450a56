import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { isExpiring } from '../acme-schedule.ts'
import { readAddress } from '../address.ts'

/** A certificate with its chain and key, as they lie in a folder, and what is wrong with them. */
export interface CertificateFiles {
  /** 'certs/live/shop.example'. */
  folder: string
  /** Changes with the files. */
  version: string
  certificate: string
  key: string
  /** Good for these: names and addresses, wildcards with their star. */
  names: string[]
  issuer: string
  /** Milliseconds since the epoch. */
  notBefore: number
  notAfter: number
  fault: string | undefined
}

export interface ReadOptions {
  /** Whether `dev/`, from `daemun certs dev`, is looked at too. */
  development: boolean
  /** A folder with one of these names must be good for it. */
  hosts: string[]
  now: number
  /** What was read before and need not be read again, by folder. */
  known?: Map<string, CertificateFiles>
}

/** As long as nothing is known. */
export const nothing: CertificateFiles = {
  folder: '',
  version: '',
  certificate: '',
  key: '',
  names: [],
  issuer: '',
  notBefore: 0,
  notAfter: 0,
  fault: undefined,
}

/** Every folder in `live/`, `issued/` and `dev/` that has a certificate or should have one. */
export async function readCertificateFiles(directory: string, options: ReadOptions): Promise<CertificateFiles[]> {
  const parts = ['live', 'issued', ...(options.development ? ['dev'] : [])]
  const found: CertificateFiles[] = []
  for (const part of parts) {
    const entries = await readdir(join(directory, part), { withFileTypes: true }).catch(() => [])
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1)))
      if (!entry.name.startsWith('.') && (entry.isDirectory() || entry.isSymbolicLink()))
        found.push(await readOne(join(directory, part, entry.name), entry.name, options))
  }
  return found
}

/** Of those that are good for a host: one that does not end soon, in the folder named so, good for longest. */
export function chooseCertificate(all: CertificateFiles[], host: string, now: number): CertificateFiles | undefined {
  const rank = (files: CertificateFiles): number[] => [
    Number(files.notAfter > now),
    Number(/[/\\](live|issued)[/\\][^/\\]+$/.test(files.folder)),
    Number(!isExpiring(files, now)),
    Number(basename(files.folder) === host),
    files.notAfter,
  ]
  return all
    .filter(({ names }) => isGoodFor(names, host))
    .toSorted((a, b) => {
      const [one, other] = [rank(a), rank(b)]
      const index = one.findIndex((value, at) => value !== other[at])
      return index === -1 ? 0 : (other[index] ?? 0) - (one[index] ?? 0)
    })[0]
}

/** RFC 9525 §6.3: a star stands for one whole label, the first. */
const isGoodFor = (names: string[], host: string): boolean =>
  names.includes(host) || (!host.startsWith('*') && names.includes(`*${host.slice(host.indexOf('.'))}`))

async function readOne(folder: string, name: string, { hosts, now, known }: ReadOptions): Promise<CertificateFiles> {
  const before = known?.get(folder)
  const files = { ...nothing, folder }
  try {
    // Where the folder is a link, both files are read from behind the same one, should it be replaced meanwhile.
    const real = await realpath(folder)
    const paths = [join(real, 'fullchain.pem'), join(real, 'privkey.pem')] as const
    const stats = await Promise.all(paths.map((path) => stat(path)))
    files.version = stats.map(({ mtimeMs, size, ino }) => `${mtimeMs}-${size}-${ino}`).join(' ')
    if (before?.version === files.version) return before
    const [certificate, key] = await Promise.all(paths.map((path) => readFile(path, 'utf8')))
    files.certificate = certificate ?? ''
    files.key = key ?? ''
  } catch (error) {
    return { ...files, fault: toFileFault(error) }
  }
  return describeFiles(files, { name, hosts, now })
}

/** Reads what the texts are, and finds what is wrong with them. */
export function describeFiles(
  files: CertificateFiles,
  { name, hosts, now }: { name: string; hosts: string[]; now: number },
): CertificateFiles {
  try {
    const chain = (files.certificate.match(pemBlock) ?? []).map((text) => new X509Certificate(text))
    const [leaf] = chain
    if (!leaf) return { ...files, fault: 'fullchain.pem has no certificate' }
    files.names = toNames(leaf.subjectAltName)
    files.issuer = /^(?:O|CN)=(.+)$/m.exec(leaf.issuer)?.[1] ?? leaf.issuer
    files.notBefore = leaf.validFromDate.getTime()
    files.notAfter = leaf.validToDate.getTime()
    return { ...files, fault: findFault(chain, leaf, files, { name, hosts, now }) }
  } catch {
    return { ...files, fault: 'fullchain.pem is no certificate that can be read' }
  }
}

const pemBlock = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

function findFault(
  chain: X509Certificate[],
  leaf: X509Certificate,
  { key, names, notAfter }: CertificateFiles,
  { name, hosts, now }: { name: string; hosts: string[]; now: number },
): string | undefined {
  const own = readKey(key)
  if (!own) return 'privkey.pem is no private key that can be read'
  if (!leaf.checkPrivateKey(own)) return 'privkey.pem is not the key of the certificate'
  if (leaf.validFromDate.getTime() > now) return `it is not valid before ${toDay(leaf.validFromDate)}`
  if (notAfter <= now) return `it expired on ${toDay(leaf.validToDate)}`
  if (chain.some((one, index) => index > 0 && !chain[index - 1]?.checkIssued(one)))
    return 'fullchain.pem is not in order: each certificate is followed by that of its issuer'
  if (hosts.includes(name) && !isGoodFor(names, name)) return `it is for ${names.join(', ') || 'no name'}`
  return undefined
}

function readKey(text: string): ReturnType<typeof createPrivateKey> | undefined {
  try {
    return createPrivateKey(text)
  } catch {
    return undefined
  }
}

const toDay = (date: Date): string => date.toISOString().slice(0, 10)

/** 'DNS:shop.example, IP Address:127.0.0.1'. */
const toNames = (subjectAltName: string | undefined): string[] =>
  (subjectAltName ?? '')
    .split(', ')
    .map((entry) => entry.replace(/^(DNS|IP Address):/, '').toLowerCase())
    .map((name) => (name.includes(':') ? `[${readAddress(name)?.text}]` : name))
    .filter(Boolean)

function toFileFault(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const file =
    error instanceof Error && 'path' in error && typeof error.path === 'string'
      ? error.path.split(/[/\\]/).at(-1)
      : 'a file'
  return code === 'ENOENT' ? `${file} is missing` : `${file} cannot be read (${code || String(error)})`
}
