import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'
import { copyFreshDatabase } from '../support/fresh-database.ts'
import type { Block } from './page.ts'
import { isSameOutput } from './same-output.ts'

export interface Ran {
  block: Block
  /** What it printed, with the ports that the page names. */
  output: string
  status: number
}

/**
 * Runs a page as its reader would: in a folder that has the project, with one shell, with its files made when they are
 * come to. The ports that pages name are free ones here, and what programs print of them is turned back. With `ownNpm`
 * the shell runs the scripts of `npm run -s` itself: npm costs more than most of them.
 */
export async function runPage(blocks: Block[], { ownNpm = false } = {}): Promise<Ran[]> {
  const folder = makeFolder()
  if (blocks.some(({ kind, text }) => kind === 'serve' && /npm start|origin\/main/.test(text)))
    await copyFreshDatabase(join(folder, '.data/postgres'))
  const ports = await findPorts()
  const shell = openShell(folder, ports)
  if (ownNpm) await shell.run(npmInShell())
  const ran: Ran[] = []
  const servers: Job[] = []
  try {
    for (const [index, block] of blocks.entries()) {
      if (block.kind === 'file') writeFileSync(join(folder, block.name), `${ports.toHere(block.text)}\n`)
      else if (block.kind === 'run') {
        await wait(block.waitMs)
        const { output, status } = await shell.run(ports.toHere(block.text))
        ran.push({ block, output: ports.toPage(output), status })
      } else if (block.kind === 'serve') {
        const job = await shell.start(ports.toHere(block.text))
        servers.push(job)
        const expected = blocks[index + 1]
        await untilListening(ports.of(block.port), job)
        const said = expected?.kind === 'output' && !expected.stopped ? expected.text : '…'
        const isSaid = (): boolean => isSameOutput(said, ports.toPage(job.output()))
        for (let tries = 0; tries < 40 && !isSaid(); tries++) await wait(50)
        ran.push({ block, output: ports.toPage(job.output()), status: 0 })
      } else if (block.kind === 'output' && block.stopped) {
        const job = servers.at(-1)
        const before = job?.output().length ?? 0
        await job?.stop()
        servers.pop()
        ran.push({ block, output: ports.toPage(job?.output().slice(before) ?? ''), status: 0 })
      }
    }
    return ran
  } finally {
    await Promise.all(servers.map((job) => job.stop()))
    shell.close()
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

const project = fileURLToPath(new URL('../../', import.meta.url))

const compileCache = mkdtempSync(join(tmpdir(), 'daemun-docs-cache-'))
afterAll(() => rmSync(compileCache, { recursive: true, force: true, maxRetries: 3 }))

function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'daemun-docs-'))
  for (const name of ['package.json', '.env.example', 'edge', 'origin', 'gpu-worker', 'compose', 'wrangler.toml'])
    if (existsSync(join(project, name))) cpSync(join(project, name), join(folder, name), { recursive: true })
  symlinkSync(join(project, 'node_modules'), join(folder, 'node_modules'), 'junction')
  symlinkSync(compileCache, join(folder, '.compiled'), 'junction')
  return folder
}

/** `npm run -s NAME -- …` as npm would run it; all else is left to npm. */
function npmInShell(): string {
  const { scripts } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const cases = Object.entries(scripts).map(([name, script]) => `'run -s ${name} --') shift 4; ${script} "$@" ;;`)
  return `npm() {\n  case "$1 $2 $3 $4" in\n${cases.join('\n')}\n*) command npm "$@" ;;\n  esac\n}`
}

interface Ports {
  of(port: number): number
  toHere(text: string): string
  toPage(text: string): string
}

/** The ports that pages may name; the embedded system takes three in a row. */
const pagePorts = [8080, 8081, 8082, 9090, 9091, 8000, 3000, 3001, 6379]

async function findPorts(): Promise<Ports> {
  const free = await findFreePorts()
  const there = new Map(pagePorts.map((port, index) => [String(port), String(free[index])]))
  const back = new Map([...there].map(([page, here]) => [here, page]))
  const replace = (text: string, names: Map<string, string>): string =>
    text.replace(/(?<![\w.-])\d{4,5}(?![\w-]|\.\d)/g, (digits) => names.get(digits) ?? digits)
  return {
    of: (port) => Number(there.get(String(port)) ?? port),
    // What listens on the port by default is told so here.
    toHere: (text) =>
      replace(
        text
          .replace(/daemun -- serve(?!.*--http).*/g, '$& --http 8080 --admin 9090')
          .replace(/daemun -- purge(?!.*--admin).*/g, '$& --admin 9090'),
        there,
      ),
    toPage: (text) => replace(text, back),
  }
}

async function findFreePorts(): Promise<number[]> {
  const taken = await Promise.all(pagePorts.map(() => listen(0)))
  const numbers = taken.map((server) => (server.address() as AddressInfo).port)
  const first = numbers[0] ?? 0
  const next = await Promise.all([1, 2].map((more) => listen(first + more).catch(() => undefined)))
  for (const server of [...taken, ...next]) server?.close()
  return next.every(Boolean) ? numbers.with(1, first + 1).with(2, first + 2) : findFreePorts()
}

const listen = (port: number): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server))
  })

interface Job {
  output(): string
  isOver(): boolean
  /** Ctrl-C; by force when it does not end. */
  stop(): Promise<void>
}

interface Shell {
  run(text: string): Promise<{ output: string; status: number }>
  start(text: string): Promise<Job>
  close(): void
}

/** One bash for a page. A block is a file that it reads, so that nothing a block starts can read on in the page. */
function openShell(folder: string, ports: Ports): Shell {
  const { PATH = '', HOME = '' } = process.env
  const environment = {
    PATH: `${join(project, 'node_modules/.bin')}${delimiter}${PATH}`,
    HOME,
    PORT: String(ports.of(8080)),
    npm_config_update_notifier: 'false',
    // What a page has compiled, the next need not, though it is in another folder.
    NODE_COMPILE_CACHE: join(folder, '.compiled'),
    NODE_COMPILE_CACHE_PORTABLE: '1',
  }
  const bash = spawn('bash', ['--noprofile', '--norc'], { cwd: folder, env: environment })
  bash.stdin.write('set -m\n') // a job gets a process group of its own, which Ctrl-C reaches
  let blocks = 0

  async function run(text: string): Promise<{ output: string; status: number }> {
    const name = write(text)
    const said = await ask(bash, `source ${name} </dev/null >${name}.log 2>&1; printf '%s\\n' "$?"\n`)
    return { output: readFileSync(`${name}.log`, 'utf8'), status: Number(said) }
  }

  async function start(text: string): Promise<Job> {
    const name = write(text)
    const group = Number(await ask(bash, `source ${name} </dev/null >${name}.log 2>&1 & printf '%s\\n' "$!"\n`))
    return toJob(group, `${name}.log`)
  }

  function write(text: string): string {
    const name = join(folder, `.block-${blocks++}`)
    writeFileSync(name, `${text}\n`)
    return name
  }

  return { run, start, close: () => void bash.kill('SIGKILL') }
}

const ask = (bash: ChildProcess, line: string): Promise<string> =>
  new Promise((resolve, reject) => {
    let said = ''
    const hear = (chunk: Buffer): void => {
      said += chunk.toString()
      if (!said.endsWith('\n')) return
      bash.stdout?.off('data', hear)
      resolve(said.trim())
    }
    bash.stdout?.on('data', hear)
    bash.once('exit', () => reject(new Error('the shell ended')))
    bash.stdin?.write(line)
  })

function toJob(group: number, log: string): Job {
  const signal = (name: NodeJS.Signals | 0): boolean => {
    try {
      return process.kill(-group, name)
    } catch {
      return false
    }
  }
  const isOver = (): boolean => !signal(0)
  async function stop(): Promise<void> {
    signal('SIGINT')
    for (let tries = 0; tries < 100 && !isOver(); tries++) await wait(50)
    signal('SIGKILL')
  }
  return { output: () => readFileSync(log, 'utf8'), isOver, stop }
}

async function untilListening(port: number, job: Job): Promise<void> {
  for (let tries = 0; tries < 800; tries++) {
    if (await accepts(port)) return
    if (job.isOver()) break
    await wait(50)
  }
  throw new Error(`nothing listens on port ${port}:\n${job.output()}`)
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
