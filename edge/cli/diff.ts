import { existsSync, readFileSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { ConfigError, compileTables } from '../compile.ts'
import type { CompiledGateway, TableSource } from '../compile.ts'
import { diffTables, toRowProbes } from '../diff.ts'
import type { Diff, DiffGroup, DiffRequest, Probe } from '../diff.ts'
import { createLocalLimiter } from '../local-limiter.ts'
import { UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'
import { createNodeFacts } from '../node/runtime.ts'
import { isRecord } from '../shape.ts'
import type { CommandLine } from './command-line.ts'
import { readGoldenRequest, splitGoldenRows } from './golden-rows.ts'
import { toColumns } from './paint.ts'
import type { Paint } from './paint.ts'

/** What the second table does that the first does not, for all requests that are known of. */
export async function diffFiles(line: CommandLine, config: Config, sources: TableSource[]): Promise<Diff> {
  const [before, after] = await compileBoth(sources, config)
  const golden = [...new Set([...line.golden, ...findGolden([before, after])])]
  const probes = [
    ...toRowProbes(before),
    ...toRowProbes(after),
    ...golden.flatMap(readGolden),
    ...(line.log === undefined ? [] : await readLog(line.log, line.last)),
  ]
  const facts = {
    ...createNodeFacts({ limiter: createLocalLimiter({ now: Date.now }), trustedHops: [] }),
    // Nothing that differs by itself from one request to the next.
    now: () => 0,
    monotonic: () => 0,
    randomId: () => '00000000-0000-4000-8000-000000000000',
    fetchText: () => Promise.reject(new Error('nothing is fetched to compare tables')),
  }
  return diffTables(before, after, probes, facts)
}

/** Each by itself, since they have the same hosts; the faults of both at once. */
async function compileBoth(sources: TableSource[], config: Config): Promise<[CompiledGateway, CompiledGateway]> {
  const compiled = await Promise.allSettled(sources.map((source) => compileTables([source], config)))
  const [before, after] = compiled
  if (before?.status === 'fulfilled' && after?.status === 'fulfilled') return [before.value, after.value]
  const reasons = compiled.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []))
  const other = reasons.find((reason) => !(reason instanceof ConfigError))
  if (other) throw other
  throw new ConfigError(reasons.flatMap((reason) => (reason as ConfigError).faults))
}

/** The golden rows that the project has of a system. */
function findGolden(gateways: CompiledGateway[]): string[] {
  const tables = new Set(gateways.flatMap(({ sites }) => sites.map(({ table }) => table)))
  return [...tables]
    .map((table) => fileURLToPath(new URL(`../../test/routes/${table}.table`, import.meta.url)))
    .filter((file) => existsSync(file))
}

function readGolden(file: string): Probe[] {
  return splitGoldenRows(readFile(file)).map((row) => {
    const { raw } = readGoldenRequest(row.split(' → ')[0] ?? '')
    if (raw.method === '') throw new UsageError(`${file}: '${row}' is no row: write 'METHOD URL → OUTCOME'`)
    return { raw, from: 'golden', count: 1 }
  })
}

function readFile(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw toFileError(file, error)
  }
}

function toFileError(file: string, error: unknown): UsageError {
  const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT'
  return new UsageError(`${file} cannot be read: ${missing ? 'there is no such file' : String(error)}`, {
    cause: error,
  })
}

/** The requests of the last lines of an access log. Lines that tell of no request, such as refused bytes, are left out. */
async function readLog(file: string, last: number): Promise<Probe[]> {
  const lines = (await readEnd(file, last)).slice(-last)
  const probes = lines.map(readLogLine).filter((one) => one !== undefined)
  if (probes.length === 0 && lines.length > 0)
    throw new UsageError(
      `${file} has no request in its last ${lines.length} lines: is it an access log of daemun serve?`,
    )
  return probes
}

/** At least the last `count` lines, if there are so many; read from behind, since a log can be long. */
async function readEnd(file: string, count: number): Promise<string[]> {
  const handle = await open(file).catch((error: unknown) => {
    throw toFileError(file, error)
  })
  try {
    const chunks: Buffer[] = []
    let at = statSync(file).size
    let found = 0
    while (at > 0 && found <= count) {
      const length = Math.min(at, chunkBytes)
      at -= length
      const { buffer } = await handle.read(Buffer.alloc(length), 0, length, at)
      for (const byte of buffer) if (byte === lineFeed) found++
      chunks.unshift(buffer)
    }
    const lines = Buffer.concat(chunks)
      .toString('utf8')
      .split('\n')
      .filter((line) => line !== '')
    return at > 0 ? lines.slice(1) : lines
  } finally {
    await handle.close()
  }
}

const chunkBytes = 1_048_576
const lineFeed = 10

function readLogLine(line: string): Probe | undefined {
  const data = parse(line)
  const { client = '', method, scheme, host, path, query = '' } = isRecord(data) ? data : {}
  const texts = [client, method, scheme, host, path, query]
  if (!texts.every((text): text is string => typeof text === 'string') || host === '' || path === '') return undefined
  const [peer = '', verb = '', , name = '', ...target] = texts
  const raw = { method: verb, target: target.join(''), version: '1.1', headers: ['Host', name], peer }
  return { raw: { ...raw, secure: scheme === 'https' }, from: 'log', count: 1 }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

/** The differences for people, those that most requests meet first. */
export function showDiff({ requests, different, groups }: Diff, paint: Paint): string {
  if (different === 0) return `${paint.good('✓')} ${count(requests)}: no difference\n`
  const head = `${different.toLocaleString('en')} of ${count(requests)} ${different === 1 ? 'is' : 'are'} treated differently\n`
  return head + groups.map((group) => `\n${showGroup(group, paint)}`).join('')
}

function showGroup({ old, new: now, differences, requests }: DiffGroup, paint: Paint): string {
  const rows = differences.flatMap((one) => [
    [one.fact, paint.bad(`- ${cut(one.old)}`)],
    ['', paint.good(`+ ${cut(one.new)}`)],
  ])
  const shown = requests.slice(0, shownRequests).map((request) => `  ${showRequest(request, paint)}\n`)
  const more = requests.length - shownRequests
  return [
    `${showRow(old, paint)} → ${showRow(now, paint)}\n`,
    toColumns(rows),
    ...shown,
    more > 0 ? `  ${paint.dim(`and ${more.toLocaleString('en')} more`)}\n` : '',
  ].join('')
}

const shownRequests = 4

const showRow = (row: DiffGroup['old'], paint: Paint): string =>
  row ? `${paint.bold(row.id)}  ${paint.dim(row.source ?? '')}` : paint.bold('no row')

function showRequest({ method, url, fields, from, count: times }: DiffRequest, paint: Paint): string {
  const carried = fields.map(([name, value]) => ` [${name}: ${value}]`).join('')
  const place = { row: '', golden: '  golden row', log: `  in the log${times === 1 ? '' : ` ${times} times`}` }[from]
  return `${paint.accent(`${method} ${url}`)}${carried}${paint.dim(place)}`
}

const cut = (text: string): string => (text.length > 90 ? `${text.slice(0, 88)} …` : text)
const count = (requests: number): string => `${requests.toLocaleString('en')} request${requests === 1 ? '' : 's'}`
