import type { CompiledGateway, CompiledRoute } from './compile.ts'
import type { Exchange } from './exchange.ts'
import { findSite } from './gateway.ts'
import type { Site } from './table.ts'

/**
 * Whether a gateway has the row that answered an exchange as it was: for its host, with the same words in the table,
 * the same settings of its site, the same upstream and the same key.
 */
export function hasSameRow(gateway: CompiledGateway, { host, site, route }: Exchange): boolean {
  const now = findSite(gateway, host)
  if (!now || !site || !route || toSettings(now.site) !== toSettings(site.site)) return false
  const words = JSON.stringify(route.route)
  return now.routes.some(
    (other) =>
      other.id === route.id &&
      upstreamOf(other) === upstreamOf(route) &&
      other.verifier === route.verifier &&
      JSON.stringify(other.route) === words,
  )
}

const upstreamOf = ({ action }: CompiledRoute) => (action.kind === 'proxy' ? action.upstream : undefined)

const toSettings = (site: Site): string => JSON.stringify({ ...site, hosts: [], routes: [], default: undefined })
