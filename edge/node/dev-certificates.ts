import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readCertificateFiles } from './certificate-files.ts'
import { createKeys, issueCertificate } from './issue-certificate.ts'
import type { Issued } from './issue-certificate.ts'
import { publishFolder, replaceFile } from './publish-folder.ts'

export interface DevCertificates {
  /** The authority's certificate, which browsers are told to trust. */
  authority: string
  /** Why there is a new authority; undefined: it is the one from before. */
  isNew: string | undefined
  leaves: { table: string; folder: string; names: string[]; isNew: boolean }[]
}

/**
 * A local authority in `dev/` of the folder and one certificate per table, for development. What is there and still
 * good is kept, so that browsers need to be told only once.
 */
export async function makeDevCertificates(
  directory: string,
  tables: Map<string, string[]>,
  now: number,
): Promise<DevCertificates> {
  const folder = join(directory, 'dev')
  await mkdir(folder, { recursive: true })
  const paths = { certificate: join(folder, 'authority.pem'), key: join(folder, 'authority-key.pem') }
  const { authority, fault } = await openAuthority(paths, now)
  const known = await readCertificateFiles(directory, { development: true, hosts: [], now })
  const leaves = []
  for (const [table, names] of tables) {
    const before = known.find((files) => files.folder === join(folder, table))
    const isKept =
      before !== undefined &&
      before.fault === undefined &&
      before.notAfter - now > renewMs &&
      names.every((name) => before.names.includes(name)) &&
      new X509Certificate(before.certificate).verify(new X509Certificate(authority.certificate).publicKey)
    if (!isKept) await publishLeaf(folder, table, issueLeaf(table, names, authority, now))
    leaves.push({ table, folder: join(folder, table), names, isNew: !isKept })
  }
  return { authority: paths.certificate, isNew: fault, leaves }
}

const dayMs = 86_400_000
const authorityName = 'Daemun development authority'
/** Browsers take no certificate for longer than 398 days, and none that outlives its authority. */
const leafMs = 365 * dayMs
const authorityMs = 3_650 * dayMs
const renewMs = 30 * dayMs

async function openAuthority(
  paths: { certificate: string; key: string },
  now: number,
): Promise<{ authority: Issued; fault: string | undefined }> {
  const fault = await findAuthorityFault(paths, now)
  if (typeof fault !== 'string') return { authority: fault, fault: undefined }
  const authority = issueCertificate({
    commonName: authorityName,
    names: [],
    isAuthority: true,
    notBefore: new Date(now - dayMs),
    notAfter: new Date(now + authorityMs),
  })
  // The key first: a certificate without its key is found out above, and both are made again.
  await replaceFile(paths.key, authority.key, 0o600)
  await replaceFile(paths.certificate, authority.certificate, 0o644)
  return { authority, fault }
}

/** The authority of before, or why it can sign nothing more. */
async function findAuthorityFault(paths: { certificate: string; key: string }, now: number): Promise<Issued | string> {
  try {
    const certificate = await readFile(paths.certificate, 'utf8')
    const key = await readFile(paths.key, 'utf8')
    const read = new X509Certificate(certificate)
    if (!read.ca || !read.checkPrivateKey(createPrivateKey(key)))
      return 'the files of the one before belong together no more'
    if (read.validToDate.getTime() < now + leafMs) return 'the one before ends too soon'
    if (read.validFromDate.getTime() > now) return 'the one before is not yet valid'
    return { certificate, key }
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT'
    return missing ? 'there was none' : 'the files of the one before cannot be read'
  }
}

function issueLeaf(table: string, names: string[], authority: Issued, now: number): Issued {
  const key = createPrivateKey(authority.key)
  return issueCertificate({
    commonName: `${table}, for development`,
    names,
    notBefore: new Date(now - dayMs),
    notAfter: new Date(now + leafMs - dayMs),
    issuer: { commonName: authorityName, key, publicKey: createPublicKey(key) },
    keys: createKeys(),
  })
}

const publishLeaf = (folder: string, table: string, { certificate, key }: Issued): Promise<void> =>
  publishFolder(folder, table, {
    'fullchain.pem': { text: certificate, mode: 0o644 },
    'privkey.pem': { text: key, mode: 0o600 },
  })
