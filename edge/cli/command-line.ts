import { parseArgs } from 'node:util'
import { UsageError } from '../node/config.ts'

export interface CommandLine {
  command: 'serve' | 'check' | 'routes' | 'explain' | 'help'
  /** Table files; none means the shipped ones. */
  tables: string[]
  /** explain: the request. */
  method: string
  url: string
  headers: [string, string][]
  from: string
  json: boolean
  http: string
  admin: string
}

export const usage = `daemun: an edge gateway that is one typed table

  daemun serve   [table.ts…] [--http ADDR:PORT] [--admin ADDR:PORT]
  daemun check   [table.ts…]
  daemun routes  [table.ts…] [--json]
  daemun explain [table.ts…] [METHOD] URL [-H 'name: value']… [--from ADDRESS] [--json]

No table means the five that ship with it. serve takes requests on 127.0.0.1:8080 and operators on
127.0.0.1:9090. Variables come from the environment and from .env in the working folder.
Exit codes: 0 all is well, 1 something failed, 2 a table, the environment or the command line is wrong.
`

const commands = ['serve', 'check', 'routes', 'explain', 'help'] as const

export function readCommandLine(args: string[]): CommandLine {
  const { values, positionals } = parse(args)
  const [name = 'help', ...rest] = positionals
  const command = values.help ? 'help' : commands.find((known) => known === name)
  if (!command) throw new UsageError(`there is no command '${name}': ${commands.join(', ')}`)
  const tables = rest.filter(isTableFile)
  const words = rest.filter((word) => !isTableFile(word))
  const request = command === 'explain' ? readRequest(words) : { method: 'GET', url: '' }
  if (command !== 'explain' && command !== 'help' && words.length > 0)
    throw new UsageError(`'${words[0]}' is no table: name files that end with .ts, .js or .mjs`)
  return {
    command,
    tables,
    ...request,
    headers: (values.header ?? []).map(readHeader),
    from: values.from ?? '203.0.113.7',
    json: values.json ?? false,
    http: values.http ?? '127.0.0.1:8080',
    admin: values.admin ?? '127.0.0.1:9090',
  }
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        http: { type: 'string' },
        admin: { type: 'string' },
        header: { type: 'string', short: 'H', multiple: true },
        from: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error })
  }
}

const isTableFile = (word: string): boolean => /\.[cm]?[jt]s$/.test(word) && !word.includes('://')

function readRequest(words: string[]): { method: string; url: string } {
  const [first = '', second] = words
  const [method, url] = second === undefined ? ['GET', first] : [first, second]
  if (words.length === 0 || words.length > 2 || !/^[A-Z]+(-[A-Z]+)*$/.test(method))
    throw new UsageError("explain takes one request: [METHOD] URL, such as 'GET https://cowrite.example/api/projects'")
  if (!/^https?:\/\/[^/?#]+/i.test(url)) throw new UsageError(`'${url}' is no URL: write it with http:// or https://`)
  return { method, url }
}

function readHeader(text: string): [string, string] {
  const colon = text.indexOf(':')
  if (colon < 1) throw new UsageError(`'${text}' is no header: write -H 'name: value'`)
  return [text.slice(0, colon).trim(), text.slice(colon + 1).trim()]
}
