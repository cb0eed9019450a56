import { globSync, readdirSync, readFileSync, existsSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { errorFacts } from '#edge/error.ts'
import type { ErrorCode } from '#edge/error.ts'
import { limits } from '#edge/limits.ts'
import { tables } from '#edge/sites/index.ts'
import type { Table } from '#edge/table.ts'
import { toTwin } from '#edge/twin.ts'

/** What the pages say and something else says too. */
const root = new URL('../../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8')
const pages = [
  'README.md',
  ...readdirSync(new URL('docs/', root), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]
const allPages = pages.map(read).join('\n')

describe('what the pages repeat', () => {
  it('every bound of edge/limits.ts is in docs/serve.md with its value, and no other', () => {
    const rows = read('docs/serve.md').matchAll(/^\| `(\w+)` \| ([\d,]+) \|/gm)
    const told = Object.fromEntries(
      [...rows].map(([, name = '', value = '']) => [name, Number(value.replaceAll(',', ''))]),
    )
    expect(told).toEqual({ ...limits })
  })

  it('every code of edge/error.ts is in docs/errors.md with its facts, and no other', () => {
    const rows = [...read('docs/errors.md').matchAll(/^\| `(\w+)` \| (\d+) \| (.+) \| (\w+) \| (yes|no) \|$/gm)]
    const told = rows.map(([, code, status, title, source, again]) => [code, Number(status), title, source, again])
    const codes = [...read('edge/error.ts').matchAll(/^ {2}(\w+): \{ status/gm)].map(([, code]) => code as ErrorCode)
    const known = codes.map((code) => {
      const { status, title, source, retryable } = errorFacts(code)
      return [code, status, title, source, retryable ? 'yes' : 'no']
    })
    expect(told).toEqual(known)
  })

  it('every key of edge/table.ts is on a page', () => {
    const keys = [...read('edge/table.ts').matchAll(/^ {2}(\w+)\??: /gm)].map(([, key = '']) => key)
    expect(keys.filter((key) => !new RegExp(`\\b${key}\\b`).test(allPages))).toEqual([])
  })

  it('every site of the five tables is in README.md under its twin', () => {
    const readme = read('README.md')
    const sites = (tables as Table[]).flatMap((table) => table.sites)
    expect(sites.filter(({ hosts }) => !readme.includes(`http://${toTwin(hosts[0] ?? '')}:8080/`))).toEqual([])
  })

  it('the folders that README.md names are the folders there are', () => {
    const named = [...(/```tree\n([^]*?)```/.exec(read('README.md'))?.[1] ?? '').matchAll(/^([\w-]+)\/ /gm)].map(
      ([, name]) => name,
    )
    const there = readdirSync(root, { withFileTypes: true })
      .filter(
        (entry) =>
          entry.isDirectory() && !entry.name.startsWith('.') && !['node_modules', 'coverage'].includes(entry.name),
      )
      .map(({ name }) => name)
    expect(named.sort()).toEqual(there.sort())
  })

  it.each(pages)('%s links to what is there', (page) => {
    const links = [...read(page).matchAll(/\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)/g)]
    const broken = links.filter(([, path = '', anchor]) => {
      const target = path === '' ? new URL(page, root) : new URL(path, new URL(page, root))
      return !existsSync(target) || (anchor !== undefined && !anchorsOf(target).includes(anchor))
    })
    expect(broken.map(([link]) => link)).toEqual([])
  })

  it('is led to from README.md, page by page', () => {
    const readme = read('README.md')
    expect(pages.filter((page) => page.split('/').length === 2 && !readme.includes(`(${page})`))).toEqual([])
  })
})

describe('variables of the environment', () => {
  const inCode = findVariablesInCode()
  const inTables = [...JSON.stringify(tables).matchAll(/\$\{(\w+)/g)].map(([, name = '']) => name)

  it.each(['.env.example', '.dev.vars.example'])('%s names only what something reads', (file) => {
    const known = new Set([...inCode, ...inTables])
    expect(findVariables(read(file)).filter((name) => !known.has(name))).toEqual([])
  })

  it('what is read is named on a page or in an example', () => {
    const named = `${allPages}\n${findVariables(read('.env.example')).join(' ')}\n${findVariables(read('.dev.vars.example')).join(' ')}`
    expect([...new Set([...inCode, ...inTables])].filter((name) => !new RegExp(`\\b${name}\\b`).test(named))).toEqual(
      [],
    )
  })

  it('where the tables look for services is what docs/serve.md says', () => {
    const rows = read('docs/serve.md').matchAll(/^\| `(\w+)` \| (http:\/\/\S+) \|$/gm)
    const told = Object.fromEntries([...rows].map(([, name = '', value]) => [name, value]))
    const defaults = [...JSON.stringify(tables).matchAll(/\$\{(\w+):-(http:[^}]*)\}/g)]
    expect(told).toEqual(Object.fromEntries(defaults.map(([, name = '', value]) => [name, value])))
  })
})

/** The anchors that a page's headings have. */
const anchorsOf = (page: URL): string[] =>
  [...readFileSync(page, 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  )

/** 'NAME=…' at the beginning of a line, also where the line is a comment. */
const findVariables = (text: string): string[] =>
  [...text.matchAll(/^(?:# ?)?([A-Z][A-Z0-9_]+)=/gm)].map(([, name = '']) => name)

/** What programs take from the environment or their bindings, by the ways in which they do. */
function findVariablesInCode(): string[] {
  const files = globSync('{edge,origin,gpu-worker,compose}/**/*.ts', { cwd: root }).map((file) => read(file))
  return files.flatMap((text) => [
    ...[...text.matchAll(/\bfrom: \[([^\]]*)\]/g)].flatMap(([, names = '']) => findNames(names)),
    ...[...text.matchAll(/\{([^{}]*)\} = (?:process\.env|bindings|environment)\b/g)].flatMap(([, names = '']) =>
      findNames(names),
    ),
    ...[...text.matchAll(/\b(?:process\.env|bindings|environment)(?:\.|\[')([A-Z][A-Z0-9_]+)/g)].map(
      ([, name = '']) => name,
    ),
  ])
}

const findNames = (text: string): string[] =>
  [...text.matchAll(/(?<![\w'])'?([A-Z][A-Z0-9_]{2,})\b/g)].map(([, name = '']) => name)
