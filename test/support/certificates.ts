import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKeys, issueCertificate } from '#edge/node/issue-certificate.ts'
import type { Issued } from '#edge/node/issue-certificate.ts'

const day = 86_400_000
const authorityKeys = createKeys()
const authorityName = 'Test authority'

export const authority = issueCertificate({
  commonName: authorityName,
  names: [],
  isAuthority: true,
  notBefore: new Date(Date.now() - 1_000 * day),
  notAfter: new Date(Date.now() + 1_000 * day),
  keys: authorityKeys,
}).certificate

/** A certificate of the test's authority; the days are counted from now. */
export const issue = (names: string[], { from = -1, to = 90 } = {}): Issued =>
  issueCertificate({
    commonName: names[0] ?? '',
    names,
    notBefore: new Date(Date.now() + from * day),
    notAfter: new Date(Date.now() + to * day),
    issuer: { commonName: authorityName, key: authorityKeys.privateKey, publicKey: authorityKeys.publicKey },
  })

export interface CertificateFolder {
  path: string
  /** Puts files into `live/<name>/`. */
  put(name: string, files: Partial<Issued>): void
  remove(name: string): void
  clear(): void
}

export function createCertificateFolder(): CertificateFolder {
  const path = mkdtempSync(join(tmpdir(), 'daemun-certs-'))
  return {
    path,
    put: (name, { certificate, key }) => {
      const folder = join(path, 'live', name)
      mkdirSync(folder, { recursive: true })
      if (certificate !== undefined) writeFileSync(join(folder, 'fullchain.pem'), certificate)
      if (key !== undefined) writeFileSync(join(folder, 'privkey.pem'), key)
    },
    remove: (name) => rmSync(join(path, 'live', name), { recursive: true }),
    clear: () => rmSync(path, { recursive: true, force: true }),
  }
}
