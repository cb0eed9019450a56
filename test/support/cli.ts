import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../../edge/cli/main.ts', import.meta.url))
const root = fileURLToPath(new URL('../..', import.meta.url))

export interface CliOptions {
  env?: Record<string, string>
  /** The working folder; that of the project when none is given. */
  folder?: string
}

export interface CliResult {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs the program as a person would, in an environment that has nothing but what is given. */
export function startCli(args: string[], { env = {}, folder = root }: CliOptions = {}): ChildProcess {
  return spawn(process.execPath, [main, ...args], {
    cwd: folder,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

export async function runCli(args: string[], options: CliOptions = {}): Promise<CliResult> {
  const child = startCli(args, options)
  const texts = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name]?.setEncoding('utf8').on('data', (text: string) => (texts[name] += text))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, ...texts }
}

/** A folder with these files in it, and how to be rid of it. */
export function createFolder(files: Record<string, string>): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'daemun-cli-'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text)
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export interface Served {
  child: ChildProcess
  port: number
  adminUrl: string
  stdout(): string
  stderr(): string
  /** Asks it to stop; resolves with the exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>
  closed: Promise<number | null>
}

/** `daemun serve` on ports of its own, once it takes requests. */
export async function serveCli(args: string[], options: CliOptions = {}): Promise<Served> {
  const child = startCli(['serve', '--http', ':0', '--admin', ':0', ...args], options)
  const texts = { stdout: '', stderr: '' }
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
  const ready = new Promise<RegExpExecArray>((resolve, reject) => {
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      texts.stderr += text
      const said = /requests on port (\d+), operators on (\S+)/.exec(texts.stderr)
      if (said) resolve(said)
    })
    void closed.then(() => reject(new Error(`ended before it was ready: ${texts.stderr}`)))
  })
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (texts.stdout += text))
  const [, port, adminUrl = ''] = await ready
  return {
    child,
    port: Number(port),
    adminUrl,
    stdout: () => texts.stdout,
    stderr: () => texts.stderr,
    stop: (signal = 'SIGTERM') => {
      child.kill(signal)
      return closed
    },
    closed,
  }
}
