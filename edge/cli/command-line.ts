import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { readAddress } from '../address.ts'
import { readListenAddress, UsageError } from '../node/config.ts'
import { suggest } from '../shape.ts'
import { readSplitWish } from './split.ts'
import type { SplitWish } from './split.ts'

export interface CommandLine {
  command: Command
  /** certs: what is done with them. */
  action: Action
  /** Table files; none means the shipped ones. */
  tables: string[]
  /** explain: the request. */
  method: string
  url: string
  headers: [string, string][]
  from: string
  json: boolean
  /** serve: processes that take requests; one of them is this one. */
  workers: number
  /** reload: puts new workers in the place of all. */
  replace: boolean
  http: ListenAddress
  https: ListenAddress | undefined
  admin: ListenAddress
  /** split: what is asked of the running gateway. */
  split: SplitWish
  /** diff: files with golden rows, an access log, and how many of its lines count. */
  golden: string[]
  log: string | undefined
  last: number
  /** serve: the listeners whose connections begin with a header of the PROXY protocol. */
  proxyProtocol: Listener[]
  /** purge: what to forget. */
  selector: { url?: string; prefix?: string; tag?: string }
}

type Command = keyof typeof commands
type Option =
  | 'workers'
  | 'replace'
  | 'http'
  | 'https'
  | 'admin'
  | 'proxy-protocol'
  | 'header'
  | 'from'
  | 'golden'
  | 'log'
  | 'last'
  | 'json'
  | 'url'
  | 'prefix'
  | 'tag'
type Action = (typeof actions)[number]
type Listener = 'http' | 'https'
type ListenAddress = ReturnType<typeof readListenAddress>

export const usage = `daemun: an edge gateway that is one typed table

  daemun serve   [table.ts…] [--http ADDR:PORT] [--https ADDR:PORT] [--admin ADDR:PORT]
                 [--proxy-protocol http,https] [--workers auto|N]
  daemun reload  [--admin ADDR:PORT] [--replace]
  daemun check   [table.ts…]
  daemun routes  [table.ts…] [--json]
  daemun explain [table.ts…] [METHOD] URL [-H 'name: value']… [--from ADDRESS] [--json]
  daemun diff    old.ts new.ts [--log FILE] [--last N] [--golden FILE]… [--json]
  daemun split   [[TABLE/]UPSTREAM [SIDE=WEIGHT… | rollout]] [--admin ADDR:PORT] [--json]
  daemun certs dev  [table.ts…]
  daemun certs list [table.ts…] [--json]
  daemun purge   --url URL | --prefix URL | --tag TAG [--admin ADDR:PORT]

No table means the five that ship with it. serve takes requests on 127.0.0.1:8080 and operators on
127.0.0.1:9090, where reload asks it to read its tables again. Variables come from the environment and from .env in
the working folder.
Exit codes: 0 all is well, 1 something failed or differs, 2 a table, the environment or the command line is wrong.
`

/** The commands and the options that each of them takes. */
const commands = {
  serve: ['http', 'https', 'admin', 'proxy-protocol', 'workers'],
  reload: ['admin', 'replace'],
  check: [],
  routes: ['json'],
  explain: ['header', 'from', 'json'],
  diff: ['log', 'last', 'golden', 'json'],
  split: ['admin', 'json'],
  certs: ['json'],
  purge: ['url', 'prefix', 'tag', 'admin'],
  help: [],
} as const satisfies Record<string, readonly Option[]>

/** dev makes certificates for development; list shows what hosts have. */
const actions = ['dev', 'list'] as const

const options = {
  http: { type: 'string' },
  https: { type: 'string' },
  admin: { type: 'string' },
  'proxy-protocol': { type: 'string' },
  header: { type: 'string', short: 'H', multiple: true },
  from: { type: 'string' },
  golden: { type: 'string', multiple: true },
  log: { type: 'string' },
  last: { type: 'string' },
  json: { type: 'boolean' },
  url: { type: 'string' },
  prefix: { type: 'string' },
  tag: { type: 'string' },
  workers: { type: 'string' },
  replace: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const

export function readCommandLine(args: string[]): CommandLine {
  const { values, positionals } = parse(args)
  const [name = 'help', ...words] = positionals
  const command = values.help ? 'help' : readCommand(name)
  const action = command === 'certs' ? readAction(words.shift()) : 'list'
  const tables = words.filter(isTableFile)
  const rest = words.filter((word) => !isTableFile(word))
  if (!['explain', 'split', 'help'].includes(command) && rest.length > 0)
    throw new UsageError(`'${rest[0]}' is no table: name files that end with .ts, .js or .mjs`)
  refuseForeignOptions(command, values)
  if (command === 'diff' && tables.length !== 2)
    throw new UsageError('diff takes two tables: daemun diff old.ts new.ts')
  if (command === 'certs' && action === 'dev' && values.json) throw new UsageError("'certs dev' does not take --json")
  return {
    command,
    action,
    tables,
    ...(command === 'explain' ? readRequest(rest) : { method: 'GET', url: '' }),
    headers: (values.header ?? []).map(readHeader),
    from: readFrom(values.from ?? '203.0.113.7'),
    json: values.json ?? false,
    replace: values.replace ?? false,
    workers: readWorkers(values.workers ?? '1'),
    http: readListenAddress(values.http ?? '127.0.0.1:8080'),
    https: values.https === undefined ? undefined : readListenAddress(values.https),
    admin: readListenAddress(values.admin ?? '127.0.0.1:9090'),
    split: readSplitWish(command === 'split' ? words : []),
    golden: values.golden ?? [],
    log: values.log,
    last: readLast(values.last),
    proxyProtocol: readListeners(values['proxy-protocol'], values.https !== undefined),
    selector: readSelectorOptions(command, values),
  }
}

function parse(args: string[]) {
  const { tokens } = parseArgs({ args, options, strict: false, allowPositionals: true, tokens: true })
  for (const token of tokens)
    if (token.kind === 'option' && !Object.keys(options).includes(token.name)) {
      const known = Object.keys(options).map((name) => `--${name}`)
      throw new UsageError(`there is no option '${token.rawName}': ${suggest(token.rawName, known)}`)
    }
  try {
    return parseArgs({ args, options, allowPositionals: true })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error })
  }
}

function readCommand(name: string): Command {
  const known = Object.keys(commands)
  if (known.includes(name)) return name as Command
  throw new UsageError(`there is no command '${name}': ${suggest(name, known)}`)
}

function readAction(word = ''): Action {
  const action = actions.find((one) => one === word)
  if (action) return action
  throw new UsageError(
    word === '' || isTableFile(word)
      ? "certs wants to know what to do: 'certs dev' or 'certs list'"
      : `there is no 'certs ${word}': ${suggest(word, actions)}`,
  )
}

function refuseForeignOptions(command: Command, values: Partial<Record<Option, unknown>>): void {
  if (command === 'help') return
  const own: readonly string[] = commands[command]
  const given = Object.keys(options).filter((option) => option !== 'help') as Option[]
  const foreign = given.find((option) => values[option] !== undefined && !own.includes(option))
  if (!foreign) return
  const takes = own.length > 0 ? `only ${own.map((option) => `--${option}`).join(', ')}` : 'no options'
  throw new UsageError(`'${command}' does not take --${foreign}: it takes ${takes}`)
}

function readSelectorOptions(
  command: Command,
  { url, prefix, tag }: { url?: string; prefix?: string; tag?: string },
): CommandLine['selector'] {
  const selector = {
    ...(url !== undefined && { url }),
    ...(prefix !== undefined && { prefix }),
    ...(tag !== undefined && { tag }),
  }
  if (command === 'purge' && Object.keys(selector).length !== 1)
    throw new UsageError(
      "purge forgets one of: --url 'https://shop.example/x', --prefix 'https://shop.example/api', --tag product-7",
    )
  return selector
}

function readWorkers(text: string): number {
  const count = text === 'auto' ? availableParallelism() : /^[1-9]\d{0,2}$/.test(text) ? Number(text) : undefined
  if (count === undefined) throw new UsageError(`--workers is '${text}': write 'auto', or a number such as 4`)
  return count
}

const isTableFile = (word: string): boolean => /\.[cm]?[jt]s$/.test(word) && !word.includes('://')

function readRequest(words: string[]): { method: string; url: string } {
  const [first = '', second] = words
  const [method, url] = second === undefined ? ['GET', first] : [first, second]
  if (words.length === 0 || words.length > 2 || !/^[A-Z]+(-[A-Z]+)*$/.test(method))
    throw new UsageError("explain takes one request: [METHOD] URL, such as 'GET https://cowrite.example/api/projects'")
  if (!/^(https?|wss?):\/\/[^/?#]+/i.test(url))
    throw new UsageError(`'${url}' is no URL: write it with http:// or https:// (ws:// or wss:// asks for a WebSocket)`)
  return { method, url }
}

function readLast(text = '1000'): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text)
  throw new UsageError(`'${text}' is no number of lines: write --last 1000`)
}

function readListeners(text: string | undefined, hasHttps: boolean): Listener[] {
  if (text === undefined) return []
  const names = text.split(',').map((name) => name.trim())
  const unknown = names.find((name) => name !== 'http' && name !== 'https')
  if (unknown !== undefined)
    throw new UsageError(`'${unknown}' is no listener: write --proxy-protocol http, https or http,https`)
  if (names.includes('https') && !hasHttps) throw new UsageError('--proxy-protocol https needs --https ADDR:PORT')
  return names as Listener[]
}

function readHeader(text: string): [string, string] {
  const [, name, value] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e]*?)[ \t]*$/.exec(text) ?? []
  if (name === undefined || value === undefined) throw new UsageError(`'${text}' is no header: write -H 'name: value'`)
  return [name, value]
}

function readFrom(text: string): string {
  if (!readAddress(text))
    throw new UsageError(`'${text}' is no address: write --from 203.0.113.7 or --from 2001:db8::7`)
  return text
}
