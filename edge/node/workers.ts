import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { limits } from '../limits.ts'
import { mergeCounts } from '../merge-counts.ts'
import type { Gauge } from '../metrics.ts'
import type { LocalLimiter } from '../local-limiter.ts'
import type { WorkerStatus } from '../status.ts'
import type { SplitReport } from '../upstreams/split-tally.ts'
import { createChannel } from './channel.ts'
import type { Channel } from './channel.ts'
import { mergeMetrics } from './merge-metrics.ts'
import { withoutSystemd } from './systemd.ts'
import type { AdminAnswer, AdminRequest, Ports, StartOrder, Told, ToSupervisor, ToWorker } from './worker-protocol.ts'

export interface WorkersOptions {
  count: number
  /** What a worker runs. */
  program: URL
  /** What a worker is to be started with now. */
  order: () => StartOrder
  /** Counts for all of them. */
  limiter: LocalLimiter
  report: (line: string) => void
  /** No worker stays alive: there is no use in going on. */
  onHopeless: () => void
}

/** The processes that serve. One that ends is followed by another at once; one that hangs is ended. */
export interface Workers {
  /** Resolves when all are ready; rejects with the first fault. */
  start(): Promise<Ports>
  ready(): number
  /** Has all swap their tables; who does not manage to is replaced. */
  swap(): Promise<void>
  /** Puts a new worker in the place of each, one after another; the old ones end with the requests they have. */
  replaceAll(): Promise<void>
  /** Asks one worker, or all of them. */
  askOne(request: AdminRequest): Promise<AdminAnswer>
  askAll(request: AdminRequest): Promise<AskedAll>
  /** What all of them tell of themselves now, or told last. */
  hear(): Promise<Heard>
  setWeights(id: string, weights: readonly number[]): void
  /** What all of them have counted of splits since the last time. */
  takeReports(): Promise<SplitReport[]>
  gauges(): Gauge[]
  /** Lets all of them end with the requests they have. */
  stop(): Promise<void>
}

interface AskedAll {
  answers: AdminAnswer[]
  /** The processes that did not answer. */
  silent: number[]
}

export interface Heard {
  workers: WorkerStatus[]
  told: Told[]
  /** What those that are gone have counted. */
  gone: Counted[]
}

type Counted = Pick<Told, 'metrics' | 'counts'>

interface Worker {
  child: ChildProcess
  channel: Channel<ToWorker>
  slot: number
  state: 'starting' | 'ready' | 'draining'
  startedAt: number
  /** When its event loop was last known to turn. */
  seenAt: number
  told: Told | undefined
  /** Whether it told when it was asked last. */
  answered: boolean
  exited: Promise<void>
}

export function createWorkers({ count, program, order, limiter, report, onHopeless }: WorkersOptions): Workers {
  const workers = new Set<Worker>()
  const ends = { crashed: 0, stalled: 0, replaced: 0 }
  /** Crashes in a row, of workers that did not live long. */
  const failures = new Map<number, number>()
  let gone: Counted[] = []
  let ports: Ports = { http: 0, https: undefined }
  let stopping = false
  let lookedAt = performance.now()
  const timer = setInterval(look, lookMs)

  const isReady = ({ state }: Worker): boolean => state === 'ready'
  const allReady = (): Worker[] => [...workers].filter(isReady)

  /** Whether somebody is there, or about to be. */
  const isServed = (slot: number): boolean =>
    [...workers].some((worker) => worker.slot === slot && worker.state !== 'draining')

  function spawn(slot: number): Worker {
    const { http, https } = order()
    const child = fork(fileURLToPath(program), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', http.descriptor, ...(https ? [https.descriptor] : [])],
      serialization: 'advanced',
      env: withoutSystemd(process.env),
    })
    const exited = Promise.withResolvers<void>()
    const worker: Worker = {
      child,
      slot,
      state: 'starting',
      startedAt: performance.now(),
      seenAt: performance.now(),
      told: undefined,
      answered: true,
      exited: exited.promise,
      channel: createChannel<ToWorker, ToSupervisor>(child, {
        take: (taking) => taking.map(({ rule, key }) => limiter.take(rule, key)),
        failing: () => replace(worker),
      }),
    }
    workers.add(worker)
    const end = (how: string): void => {
      if (!workers.delete(worker)) return
      keepCounted(worker)
      exited.resolve()
      if (worker.state !== 'draining' && !stopping && !isServed(slot)) follow(worker, how)
    }
    child.once('exit', (code, signal) => end(signal ?? `exit code ${code}`))
    child.once('error', (error) => end(error.message))
    return worker
  }

  /** Resolves when it takes requests. */
  async function open(slot: number): Promise<Worker> {
    const worker = spawn(slot)
    const given = order()
    const { http, https } = given
    try {
      ports = await worker.channel.ask(
        'start',
        { ...given, http: { ...http, descriptor: 4 }, https: https && { ...https, descriptor: 5 } },
        limits.workerStartMs,
      )
      worker.state = 'ready'
      worker.seenAt = performance.now()
      return worker
    } catch (error) {
      worker.child.kill('SIGKILL')
      await worker.exited
      report(`a worker did not start: ${toText(error)}`)
      throw new Error(`a worker did not start: ${toText(error)}`, { cause: error })
    }
  }

  /** Another one takes the place of a worker that has ended: at once, unless it never lives long. */
  function follow({ slot, startedAt, child }: Worker, how: string): void {
    ends.crashed++
    const lived = performance.now() - startedAt
    const failed = lived < limits.workerProvenMs ? (failures.get(slot) ?? 0) + 1 : 1
    failures.set(slot, failed)
    if (failed > limits.workerFailuresMax && workers.size === 0) return onHopeless()
    const waitMs = failed === 1 ? 0 : Math.min(restartMs * 2 ** (failed - 2), limits.workerRestartMsMax)
    report(`worker ${child.pid} ended (${how}); another one starts${waitMs > 0 ? ` in ${waitMs} ms` : ''}`)
    setTimeout(() => {
      if (!stopping) open(slot).catch(() => {})
    }, waitMs)
  }

  async function replace(worker: Worker): Promise<void> {
    if (worker.state === 'draining') return
    await open(worker.slot)
    ends.replaced++
    void drain(worker)
  }

  async function drain(worker: Worker): Promise<void> {
    worker.state = 'draining'
    const { channel, child, exited } = worker
    worker.told = await channel.ask('drain', undefined, limits.drainMs + marginMs).catch(() => worker.told)
    // It ends when nobody talks to it any more.
    if (child.connected) child.disconnect()
    const kill = setTimeout(() => child.kill('SIGKILL'), marginMs)
    await exited
    clearTimeout(kill)
  }

  /** Whose event loop does not turn serves nobody. When this process was the one that slept, nobody is to blame. */
  function look(): void {
    const now = performance.now()
    const slept = now - lookedAt > limits.workerStallMs / 2
    lookedAt = now
    for (const worker of allReady()) {
      if (slept) worker.seenAt = now
      if (now - worker.seenAt > limits.workerStallMs) {
        report(`worker ${worker.child.pid} has not answered for ${limits.workerStallMs} ms and is ended`)
        ends.stalled++
        worker.child.kill('SIGKILL')
        continue
      }
      void ping(worker)
    }
  }

  async function ping(worker: Worker): Promise<void> {
    try {
      await worker.channel.ask('ping', undefined, limits.workerStallMs)
      worker.seenAt = performance.now()
    } catch {
      // Nothing was heard.
    }
  }

  async function hear(): Promise<Heard> {
    await Promise.all([...workers].map(listenTo))
    return {
      workers: [...workers].map(({ child, state, answered }) => ({ processId: child.pid ?? 0, state, answered })),
      told: [...workers].flatMap(({ told }) => told ?? []),
      gone,
    }
  }

  async function listenTo(worker: Worker): Promise<void> {
    if (worker.state === 'starting') return
    const told = await worker.channel.ask('tell', undefined, limits.workerTellMs).catch(() => undefined)
    worker.told = told ?? worker.told
    worker.answered = told !== undefined
  }

  /** What a worker has counted shall not be lost with it. */
  function keepCounted({ told }: Worker): void {
    if (!told) return
    const all = [...gone, told]
    const metrics = mergeMetrics(
      [],
      all.map((one) => one.metrics),
    )
    gone = [{ metrics, counts: mergeCounts(all.flatMap(({ counts }) => counts)) }]
  }

  async function swap(): Promise<void> {
    const { sources, environment } = order()
    await Promise.all(
      allReady().map((worker) =>
        worker.channel.ask('swap', { sources, environment }, limits.workerStartMs).catch((error: unknown) => {
          report(`worker ${worker.child.pid} did not take up the tables and is replaced: ${toText(error)}`)
          return replace(worker)
        }),
      ),
    )
  }

  async function askOne(request: AdminRequest): Promise<AdminAnswer> {
    const [worker] = allReady()
    if (!worker) throw new Error('no worker is ready')
    return worker.channel.ask('admin', request, askMs)
  }

  async function askAll(request: AdminRequest): Promise<AskedAll> {
    const asked = allReady().map(async ({ channel, child }) =>
      channel.ask('admin', request, askMs).catch(() => child.pid ?? 0),
    )
    const heard = await Promise.all(asked)
    return {
      answers: heard.filter((one) => typeof one === 'object'),
      silent: heard.filter((one) => typeof one === 'number'),
    }
  }

  return {
    start: async () => {
      await Promise.all(Array.from({ length: count }, (_, slot) => open(slot)))
      return ports
    },
    ready: () => allReady().length,
    swap,
    replaceAll: async () => {
      for (const worker of allReady()) await replace(worker)
    },
    askOne,
    askAll,
    hear,
    setWeights: (id, weights) => {
      for (const { channel } of workers) void channel.ask('weights', { id, weights }, askMs).catch(() => {})
    },
    takeReports: async () => {
      const asked = allReady().map(({ channel }) => channel.ask('reports', undefined, askMs).catch(() => []))
      return (await Promise.all(asked)).flat()
    },
    gauges: () => [
      { name: 'daemun_workers', help: 'Processes that take requests.', value: allReady().length },
      {
        name: 'daemun_workers_silent',
        help: 'Processes that did not tell what they have counted when they were asked last: what they told before counts.',
        value: [...workers].filter(({ answered }) => !answered).length,
      },
      {
        name: 'daemun_worker_ends_total',
        help: 'Workers that ended while they were wanted, or were replaced.',
        type: 'counter',
        value: Object.entries(ends).map(([why, value]) => ({ labels: { why }, value })),
      },
    ],
    stop: async () => {
      stopping = true
      clearInterval(timer)
      await Promise.all([...workers].map(drain))
    },
  }
}

const lookMs = 1_000
const askMs = 5_000
const marginMs = 5_000
const restartMs = 100

const toText = (error: unknown): string => (error instanceof Error ? error.message : String(error))
