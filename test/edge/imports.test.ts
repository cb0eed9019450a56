import { readdirSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { describe, expect, it } from 'vitest'

/** What each part of the tree may import: files by their path, packages by their name. Arrows point one way. */
const layers: { part: string; files: RegExp; may: RegExp[] }[] = [
  { part: 'tables are data', files: /^edge\/sites\/(?!index\.ts)/, may: [/^type edge\/table\.ts$/] },
  {
    part: 'the core knows the web and nothing below it',
    files: /^edge\/(?!node\/|worker\/|worker\.ts|cli\/)/,
    may: [/^(type )?edge\/(?!node\/|worker|cli\/)/, /^(type )?(jose|mrmime|hono\/router|@upstash\/ratelimit)$/],
  },
  {
    part: 'Node stands on the core',
    files: /^edge\/node\//,
    may: [
      /^(type )?edge\/(?!worker|cli\/)/,
      /^(type )?(node:[\w/]+|undici|ioredis|jose|hono(\/body-limit)?|@hono\/node-server(\/conninfo)?)$/,
    ],
  },
  {
    part: 'Workers stand on the core',
    files: /^edge\/worker(\/|\.ts)/,
    may: [/^(type )?edge\/(?!node\/|cli\/)/, /^(type )?(cloudflare:\w+|@upstash\/redis\/cloudflare)$/],
  },
  {
    part: 'commands stand on the core and Node',
    files: /^edge\/cli\//,
    may: [/^(type )?edge\/(?!worker)/, /^(type )?node:/],
  },
  {
    part: 'the kit knows of the gateway who asks, and nothing else',
    files: /^origin\/kit\//,
    may: [
      /^(type )?origin\/kit\//,
      /^(type )?edge\/identity\.ts$/,
      /^(type )?(?!edge\/|origin\/|compose\/|gpu-worker\/|test\/)/,
    ],
  },
  {
    part: 'systems stand on the kit and know no other',
    files: /^origin\/[\w-]+\//,
    may: [/^(type )?origin\/(kit|OWN)\//, /^(type )?(?!edge\/|origin\/|compose\/|gpu-worker\/|test\/)/],
  },
  {
    part: 'origins are started from one place',
    files: /^origin\/[\w-]+\.ts$/,
    may: [/^(type )?origin\//, /^(type )?(?!edge\/|origin\/|compose\/|gpu-worker\/|test\/)/],
  },
  {
    part: 'the GPU worker stands on the kit',
    files: /^gpu-worker\//,
    may: [/^(type )?(gpu-worker|origin\/kit)\//, /^(type )?(?!edge\/|origin\/|compose\/|test\/)/],
  },
  { part: 'programs stand on all of it, on no test', files: /^compose\//, may: [/^(type )?(?!test\/)/] },
]

const files = ['edge', 'origin', 'gpu-worker', 'compose'].flatMap(listFiles)

describe('imports', () => {
  for (const { part, files: ofLayer, may } of layers)
    it(part, () => {
      const wrong = files
        .filter((file) => layers.find((layer) => layer.files.test(file))?.files === ofLayer)
        .flatMap((file) => readImports(file).map((imported) => ({ file, imported })))
        .filter(({ file, imported }) => !may.some((pattern) => pattern.test(toOwn(imported, file))))
      expect(wrong.map(({ file, imported }) => `${file} imports ${imported}`)).toEqual([])
    })

  it('every file belongs to a part', () => {
    expect(files.length).toBeGreaterThan(50)
    expect(files.filter((file) => !layers.some((layer) => layer.files.test(file)))).toEqual([])
  })

  it('the core and the worker name no global of Node', () => {
    const web = files.filter((file) => /^edge\/(?!node\/|cli\/)/.test(file))
    const naming = web.filter((file) =>
      /\b(process\.\w|Buffer\.|setImmediate\(|__dirname|require\()/.test(readFileSync(file, 'utf8')),
    )
    expect(naming).toEqual([])
  })
})

/** 'origin/spc/…' seen from a file of that system is its own. */
function toOwn(imported: string, file: string): string {
  const own = /^origin\/([\w-]+)\//.exec(file)?.[1]
  return own === undefined || own === 'kit' ? imported : imported.replace(`origin/${own}/`, 'origin/OWN/')
}

/** Files as paths from here, packages by name; 'type …' when only types are taken. */
function readImports(file: string): string[] {
  const text = readFileSync(file, 'utf8').replace(/^\s*(\/\/|\*).*$/gm, '')
  const found = text.matchAll(
    /^(?:import|export)\s+(type\s)?(?:[\w*${}\s,]+\sfrom\s+)?'([^']+)'|\bimport\('([^']+)'\)/gm,
  )
  return [...found].map(([, type, named, dynamic]) => `${type ? 'type ' : ''}${toPath(named ?? dynamic ?? '', file)}`)
}

function toPath(specifier: string, file: string): string {
  if (specifier.startsWith('.')) return posix.join(posix.dirname(file), specifier)
  return specifier.replace(/^#/, '')
}

function listFiles(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.name.endsWith('.d.ts'))
      .map((entry) => posix.join(entry.parentPath.replaceAll('\\', '/'), entry.name))
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw error
  }
}
