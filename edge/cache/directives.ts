/** The members of Cache-Control (RFC 9111 §5.2): lower-cased name and argument, '' where there is none. */
export type Directives = ReadonlyMap<string, string>

/** Servers and browsers of one kind all say the same. */
const remembered = new Map<string, Directives>()
const rememberedMax = 512

export function readDirectives(value: string | undefined): Directives {
  if (value === undefined || value === '') return none
  const known = remembered.get(value)
  if (known) return known
  const directives = parse(value)
  if (remembered.size < rememberedMax && value.length <= 256) remembered.set(value, directives)
  return directives
}

const none: Directives = new Map()

/**
 * The argument of `name` in seconds; undefined without the directive. What is no number, and two that differ, are 0:
 * nothing is taken for fresh that its origin might not have called so (RFC 9111 §4.2.1).
 */
export function readSeconds(directives: Directives, name: string): number | undefined {
  const argument = directives.get(name)
  if (argument === undefined) return undefined
  return /^\d+$/.test(argument) ? Math.min(Number(argument), secondsMax) : 0
}

/** What RFC 9111 §1.2.2 says of longer times. */
const secondsMax = 2_147_483_648

/** A comma in a quoted argument parts nothing, and nothing may stand between two (RFC 9110 §5.6.1); what has no end may have hidden anything, also 'no-store'. */
function parse(value: string): Directives {
  const directives = new Map<string, string>()
  const members = /[\s,]*(?:([^\s,="]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?|([^\s,]))/gsy
  for (let match = members.exec(value); match && match[0] !== ''; match = members.exec(value)) {
    const [, name, quoted, plain, stray] = match
    if (stray !== undefined) return unreadable
    if (name === undefined) continue
    add(directives, name.toLowerCase(), quoted?.replace(/\\(.)/gs, '$1') ?? plain ?? '')
  }
  return directives
}

const unreadable: Directives = new Map([['no-store', '']])

function add(directives: Map<string, string>, name: string, argument: string): void {
  const known = directives.get(name)
  directives.set(name, known === undefined || known === argument ? argument : 'unclear')
}
