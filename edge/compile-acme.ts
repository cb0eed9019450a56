import type { ReadTable } from './read-table.ts'
import { suggest } from './shape.ts'
import type { Acme } from './table.ts'

/** What certificates are ordered with, and for which of a table's hosts. */
export interface CompiledAcme {
  email: string
  directory: string
  caFile: string | undefined
  isOrdered(host: string): boolean
}

const letsEncrypt = 'https://acme-v02.api.letsencrypt.org/directory'
/** Names in one certificate: Let's Encrypt takes no more. */
const namesMax = 100

/** undefined: certificates of this table come from files only. */
export function compileAcme({ acme, sites, report }: ReadTable): CompiledAcme | undefined {
  if (!acme || acme.email === '') return undefined
  const all = sites.flatMap((site) => site?.hosts ?? [])
  const { directory = letsEncrypt, hosts = all } = acme
  const at = acme.hosts ? 'tls.acme.hosts' : 'tls.acme'
  for (const host of hosts) {
    const fault = all.includes(host) ? findHostFault(host, directory) : undefined
    if (fault) report(at, `would order a certificate for '${host}', ${fault}`, toFix(acme))
    if (!all.includes(host)) report(at, `names '${host}', which no site of the table has`, suggest(host, all))
  }
  for (const [index, site] of sites.entries()) {
    const names = site?.hosts.filter((host) => hosts.includes(host)).length ?? 0
    if (names > namesMax)
      report(
        `sites[${index}].hosts`,
        `has ${names} hosts for one certificate`,
        `at most ${namesMax}: make it two sites`,
      )
  }
  return { email: acme.email, directory, caFile: acme.caFile, isOrdered: (host) => hosts.includes(host) }
}

const toFix = ({ hosts }: Acme): string =>
  hosts
    ? 'drop it there, and put its files into certs/live/'
    : "name the others in 'hosts', and put its files into certs/live/"

function findHostFault(host: string, directory: string): string | undefined {
  if (host.startsWith('*')) return 'which nobody can prove over HTTP (RFC 8555 §8.3)'
  if (/[\d\]]$/.test(host)) return 'which is an address'
  if (directory === letsEncrypt && (!host.includes('.') || reserved.test(host)))
    return "which is not in the public DNS: Let's Encrypt will not have it"
  return undefined
}

/** RFC 2606, RFC 6761, RFC 6762, RFC 7686, and what ICANN keeps for private use. */
const reserved = /\.(test|example|invalid|localhost|local|internal|onion|home\.arpa)$/
