import { constants, createHash } from 'node:crypto'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import type { SecureContextOptions } from 'node:tls'
import { isExpiring } from '../acme-schedule.ts'
import type { CompiledGateway, CompiledSite } from '../compile.ts'
import { limits } from '../limits.ts'
import type { Gauge } from '../metrics.ts'
import { chooseCertificate, describeFiles, nothing, readCertificateFiles } from './certificate-files.ts'
import type { CertificateFiles } from './certificate-files.ts'
import { issueCertificate } from './issue-certificate.ts'
import type { Issued } from './issue-certificate.ts'
import { readTicketSecret, toTicketKeys } from './ticket-secret.ts'

export interface CertificateOptions {
  compiled: CompiledGateway
  /** The folder that has `live/` and `dev/`. */
  directory: string
  /** Whether those of `certs dev` are taken too. */
  development: boolean
  report: (line: string) => void
  now?: () => number
}

/** What the hosts of all tables show to clients, and keep showing while files are replaced. */
export interface Certificates {
  /** What the site that a client names shows it: the same object for as long as that is so. */
  contextFor(name: string | undefined): SecureContextOptions
  /** Shows what these hosts have from now on. Never rejects. */
  serve(compiled: CompiledGateway): Promise<void>
  /** Looks at the files and swaps what has changed; what is refused changes nothing. Never rejects. */
  look(): Promise<void>
  /** Shows a new certificate as if it lay in `issued/<name>/`, until it does: there may be no room for it on the disk. */
  hold(name: string, issued: Issued): Promise<void>
  /** What a host shows; undefined: a stand-in. */
  filesOf(host: string): CertificateFiles | undefined
  gauges(): Gauge[]
  /** Stops looking. */
  close(): void
}

/** Resolves when all files were looked at once; whatever is wrong with them, every host has a certificate then. */
export async function openCertificates(options: CertificateOptions): Promise<Certificates> {
  const { directory, development, report, now = Date.now } = options
  let { compiled } = options
  let hosts = listHosts(compiled)
  let tickets = await readTicketSecret(directory, now(), undefined)
  const standIn = toContext(issueStandIn(['no-certificate.invalid'], now()))
  /** By site and by what its hosts show: no two sites share one, and so none takes the other's tickets. */
  let contexts = new Map<string, Map<string, Shown>>()
  let shown = new Map<string, Shown>()
  let known = new Map<string, CertificateFiles>()
  /** By their folders. */
  const held = new Map<string, CertificateFiles>()
  const faults = new Map<string, string>()
  let failures = 0
  let turn = Promise.resolve()

  /** One after the other: what was read first must not be shown last. */
  function look(): Promise<void> {
    turn = turn.then(lookOnce, lookOnce)
    return turn
  }

  async function lookOnce(): Promise<void> {
    tickets = await readTicketSecret(directory, now(), tickets)
    const found = await readCertificateFiles(directory, { development, hosts: [...hosts.keys()], now: now(), known })
    for (const [folder, files] of held) {
      const at = found.findIndex((one) => one.folder === folder)
      if (found[at]?.certificate === files.certificate) held.delete(folder)
      else found.splice(at === -1 ? found.length : at, at === -1 ? 0 : 1, files)
    }
    for (const [folder, files] of known)
      if (!found.some((one) => one.folder === folder)) found.push({ ...files, fault: 'the folder is gone' })
    const good: CertificateFiles[] = []
    for (const files of found) {
      const last = known.get(files.folder)
      const fault = files.fault ?? findContextFault(files, last)
      judge(files.folder, fault, last)
      if (fault === undefined && last && last.certificate !== files.certificate)
        report(`${files.folder}: the new certificate is shown`)
      const usable = fault === undefined ? files : last
      if (usable) good.push(usable)
    }
    known = new Map(good.map((files) => [files.folder, files]))
    show(good)
  }

  function hold(name: string, { certificate, key }: Issued): Promise<void> {
    const folder = join(directory, 'issued', name)
    const files = { ...nothing, folder, certificate, key, version: `held since ${now()}` }
    held.set(folder, describeFiles(files, { name, hosts: [...hosts.keys()], now: now() }))
    return look()
  }

  /** OpenSSL has the last word: a key that it finds too weak is found out here. */
  function findContextFault(files: CertificateFiles, last: CertificateFiles | undefined): string | undefined {
    if (last?.version === files.version) return undefined
    try {
      createSecureContext(toContext(files))
      return undefined
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  /** Says once what is wrong with a folder's files, and once that they are right again. */
  function judge(folder: string, fault: string | undefined, last: CertificateFiles | undefined): void {
    if (fault === faults.get(folder)) return
    if (fault === undefined) {
      faults.delete(folder)
      if (!last) report(`${folder}: the certificate is shown`)
      return
    }
    faults.set(folder, fault)
    failures++
    report(`${folder}: refused, ${fault}${last ? '; the certificate from before is kept' : ''}`)
  }

  function show(good: CertificateFiles[]): void {
    const next = new Map<string, Map<string, Shown>>()
    const table = new Map<string, Shown>()
    for (const [host, site] of hosts) {
      const files = chooseCertificate(good, host, now())
      const name = toSiteName(site)
      const ofSite = next.get(name) ?? new Map<string, Shown>()
      next.set(name, ofSite)
      const key = files ? `${files.folder} ${files.version}` : `for ${site.hosts.join()}`
      const one = ofSite.get(key) ?? keep(contexts.get(name)?.get(key)) ?? make(site, files)
      ofSite.set(key, one)
      table.set(host, one)
    }
    contexts = next
    shown = table
  }

  /** A context is made anew from time to time, with other keys for its tickets. */
  const keep = (one: Shown | undefined): Shown | undefined => (one?.secret === tickets.secret ? one : undefined)

  function make(site: CompiledSite, files: CertificateFiles | undefined): Shown {
    const names = [...hosts].filter(([, owner]) => owner === site).map(([host]) => host)
    const context = toContext(files ?? issueStandIn(names, now()))
    const id = `${site.table} ${site.hosts[0]}`
    // OpenSSL takes a session up only where it was begun; else that would be the words this process was started with.
    const sessionIdContext = createHash('sha256').update(id).digest('base64').slice(0, 32)
    const ticketKeys = toTicketKeys(tickets, id)
    return { files, context: { ...context, ticketKeys, sessionIdContext }, secret: tickets.secret }
  }

  function contextFor(name: string | undefined): SecureContextOptions {
    const found = name === undefined ? undefined : (shown.get(name) ?? findWildcard(name))
    if (found) return found.context
    const fallback = compiled.fallback && shown.get(compiled.fallback.hosts[0] ?? '')
    return fallback?.context ?? standIn
  }

  function findWildcard(name: string): Shown | undefined {
    for (let dot = name.indexOf('.'); dot !== -1; dot = name.indexOf('.', dot + 1)) {
      const wildcard = shown.get(`*${name.slice(dot)}`)
      if (wildcard) return wildcard
    }
    return undefined
  }

  function gauges(): Gauge[] {
    const own = [...shown].filter(([host]) => !host.endsWith('.localhost'))
    const days = own.map(([host, { files }]) => ({ labels: { host }, value: files ? toDays(files, now()) : 0 }))
    return [
      {
        name: 'daemun_certificate_days_left',
        help: 'Days until the certificate of a host ends; 0: it has none, and a self-signed one stands in.',
        value: days,
      },
      {
        name: 'daemun_certificate_expiring',
        help: '1: less than a third of the life of the certificate of a host is left, or it has none.',
        value: own.map(([host, { files }]) => ({
          labels: { host },
          value: Number(!files || isExpiring(files, now())),
        })),
      },
      {
        name: 'daemun_certificate_failures_total',
        help: 'Certificate files that were refused.',
        type: 'counter',
        value: failures,
      },
    ]
  }

  async function serve(next: CompiledGateway): Promise<void> {
    compiled = next
    hosts = listHosts(next)
    await look().catch(tell)
  }

  const tell = (error: unknown): void =>
    report(`certificates: ${error instanceof Error ? error.message : String(error)}`)

  await look()
  const bare = [...shown].filter(([, { files }]) => !files).map(([host]) => host)
  if (bare.length > 0) report(`no certificate for ${enumerate(bare)}: a self-signed one stands in`)
  let looking = false
  const timer = setInterval(() => {
    if (looking) return
    looking = true
    void look()
      .catch(tell)
      .finally(() => {
        looking = false
      })
  }, limits.certificateCheckMs).unref()

  return {
    contextFor,
    serve,
    look,
    hold,
    filesOf: (host) => shown.get(host)?.files,
    gauges,
    close: () => clearInterval(timer),
  }
}

/** The same after a reload: no two sites have the same host. */
const toSiteName = ({ table, hosts }: CompiledSite): string => `${table} ${hosts[0]}`

interface Shown {
  /** undefined: a stand-in. */
  files: CertificateFiles | undefined
  context: SecureContextOptions
  /** Whence the keys of its tickets. */
  secret: string
}

/** Every name that a client may ask for, twins included, and its site; wildcards with their star. */
function listHosts({ hosts, wildcards }: CompiledGateway): Map<string, CompiledSite> {
  return new Map([...hosts, ...[...wildcards].map(([suffix, site]): [string, CompiledSite] => [`*${suffix}`, site])])
}

const toDays = ({ notAfter }: CertificateFiles, now: number): number => Math.floor((notAfter - now) / dayMs)

const dayMs = 86_400_000

function issueStandIn(names: string[], now: number): { certificate: string; key: string } {
  const [notBefore, notAfter] = [new Date(now - dayMs), new Date(now + 90 * dayMs)]
  return issueCertificate({ commonName: 'Daemun stand-in, self-signed', names, notBefore, notAfter })
}

/** TLS 1.2 and 1.3 with authenticated encryption and forward secrecy, and nothing else. */
const toContext = ({ certificate, key }: { certificate: string; key: string }): SecureContextOptions => ({
  cert: certificate,
  key,
  minVersion: 'TLSv1.2',
  maxVersion: 'TLSv1.3',
  ciphers,
  honorCipherOrder: true,
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_PRIORITIZE_CHACHA,
})

const ciphers = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':')

export const enumerate = (names: string[]): string =>
  names.length > 4 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', ')
