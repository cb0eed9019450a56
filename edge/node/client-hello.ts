/**
 * The server name that a client asks for (RFC 6066 §3), read from the first bytes it sends: so the site's own TLS
 * context is there before the handshake begins, and tickets of one site are worth nothing at another.
 */
export function readServerName(bytes: Buffer): ServerName {
  try {
    return readHello(bytes)
  } catch (error) {
    // Nothing but a read behind the end: what a length promises has not come, or never will.
    if (error instanceof RangeError) return { kind: 'none' }
    throw error
  }
}

/** 'more': the first message is not there yet; 'none': there is no name, or no such message. */
export type ServerName = { kind: 'more' } | { kind: 'none' } | { kind: 'name'; name: string }

const more: ServerName = { kind: 'more' }
const none: ServerName = { kind: 'none' }

function readHello(bytes: Buffer): ServerName {
  const hello = joinRecords(bytes)
  if (!hello) return none
  if (hello.length < 4) return more
  // RFC 8446 §4.1.2
  if (hello[0] !== clientHello) return none
  if (hello.length < 4 + hello.readUIntBE(1, 3)) return more
  let at = 4 + 2 + 32
  at += 1 + hello.readUInt8(at) // session id
  at += 2 + hello.readUInt16BE(at) // cipher suites
  at += 1 + hello.readUInt8(at) // compression methods
  const end = at + 2 + hello.readUInt16BE(at)
  for (at += 2; at + 4 <= end; at += 4 + hello.readUInt16BE(at + 2))
    if (hello.readUInt16BE(at) === serverNameExtension) return toName(hello, at + 4)
  return none
}

/** The handshake bytes of leading records (RFC 8446 §5.1); undefined when it is something else. */
function joinRecords(bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length;) {
    if (bytes[at] !== handshakeRecord || (at + 1 < bytes.length && bytes[at + 1] !== 3))
      return parts.length > 0 ? Buffer.concat(parts) : undefined
    if (at + 5 > bytes.length) break
    const length = bytes.readUInt16BE(at + 3)
    parts.push(bytes.subarray(at + 5, at + 5 + length))
    at += 5 + length
  }
  return Buffer.concat(parts)
}

function toName(hello: Buffer, at: number): ServerName {
  // One list with one host_name; its bytes are ASCII by definition.
  if (hello.readUInt8(at + 2) !== 0) return none
  const length = hello.readUInt16BE(at + 3)
  const name = hello.toString('latin1', at + 5, at + 5 + length).toLowerCase()
  return /^[a-z0-9_.-]{1,253}$/.test(name) ? { kind: 'name', name: name.replace(/\.$/, '') } : none
}

const handshakeRecord = 22
const clientHello = 1
const serverNameExtension = 0
