import { readHost } from '../exchange.ts'
import { readTarget } from '../path.ts'
import { toCacheUrl } from './cache-plan.ts'

/** Which answers are to be forgotten. URLs are as they are kept: canonical. */
export type Selector = { url: string } | { prefix: string } | { tag: string }

/** Reads what a person asks for; or says what is wrong with it. */
export function readSelector(asked: unknown): Selector | { fault: string } {
  const entries = typeof asked === 'object' && asked !== null ? Object.entries(asked) : []
  const [name, value] = entries[0] ?? []
  if (entries.length !== 1 || typeof value !== 'string' || value === '')
    return { fault: "name exactly one of 'url', 'prefix' and 'tag', as text" }
  if (name === 'tag') return /^[^,\s]+$/.test(value) ? { tag: value } : { fault: `'${value}' is not one tag` }
  if (name !== 'url' && name !== 'prefix') return { fault: `there is no '${name}': known: url, prefix, tag` }
  const url = toCanonicalUrl(value)
  if (typeof url !== 'string') return url
  return name === 'url' ? { url } : { prefix: url }
}

/** A prefix ends where a segment does: '/api' is not one of '/apix'. */
export function selects(selector: Selector, url: string, tags: readonly string[]): boolean {
  if ('tag' in selector) return tags.includes(selector.tag)
  if ('url' in selector) return url === selector.url
  const { prefix } = selector
  return (
    url.startsWith(prefix) &&
    (prefix.endsWith('/') || url.length === prefix.length || /[/?]/.test(url[prefix.length] ?? ''))
  )
}

function toCanonicalUrl(text: string): string | { fault: string } {
  const [, scheme, authority = '', target = ''] = /^(https?):\/\/([^/?#]+)([^#]*)$/i.exec(text) ?? []
  const host = readHost(authority)
  if (scheme === undefined || !host)
    return { fault: `'${text}' is no URL: write it as clients do, such as https://shop.example/products?page=2` }
  const read = readTarget(target.startsWith('/') ? target : `/${target}`)
  if ('fault' in read) return { fault: `'${text}' is no URL: ${read.fault}` }
  return toCacheUrl(scheme.toLowerCase(), host.authority, read.path + read.query)
}

/** What an answer to a changing request says it has changed besides (RFC 9111 §4.4): only of the same origin. */
export function toChangedUrl(url: string, location: string | undefined): string | undefined {
  if (location === undefined || !URL.canParse(location, url)) return undefined
  const changed = toCanonicalUrl(new URL(location, url).href.replace(/#.*$/, ''))
  return typeof changed === 'string' && new URL(changed).origin === new URL(url).origin ? changed : undefined
}
