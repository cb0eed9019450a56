import { execFile } from 'node:child_process'
import type { Environment } from '../variables.ts'
import { UsageError } from './config.ts'

/** What the service manager has given this process (sd_listen_fds(3), sd_notify(3)). */
export interface Systemd {
  /** Descriptors of sockets that listen already. */
  sockets: { http?: number; https?: number }
  /** Who hears how this process is. */
  notifySocket: string | undefined
  /** It must hear of it this often. */
  watchdogMs: number | undefined
}

/**
 * Sockets are told apart by their names, 'http' and 'https' (FileDescriptorName=); where they have others, the first is
 * for http and the second for https.
 */
export function readSystemd(environment: Environment, pid: number): Systemd {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '', NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = environment
  const isOurs = (given: string | undefined): boolean => given === String(pid)
  const isWatched = WATCHDOG_USEC !== undefined && (WATCHDOG_PID === undefined || isOurs(WATCHDOG_PID))
  return {
    sockets: isOurs(LISTEN_PID) ? nameSockets(Number(LISTEN_FDS), LISTEN_FDNAMES.split(':')) : {},
    notifySocket: NOTIFY_SOCKET || undefined,
    watchdogMs: isWatched ? Number(WATCHDOG_USEC) / 1_000 : undefined,
  }
}

/** Descriptors begin at 3. */
function nameSockets(count: number, names: string[]): Systemd['sockets'] {
  if (count > 2) throw new UsageError(`LISTEN_FDS is ${count}: give one socket for http, and one for https`)
  const isNamed = names.includes('http') || names.includes('https')
  const sockets: Systemd['sockets'] = {}
  for (let index = 0; index < count; index++) {
    const name = isNamed ? names[index] : index === 0 ? 'http' : 'https'
    if (name !== 'http' && name !== 'https')
      throw new UsageError(`LISTEN_FDNAMES has '${name}': name sockets http and https (FileDescriptorName=)`)
    sockets[name] = 3 + index
  }
  return sockets
}

/** What this process's children must not take for theirs. */
export const withoutSystemd = (environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(environment).filter(([name]) => !/^(LISTEN_|NOTIFY_|WATCHDOG_)/.test(name)))

export interface Notifier {
  ready(status: string): void
  reloading(): void
  stopping(): void
  close(): void
}

/**
 * Tells the service manager how this process is, by `systemd-notify`, which is wherever systemd is: Node has no
 * datagrams over Unix sockets. Without NOTIFY_SOCKET nobody listens, and nothing is said.
 */
export function createNotifier({ notifySocket, watchdogMs }: Systemd, report: (line: string) => void): Notifier {
  let failed = false
  /** One after another, in their order. */
  let saying = Promise.resolve()

  function say(...words: string[]): void {
    if (notifySocket === undefined) return
    saying = saying.then(
      () =>
        new Promise((resolve) => {
          execFile('systemd-notify', words, { timeout: 5_000 }, (error) => {
            if (error && !failed) report(`systemd-notify: ${error.message.trim()}`)
            failed = error !== null
            resolve()
          })
        }),
    )
  }

  // Twice as often as it has to be.
  const timer = watchdogMs === undefined ? undefined : setInterval(() => say('WATCHDOG=1'), watchdogMs / 2).unref()

  return {
    ready: (status) => say('READY=1', `STATUS=${status}`),
    // sd_notify(3): systemd wants to know when it began, on the clock that hrtime is of.
    reloading: () => say('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1_000n}`),
    stopping: () => say('STOPPING=1'),
    close: () => clearInterval(timer),
  }
}
