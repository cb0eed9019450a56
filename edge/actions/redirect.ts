import type { Exchange } from '../exchange.ts'

/** Where a redirect leads: placeholders are filled in one pass, so that nothing a client sends is read as one. */
export function toLocation(to: string, { host, path, query }: Exchange): string {
  const values: Record<string, string> = { host, path, query }
  return to.replace(/\{(host|path|query)\}/g, (_, name: string) => values[name] ?? '')
}
