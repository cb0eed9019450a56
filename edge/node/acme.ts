import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isExpiring, toRenewalTime, toRetryDelay } from '../acme-schedule.ts'
import type { RenewalWindow } from '../acme-schedule.ts'
import type { CompiledAcme } from '../compile-acme.ts'
import type { CompiledGateway } from '../compile.ts'
import { limits } from '../limits.ts'
import type { Gauge, Sample } from '../metrics.ts'
import { AcmeError, createAcmeClient, toCertificateId } from './acme-client.ts'
import type { AcmeClient, AcmeClientOptions } from './acme-client.ts'
import { toCode } from './acme-files.ts'
import type { AcmeFiles } from './acme-files.ts'
import { enumerate } from './certificates.ts'
import type { Certificates } from './certificates.ts'
import { takeFileLock } from './file-lock.ts'
import type { FileLock } from './file-lock.ts'
import type { Issued } from './issue-certificate.ts'

export interface AcmeOptions {
  compiled: CompiledGateway
  /** The folder that has `issued/`. */
  directory: string
  certificates: Certificates
  files: AcmeFiles
  report: (line: string) => void
  /** Milliseconds since the epoch. */
  now?: () => number
  /** Milliseconds that only grow, whatever becomes of the clock. */
  monotonic?: () => number
  /** From 0 to 1. */
  random?: () => number
  createClient?: (options: AcmeClientOptions) => AcmeClient
}

/** Orders certificates and renews them, one site after the other, and never where a request has to wait for it. */
export interface Acme {
  /** Begins, at once and then as often as there may be something to do. */
  start(): void
  /** Does what is due; resolves with the milliseconds until something is due again. Never rejects. */
  step(): Promise<number>
  /** For other tables from now on. */
  swap(compiled: CompiledGateway): void
  gauges(): Gauge[]
  /** Gives up what is underway. */
  stop(): Promise<void>
}

/** One certificate: that of a site. */
interface Task {
  /** The folder's: the first host's. */
  name: string
  hosts: string[]
  acme: CompiledAcme
  attempts: { issued: number; failed: number }
  /** In a row. */
  failures: number
  /** On the monotonic clock. */
  againAt: number
  /** What the authority suggests, and when it is asked again. */
  window: RenewalWindow | undefined
  askedFor: string | undefined
  askAt: number
  /** There was no room for it on the disk. */
  unsaved: Issued | undefined
  saveAt: number
  alarmAt: number
}

export function createAcme(options: AcmeOptions): Acme {
  const { directory, certificates, files, report } = options
  const { now = Date.now, monotonic = () => performance.now(), random = Math.random } = options
  const { createClient = createAcmeClient } = options
  const clients = new Map<string, Promise<AcmeClient>>()
  const leaving = new AbortController()
  const { signal } = leaving
  let tasks = toTasks(options.compiled, [])
  let running: Promise<void> | undefined

  async function step(): Promise<number> {
    let nextMs = Number.POSITIVE_INFINITY
    for (const task of tasks) {
      if (signal.aborted) break
      nextMs = Math.min(nextMs, await attend(task).catch((error: unknown) => fail(task, error)))
    }
    return Math.max(0, nextMs)
  }

  /** What one certificate needs now; resolves with the milliseconds until it may need something. */
  async function attend(task: Task): Promise<number> {
    await certificates.look()
    if (task.unsaved) await save(task, task.unsaved)
    warn(task)
    await askForWindow(task)
    const dueAt = await findDueTime(task)
    if (now() >= dueAt && monotonic() >= task.againAt) {
      await renew(task)
      return soonMs
    }
    const dueMs = Math.max(dueAt - now(), task.againAt - monotonic())
    const others = [task.askAt - monotonic(), ...(task.unsaved ? [task.saveAt - monotonic()] : [])]
    return Math.min(dueMs, ...others)
  }

  /** When the first of the hosts needs another certificate than it shows. */
  async function findDueTime(task: Task): Promise<number> {
    const shown = [...new Set(task.hosts.map(certificates.filesOf))]
    const own = ownFolder(task)
    let dueAt = Number.POSITIVE_INFINITY
    for (const one of shown) {
      if (!one) return 0
      // Somebody else renews what lies in live/, until he does not.
      const { notBefore, notAfter, certificate, folder } = one
      const at =
        folder === own ? toRenewalTime(one, toSpread(certificate), task.window) : notAfter - (notAfter - notBefore) / 6
      dueAt = Math.min(dueAt, at)
    }
    const origin = task.unsaved ? task.acme.directory : await files.readOrigin(task.name)
    const isElsewhere = shown.some((one) => one?.folder === own) && origin !== task.acme.directory
    return isElsewhere ? 0 : dueAt
  }

  async function renew(task: Task): Promise<void> {
    const lock = await takeLock()
    if (lock === 'taken') {
      task.againAt = monotonic() + lockedMs
      return
    }
    try {
      // Another process may have done it while this one found that it is due.
      await certificates.look()
      if (now() < (await findDueTime(task))) return
      const before = certificates.filesOf(task.hosts[0] ?? '')
      const replaces = before?.folder === ownFolder(task) ? toCertificateId(before.certificate) : undefined
      const client = await openClient(task.acme)
      const issued = await client.order({
        names: task.hosts,
        ...(replaces !== undefined && { replaces }),
        publish: files.publish,
        signal,
      })
      task.attempts.issued++
      task.failures = 0
      await certificates.hold(task.name, issued)
      const shown = certificates.filesOf(task.hosts[0] ?? '')
      // Whatever is wrong with it, the authority is not asked for one after the other.
      task.againAt = monotonic() + (shown ? (shown.notAfter - shown.notBefore) / 60 : dayMs)
      report(`certificate for ${enumerate(task.hosts)}: issued, good until ${toDay(shown?.notAfter)}`)
      await save(task, issued)
    } catch (error) {
      fail(task, error)
    } finally {
      lock?.release()
    }
  }

  /** Without a place for the lock there is none for the certificate either, so that others could not share it. */
  async function takeLock(): Promise<FileLock | 'taken' | undefined> {
    try {
      return takeFileLock(join(await files.prepare(), 'lock'))
    } catch {
      return undefined
    }
  }

  async function save(task: Task, issued: Issued): Promise<void> {
    if (task.unsaved === issued && monotonic() < task.saveAt) return
    try {
      await files.save(task.name, issued, task.acme.directory)
      if (task.unsaved) report(`${ownFolder(task)}: the certificate is saved`)
      task.unsaved = undefined
      await certificates.look()
    } catch (error) {
      if (task.unsaved !== issued)
        report(`${ownFolder(task)}: the certificate is shown, but cannot be saved (${toCode(error)}); tried again`)
      task.unsaved = issued
      task.saveAt = monotonic() + saveAgainMs
    }
  }

  function fail(task: Task, error: unknown): number {
    if (signal.aborted) return 0
    const shown = certificates.filesOf(task.hosts[0] ?? '')
    task.attempts.failed++
    task.failures++
    const waitMs = toRetryDelay(
      {
        failures: task.failures,
        retryAfterMs: error instanceof AcmeError ? error.retryAfterMs : undefined,
        lifeMs: shown && shown.notAfter - shown.notBefore,
      },
      random(),
    )
    task.againAt = monotonic() + waitMs
    const why = error instanceof AcmeError ? error.message : `something went wrong in the gateway (${toCode(error)})`
    const still = shown ? `the one there is is good until ${toDay(shown.notAfter)}` : 'a self-signed one stands in'
    report(`certificate for ${enumerate(task.hosts)}: not issued, ${why}; tried again in ${toWords(waitMs)}, ${still}`)
    return waitMs
  }

  /** Once a day, when renewing should have come about long ago. */
  function warn(task: Task): void {
    const expiring = task.hosts.map(certificates.filesOf).find((one) => one && isExpiring(one, now()))
    if (!expiring || monotonic() < task.alarmAt) return
    task.alarmAt = monotonic() + dayMs
    report(
      `ALARM: the certificate for ${enumerate(task.hosts)} ends on ${toDay(expiring.notAfter)} and is not renewed yet`,
    )
  }

  async function askForWindow(task: Task): Promise<void> {
    const shown = task.hosts.map(certificates.filesOf).find((one) => one?.folder === ownFolder(task))
    if (!shown || (task.askedFor === shown.certificate && monotonic() < task.askAt)) {
      if (!shown) task.askAt = Number.POSITIVE_INFINITY
      return
    }
    // What was said of the last certificate says nothing of this one.
    if (task.askedFor !== shown.certificate) task.window = undefined
    task.askedFor = shown.certificate
    task.askAt = monotonic() + dayMs
    try {
      const client = await openClient(task.acme)
      const said = await client.renewalWindow(shown.certificate, signal)
      task.window = said && { start: said.start, end: said.end }
      // RFC 9773 §4.3.2
      if (said) task.askAt = monotonic() + Math.min(dayMs, Math.max(limits.acmeCheckMs, said.againMs))
    } catch {
      // RFC 9773 §4.3.3: without it, its life alone decides.
    }
  }

  function openClient(acme: CompiledAcme): Promise<AcmeClient> {
    const id = JSON.stringify([acme.directory, acme.email, acme.caFile])
    const known = clients.get(id)
    if (known) return known
    const made = makeClient(acme)
    clients.set(id, made)
    made.catch(() => clients.delete(id))
    return made
  }

  async function makeClient({ directory: url, email, caFile }: CompiledAcme): Promise<AcmeClient> {
    const ca = caFile === undefined ? undefined : await readAuthority(caFile)
    const { keys, unsaved } = await files.openAccount(url)
    if (unsaved !== undefined) report(`the key of the account at ${new URL(url).host} cannot be saved (${unsaved})`)
    return createClient({ directory: url, ca, email, accountKeys: keys, wait, monotonic })
  }

  function start(): void {
    running ??= (async () => {
      while (!signal.aborted) await wait(Math.min(await step(), limits.acmeCheckMs) + 1_000, signal).catch(() => {})
    })()
  }

  async function stop(): Promise<void> {
    leaving.abort()
    await running
    for (const client of await Promise.allSettled(clients.values()))
      if (client.status === 'fulfilled') await client.value.close()
  }

  const ownFolder = ({ name }: Task): string => join(directory, 'issued', name)

  function gauges(): Gauge[] {
    if (tasks.length === 0) return []
    const of = (value: (task: Task) => number): Sample[] =>
      tasks.map((task) => ({ labels: { certificate: task.name }, value: value(task) }))
    const attempts = (result: 'issued' | 'failed'): Sample[] =>
      tasks.map((task) => ({ labels: { certificate: task.name, result }, value: task.attempts[result] }))
    return [
      {
        name: 'daemun_acme_orders_total',
        type: 'counter',
        help: 'Certificates that were ordered, by what came of it.',
        value: [...attempts('issued'), ...attempts('failed')],
      },
      {
        name: 'daemun_acme_failures_in_a_row',
        help: 'Orders that failed since the last that did not.',
        value: of(({ failures }) => failures),
      },
      {
        name: 'daemun_acme_unsaved',
        help: '1: the certificate is held in memory, since it cannot be saved.',
        value: of(({ unsaved }) => Number(unsaved !== undefined)),
      },
    ]
  }

  return {
    start,
    step,
    swap: (compiled) => {
      tasks = toTasks(compiled, tasks)
    },
    gauges,
    stop,
  }
}

const dayMs = 86_400_000
const saveAgainMs = 60_000
/** After an order all of it is looked at again. */
const soonMs = 1_000
/** Another process is ordering: by then it may be done. */
const lockedMs = 10_000

/** One per site, which keeps what was learnt of it under other tables. */
function toTasks({ sites }: CompiledGateway, before: Task[]): Task[] {
  return sites.flatMap(({ hosts: all, acme }) => {
    const hosts = all.filter((host) => acme?.isOrdered(host))
    const [name] = hosts
    if (!acme || name === undefined) return []
    const known = before.find((task) => task.hosts.join() === hosts.join() && task.acme.directory === acme.directory)
    if (known) return [Object.assign(known, { acme })]
    return [
      {
        name,
        hosts,
        acme,
        attempts: { issued: 0, failed: 0 },
        failures: 0,
        againAt: 0,
        window: undefined,
        askedFor: undefined,
        askAt: Number.POSITIVE_INFINITY,
        unsaved: undefined,
        saveAt: 0,
        alarmAt: 0,
      },
    ]
  })
}

async function readAuthority(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw new AcmeError('caFile', `${file} cannot be read (${toCode(error)})`)
  }
}

/** From 0 to 1, the same for one certificate however often the gateway is started. */
const toSpread = (certificate: string): number =>
  createHash('sha256').update(certificate).digest().readUInt32BE() / 0xffff_ffff

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new Error('stopped'))
    const leave = (): void => {
      clearTimeout(timer)
      reject(new Error('stopped'))
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', leave)
      resolve()
    }, ms)
    signal.addEventListener('abort', leave, { once: true })
  })
}

const toDay = (at: number | undefined = 0): string => new Date(at).toISOString().slice(0, 10)

const toWords = (ms: number): string =>
  ms < 7_200_000 ? `${Math.ceil(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`
