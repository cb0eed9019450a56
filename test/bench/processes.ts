import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A temporary folder and the processes that work in it. All of it is gone when the bench ends, however it ends. */
export interface Workshop {
  folder: string
  /** Starts a program; what it says goes to a file in the folder. */
  start(command: string[], options?: StartOptions): Started
  /** Ends a program and waits for it. */
  stop(started: Started): Promise<void>
  close(): void
}

interface StartOptions {
  env?: Record<string, string>
  /** Where its standard output goes; next to its standard error when not given. */
  stdout?: string
  ipc?: boolean
}

export interface Started {
  process: ChildProcess
  pid: number
  /** What it said on standard error. */
  said(): string
}

export function openWorkshop(): Workshop {
  const folder = mkdtempSync(join(tmpdir(), 'daemun-bench-'))
  const running = new Set<ChildProcess>()
  let count = 0

  function start(command: string[], { env = {}, stdout, ipc = false }: StartOptions = {}): Started {
    const [program = '', ...args] = command
    const errors = join(folder, `said-${count++}`)
    const files = [openSync(stdout ?? errors, 'a'), openSync(errors, 'a')]
    const child = spawn(program, args, {
      cwd: folder,
      env: { PATH: process.env['PATH'], HOME: folder, ...env },
      stdio: ipc ? ['ignore', ...files, 'ipc'] : ['ignore', ...files],
    })
    for (const file of files) closeSync(file)
    child.on('error', () => {})
    running.add(child)
    child.once('exit', () => running.delete(child))
    return { process: child, pid: child.pid ?? 0, said: () => readFileSync(errors, 'utf8') }
  }

  async function stop({ process: child }: Started): Promise<void> {
    if (!running.has(child)) return
    const ended = once(child, 'exit')
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 5_000)
    await ended
    clearTimeout(timer)
  }

  function close(): void {
    for (const child of running) child.kill('SIGKILL')
    running.clear()
    rmSync(folder, { recursive: true, force: true })
  }

  process.once('exit', close)
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)
    process.once(signal, () => process.exit(code))
  return { folder, start, stop, close }
}

/** A port of this machine that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Resolves when something takes connections there; rejects with what the process said when it ended before. */
export async function waitForPort(port: number, started: Started): Promise<void> {
  const until = performance.now() + 15_000
  while (!(await accepts(port))) {
    if (started.process.exitCode !== null || started.pid === 0 || performance.now() > until)
      throw new Error(`nothing listens on port ${port}: ${started.said().trim()}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

/** User and system time of a process with all its threads, in microseconds, as the system counts it. */
export function cpuMicroseconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The second field is the program's name, in parentheses and with whatever it likes in it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[11]) + Number(fields[12])
  return (ticks * 1_000_000) / ticksPerSecond
}

/** The memory that a process has in use, as the system counts it. */
export const residentBytes = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? Number.NaN) * 1_024

const ticksPerSecond = Number(spawnSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }).stdout) || 100

/** The version that a program on PATH says it has; undefined when there is no such program. */
export function findVersion(command: string[], pattern: RegExp): string | undefined {
  const [program = '', ...args] = command
  const { error, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  return error ? undefined : (pattern.exec(`${stdout}${stderr}`)?.[1] ?? 'unknown version')
}
