import { isIPv4, isIPv6 } from 'node:net'
import { readAddress } from '../address.ts'
import { limits } from '../limits.ts'

/**
 * What a proxy says of a connection before a byte of it: the header of the PROXY protocol, version 1 (a line) or 2
 * (binary). `client` undefined: the proxy speaks for itself, as when it looks whether we are well.
 */
export type ProxyHeader =
  | { kind: 'more' }
  | { kind: 'header'; bytes: number; client: string | undefined }
  | { kind: 'malformed' }

/** Reads the header that the first bytes of a connection must be. */
export function readProxyHeader(bytes: Buffer): ProxyHeader {
  if (isPrefix(bytes, signature)) return bytes.length < fixedBytes ? more : readBinary(bytes)
  if (isPrefix(bytes, lineStart)) return readLine(bytes)
  return malformed
}

/** "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n" */
function readLine(bytes: Buffer): ProxyHeader {
  const end = bytes.indexOf('\r\n')
  if (end === -1) return bytes.length < lineBytesMax ? more : malformed
  if (end + 2 > lineBytesMax) return malformed
  const line = bytes.toString('latin1', 0, end)
  const [, family, client = '', server = '', ...ports] =
    /^PROXY (TCP4|TCP6) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})$/.exec(line) ?? []
  // 'UNKNOWN' too: a client whom nobody can name must not be taken for the proxy in front, which is believed.
  if (family === undefined || ports.some((port) => Number(port) > 65_535)) return malformed
  const isAddress = family === 'TCP4' ? isIPv4 : isIPv6
  if (!isAddress(client) || !isAddress(server)) return malformed
  return toHeader(end + 2, client)
}

function readBinary(bytes: Buffer): ProxyHeader {
  const command = bytes.readUInt8(12)
  const family = bytes.readUInt8(13)
  const length = bytes.readUInt16BE(14)
  const all = fixedBytes + length
  if ((command !== local && command !== proxied) || all > limits.proxyHeaderBytesMax) return malformed
  // What follows the addresses (TLVs) is left aside.
  const addressBytes = family === tcp4 ? 4 : family === tcp6 ? 16 : 0
  if (command === proxied && (addressBytes === 0 || length < 2 * addressBytes + 4)) return malformed
  if (bytes.length < all) return more
  if (command === local) return { kind: 'header', bytes: all, client: undefined }
  return toHeader(all, toText(bytes.subarray(fixedBytes, fixedBytes + addressBytes)))
}

function toHeader(bytes: number, client: string): ProxyHeader {
  const address = readAddress(client)
  return address ? { kind: 'header', bytes, client: address.text } : malformed
}

function toText(address: Buffer): string {
  if (address.length === 4) return address.join('.')
  return Array.from({ length: 8 }, (_, group) => address.readUInt16BE(group * 2).toString(16)).join(':')
}

/** Whether what is there of the two is the same. */
const isPrefix = (bytes: Buffer, start: Buffer): boolean => {
  const length = Math.min(bytes.length, start.length)
  return bytes.subarray(0, length).equals(start.subarray(0, length))
}

const more: ProxyHeader = { kind: 'more' }
const malformed: ProxyHeader = { kind: 'malformed' }

const lineStart = Buffer.from('PROXY ')
const lineBytesMax = 107
const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const fixedBytes = 16
const local = 0x20
const proxied = 0x21
const tcp4 = 0x11
const tcp6 = 0x21
