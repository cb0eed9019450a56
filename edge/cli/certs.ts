import { basename } from 'node:path'
import { isExpiring } from '../acme-schedule.ts'
import type { CompiledGateway, CompiledSite } from '../compile.ts'
import { chooseCertificate, readCertificateFiles } from '../node/certificate-files.ts'
import type { CertificateFiles } from '../node/certificate-files.ts'
import { UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'
import { makeDevCertificates } from '../node/dev-certificates.ts'
import { toColumns } from './paint.ts'
import type { Paint } from './paint.ts'

/** `certs dev`: makes what is missing, and says what was made and how it is trusted. */
export async function makeCerts(config: Config, compiled: CompiledGateway, paint: Paint): Promise<string> {
  if (!config.development)
    throw new UsageError(
      "NODE_ENV is production, where certificates of 'certs dev' are not shown: unset it, or get real ones (docs/tls.md)",
    )
  const { authority, isNew, leaves } = await makeDevCertificates(config.certificates, toNames(compiled), Date.now())
  const rows = [
    [paint.accent('authority'), authority, paint.dim(isNew === undefined ? 'kept' : `new: ${isNew}`)],
    ...leaves.map(({ table, folder, names, isNew: made }) => [
      paint.accent(table),
      `${folder}/`,
      paint.dim(`${made ? 'new' : 'kept'}, for ${count(names.length)}`),
    ]),
  ]
  return `${toColumns(rows)}\n${showTrust(authority, paint)}`
}

/** All that each table answers for, twins included. */
function toNames({ hosts, wildcards }: CompiledGateway): Map<string, string[]> {
  const names = new Map<string, string[]>()
  const all = [...hosts, ...[...wildcards].map(([suffix, site]) => [`*${suffix}`, site] as const)]
  for (const [host, { table }] of all) names.set(table, [...(names.get(table) ?? []), host])
  return names
}

/** Nothing of this is done for anybody: who may speak for every host is one's own to say. */
function showTrust(authority: string, paint: Paint): string {
  const command = (text: string): string => `    ${text}\n`
  return [
    `${paint.bold('Trust the authority once')}, so that browsers show no warning. Whoever has its key can pretend to be any\n`,
    `host to those who do: it is readable to you alone, and never leaves this machine.\n\n`,
    `  ${paint.accent('Debian, Ubuntu')}\n`,
    command(`sudo cp ${authority} /usr/local/share/ca-certificates/daemun-development.crt`),
    command('sudo update-ca-certificates'),
    `  ${paint.accent('Chrome and Chromium on Linux')} ${paint.dim('(certutil is in libnss3-tools)')}\n`,
    command(`certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n daemun-development -i ${authority}`),
    `  ${paint.accent('macOS')}\n`,
    command(`sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ${authority}`),
    `  ${paint.accent('Windows')}\n`,
    command(`certutil -user -addstore Root ${authority.replaceAll('/', '\\')}`),
    `  ${paint.accent('Firefox')}\n`,
    command(
      'Settings, Privacy & Security, View Certificates, Authorities, Import: choose the file, trust it for websites',
    ),
    `  ${paint.accent('curl, Node')} ${paint.dim('(without trusting it anywhere)')}\n`,
    command(`curl --cacert ${authority} …`),
    command(`NODE_EXTRA_CA_CERTS=${authority} node …`),
  ].join('')
}

/** What one host shows to clients. */
export interface ListedCert {
  host: string
  table: string
  state: 'ok' | 'expiring' | 'expired' | 'mismatched' | 'missing'
  issuer: string | null
  /** As ISO 8601. */
  notAfter: string | null
  daysLeft: number | null
  folder: string | null
  /** What is wrong, and what to do. */
  action: string | null
}

type Where = Pick<Config, 'certificates' | 'development'>

/** `certs list`: what `serve --https` would show for each host of the tables. */
export async function listCerts(config: Where, { sites }: CompiledGateway, now = Date.now()): Promise<ListedCert[]> {
  const hosts = sites.flatMap((site) => site.hosts.map((host) => ({ host, site })))
  const all = await readCertificateFiles(config.certificates, {
    development: config.development,
    hosts: hosts.map(({ host }) => host),
    now,
  })
  return hosts.map(({ host, site }) => ({ host, table: site.table, ...judge(all, host, site, config, now) }))
}

function judge(
  all: CertificateFiles[],
  host: string,
  site: CompiledSite,
  config: Where,
  now: number,
): Omit<ListedCert, 'host' | 'table'> {
  const sound = all.filter(({ fault }) => fault === undefined)
  const shown = chooseCertificate(sound, host, now)
  // What was meant for the host and is refused.
  const files = shown ?? chooseCertificate(all, host, now) ?? all.find(({ folder }) => basename(folder) === host)
  if (!files) {
    const make = config.development ? ", or run 'daemun certs dev'" : ''
    const action = site.acme?.isOrdered(host)
      ? `'daemun serve --https' orders one, by the table's tls.acme${make}`
      : `put fullchain.pem and privkey.pem into ${config.certificates}/live/${host.replace('*.', '')}/${make}`
    return { state: 'missing', issuer: null, notAfter: null, daysLeft: null, folder: null, action }
  }
  const { issuer, notAfter, folder, fault } = files
  const state = shown
    ? isExpiring(shown, now)
      ? 'expiring'
      : 'ok'
    : notAfter !== 0 && notAfter <= now
      ? 'expired'
      : 'mismatched'
  return {
    state,
    issuer: issuer || null,
    notAfter: notAfter === 0 ? null : new Date(notAfter).toISOString(),
    daysLeft: notAfter === 0 ? null : Math.trunc((notAfter - now) / 86_400_000),
    folder,
    action: state === 'ok' ? null : (fault ?? 'less than a third of its life is left: get a new one'),
  }
}

export function showCerts(listed: ListedCert[], paint: Paint): string {
  const head = ['host', 'issuer', 'days left', 'state', ''].map(paint.dim)
  const rows = listed.map(({ host, issuer, daysLeft, state, folder, action }) => [
    paint.accent(host),
    issuer ?? paint.dim('none'),
    `${daysLeft ?? '-'}`.padStart('days left'.length),
    state === 'ok' ? paint.good('✓ ok') : paint.bad(`✗ ${state}`),
    [folder, action].filter(Boolean).join(': '),
  ])
  const bad = listed.filter(({ state }) => state !== 'ok').length
  return `${toColumns([head, ...rows])}\n  ${count(listed.length)}, ${bad === 0 ? 'all is well' : `for ${bad} of them something must be done`}\n`
}

const count = (hosts: number): string => `${hosts} host${hosts === 1 ? '' : 's'}`
