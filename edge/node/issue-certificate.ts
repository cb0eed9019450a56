import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { isIP } from 'node:net'

/** A certificate with its key, as text. */
export interface Issued {
  certificate: string
  key: string
}

export interface CertificateRequest {
  /** For people: who it is for. */
  commonName: string
  /** DNS names and addresses it is good for; none for an authority. */
  names: string[]
  isAuthority?: boolean
  notBefore: Date
  notAfter: Date
  /** Who signs it; itself when nobody is given. */
  issuer?: { commonName: string; key: KeyObject; publicKey: KeyObject }
  keys?: KeyPair
}

/**
 * Makes an X.509 certificate (RFC 5280) on the P-256 curve: the few forms of it that a local authority, its leaves and
 * stand-ins need. Nothing is read here; reading is OpenSSL's.
 */
export function issueCertificate(request: CertificateRequest): Issued {
  const { privateKey, publicKey } = request.keys ?? createKeys()
  const issuer = request.issuer ?? { commonName: request.commonName, key: privateKey, publicKey }
  const serial = randomBytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40 // positive, and of full length
  const toBeSigned = sequence(
    explicit(0, integer(Buffer.from([2]))), // v3
    integer(serial),
    ecdsaWithSha256,
    toName(issuer.commonName),
    sequence(toTime(request.notBefore), toTime(request.notAfter)),
    toName(request.commonName),
    publicKey.export({ type: 'spki', format: 'der' }),
    explicit(3, sequence(...toExtensions(request, publicKey, issuer.publicKey))),
  )
  const signature = sign('sha256', toBeSigned, issuer.key)
  const certificate = sequence(toBeSigned, ecdsaWithSha256, bitString(signature))
  return { certificate: toPem('CERTIFICATE', certificate), key: toKeyText(privateKey) }
}

/** A request for a certificate (PKCS #10, RFC 2986) for these names, signed with their key, as DER. */
export function requestCertificate(names: string[], { privateKey, publicKey }: KeyPair): Buffer {
  const alternatives = sequence(objectId('2.5.29.17'), octetString(sequence(...names.map(toGeneralName))))
  const toBeSigned = sequence(
    integer(Buffer.from([0])),
    sequence(), // no subject: the names below are all there is
    publicKey.export({ type: 'spki', format: 'der' }),
    // extensionRequest (RFC 2985 §5.4.2)
    explicit(0, sequence(objectId('1.2.840.113549.1.9.14'), set(sequence(alternatives)))),
  )
  return sequence(toBeSigned, ecdsaWithSha256, bitString(sign('sha256', toBeSigned, privateKey)))
}

/** Two halves of one key. */
export interface KeyPair {
  privateKey: KeyObject
  publicKey: KeyObject
}

export const createKeys = (): KeyPair => generateKeyPairSync('ec', { namedCurve: 'P-256' })

export const toKeyText = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }).toString()

const toPem = (label: string, der: Buffer): string =>
  `-----BEGIN ${label}-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END ${label}-----\n`

/** RFC 5280 §4.2.1; those that are critical say so. */
function toExtensions(
  { isAuthority = false, names }: CertificateRequest,
  own: KeyObject,
  issuers: KeyObject,
): Buffer[] {
  const extension = (id: string, value: Buffer, critical = false): Buffer =>
    sequence(objectId(id), ...(critical ? [boolean(true)] : []), octetString(value))
  const common = [
    extension('2.5.29.14', octetString(toKeyId(own))),
    extension('2.5.29.35', sequence(implicit(0, toKeyId(issuers)))),
  ]
  if (isAuthority)
    return [
      ...common,
      // No authority below it.
      extension('2.5.29.19', sequence(boolean(true), integer(Buffer.from([0]))), true),
      extension('2.5.29.15', bitString(Buffer.from([0b0000_0110]), 1), true), // keyCertSign, cRLSign
    ]
  return [
    ...common,
    extension('2.5.29.19', sequence(), true),
    extension('2.5.29.15', bitString(Buffer.from([0b1000_0000]), 7), true), // digitalSignature
    extension('2.5.29.37', sequence(objectId('1.3.6.1.5.5.7.3.1'))), // serverAuth
    extension('2.5.29.17', sequence(...names.map(toGeneralName))),
  ]
}

function toGeneralName(name: string): Buffer {
  const bare = name.replace(/^\[|\]$/g, '')
  if (isIP(bare) === 0) return implicit(2, Buffer.from(name, 'latin1'))
  return implicit(7, isIP(bare) === 4 ? Buffer.from(bare.split('.').map(Number)) : toIpv6Bytes(bare))
}

function toIpv6Bytes(text: string): Buffer {
  const [before = '', after] = text.split('::')
  const toGroups = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16))
  const head = toGroups(before)
  const tail = after === undefined ? [] : toGroups(after)
  const groups = [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => 0), ...tail]
  return Buffer.from(groups.flatMap((group) => [group >> 8, group & 0xff]))
}

/** RFC 5280 §4.2.1.2, method 1 with what stands for the key here: its SPKI. */
const toKeyId = (key: KeyObject): Buffer =>
  createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest()
    .subarray(0, 20)

const toName = (commonName: string): Buffer =>
  sequence(set(sequence(objectId('2.5.4.3'), tagged(0x0c, Buffer.from(commonName.slice(0, 64), 'utf8')))))

/** RFC 5280 §4.1.2.5: two digits of the year until 2049. */
function toTime(date: Date): Buffer {
  const text = date.toISOString().replace(/[-:T]|\.\d+/g, '')
  return date.getUTCFullYear() < 2050
    ? tagged(0x17, Buffer.from(text.slice(2), 'latin1'))
    : tagged(0x18, Buffer.from(text, 'latin1'))
}

// DER (X.690): a tag, a length, and what it holds.

function tagged(tag: number, content: Buffer): Buffer {
  const { length } = content
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content])
  const digits = length < 0x100 ? [length] : [length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length, ...digits]), content])
}

const sequence = (...parts: Buffer[]): Buffer => tagged(0x30, Buffer.concat(parts))
const set = (...parts: Buffer[]): Buffer => tagged(0x31, Buffer.concat(parts))
const explicit = (number: number, content: Buffer): Buffer => tagged(0xa0 | number, content)
const implicit = (number: number, content: Buffer): Buffer => tagged(0x80 | number, content)
const integer = (content: Buffer): Buffer => tagged(0x02, content)
const boolean = (value: boolean): Buffer => tagged(0x01, Buffer.from([value ? 0xff : 0]))
const octetString = (content: Buffer): Buffer => tagged(0x04, content)
const bitString = (content: Buffer, unused = 0): Buffer => tagged(0x03, Buffer.concat([Buffer.from([unused]), content]))

function objectId(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const part of rest) {
    const digits = [part & 0x7f]
    for (let left = part >> 7; left > 0; left >>= 7) digits.unshift((left & 0x7f) | 0x80)
    bytes.push(...digits)
  }
  return tagged(0x06, Buffer.from(bytes))
}

const ecdsaWithSha256 = sequence(objectId('1.2.840.10045.4.3.2'))
