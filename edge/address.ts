/**
 * IP addresses as numbers of 128 bits, so that every spelling of one address is one address. IPv4 is held in its
 * mapped form (::ffff:a.b.c.d, RFC 4291 §2.5.5.2).
 */
export interface Address {
  /** Canonical text (RFC 5952 for IPv6; dotted for IPv4, also when it came mapped). */
  text: string
  /** Whose requests are counted together: an IPv4 address, an IPv6 /64. */
  bucket: string
  /** Eight groups of 16 bits. */
  groups: number[]
}

export interface Network {
  groups: number[]
  bits: number
}

/** Reads an address in any spelling; a zone ('%eth0') is dropped. null: not an address. */
export function readAddress(text: string): Address | null {
  const groups = text.includes(':') ? readIpv6(text.replace(/%.*$/, '')) : readIpv4(text)
  if (!groups) return null
  const canonical = isIpv4(groups) ? toIpv4(groups) : toIpv6(groups)
  return {
    text: canonical,
    bucket: isIpv4(groups) ? canonical : `${toIpv6([...groups.slice(0, 4), 0, 0, 0, 0])}/64`,
    groups,
  }
}

/** Reads '10.0.0.0/8', '2001:db8::/32' or a single address. null: not a network. */
export function readNetwork(text: string): Network | null {
  const [, address = '', length] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const read = readAddress(address)
  if (!read) return null
  const offset = address.includes(':') ? 0 : 96
  const bits = length === undefined ? 128 : Number(length) + offset
  return bits <= 128 ? { groups: read.groups, bits } : null
}

export function isInNetwork(address: Address, network: Network): boolean {
  for (let group = 0, left = network.bits; left > 0; group++, left -= 16) {
    const shift = left >= 16 ? 0 : 16 - left
    if ((address.groups[group] ?? 0) >> shift !== (network.groups[group] ?? 0) >> shift) return false
  }
  return true
}

/**
 * The client behind a chain of hops: from the right of X-Forwarded-For, the first address that is not one of ours.
 * With no trusted peer the field is ignored, whatever it says.
 */
export function walkHops(peer: Address, forwardedFor: string, trusted: Network[]): Address {
  const isTrusted = (address: Address): boolean => trusted.some((network) => isInNetwork(address, network))
  let client = peer
  const hops = forwardedFor === '' ? [] : forwardedFor.split(',')
  while (isTrusted(client) && hops.length > 0) {
    const next = readAddress(withoutPort((hops.pop() ?? '').trim()))
    if (!next) break
    client = next
  }
  return client
}

/** Some proxies add the port: '203.0.113.7:40000', '[2001:db8::7]:40000'. */
const withoutPort = (hop: string): string => hop.replace(/^\[(.*)\](?::\d+)?$|^([\d.]+):\d+$/, '$1$2')

const isIpv4 = (groups: number[]): boolean => groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff

function readIpv4(text: string): number[] | null {
  const parts = text.split('.')
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) return null
  const [a = 0, b = 0, c = 0, d = 0] = parts.map(Number)
  return [0, 0, 0, 0, 0, 0xffff, a * 256 + b, c * 256 + d]
}

function readIpv6(text: string): number[] | null {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  const tail = dotted ? readIpv4(dotted[2] ?? '') : null
  if (dotted && !tail) return null
  const hex = dotted && tail ? `${dotted[1]}${(tail[6] ?? 0).toString(16)}:${(tail[7] ?? 0).toString(16)}` : text
  const halves = hex.split('::')
  if (halves.length > 2) return null
  const head = readGroups(halves[0] ?? '')
  const rest = halves.length === 2 ? readGroups(halves[1] ?? '') : []
  if (!head || !rest) return null
  const zeros = 8 - head.length - rest.length
  if (halves.length === 2 ? zeros < 1 : zeros !== 0) return null
  return [...head, ...Array.from({ length: zeros }, () => 0), ...rest]
}

function readGroups(text: string): number[] | null {
  if (text === '') return []
  const groups = text.split(':')
  return groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))
    ? groups.map((group) => Number.parseInt(group, 16))
    : null
}

const toIpv4 = (groups: number[]): string =>
  [groups[6] ?? 0, groups[7] ?? 0].flatMap((group) => [group >> 8, group & 255]).join('.')

/** RFC 5952 §4: lower case, the longest run of two or more zero groups (the first of equals) as '::'. */
function toIpv6(groups: number[]): string {
  let best = { start: -1, length: 1 }
  for (let start = 0; start < 8; start++) {
    let length = 0
    while (start + length < 8 && groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  const hex = groups.map((group) => group.toString(16))
  if (best.start === -1) return hex.join(':')
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}`
}
