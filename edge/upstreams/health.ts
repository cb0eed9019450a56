import { limits } from '../limits.ts'
import type { Failure } from './retry.ts'

/** Which servers of an upstream may be asked: learnt from their answers and, if the table says so, by checks. */
export interface Health {
  /** 0: not to be asked, 1: fully, between them: it has come back and is let warm up (`slowStartMs`). */
  share(index: number): number
  /** A server that was put aside and has been due for so long for one request that tries it; -1: none. */
  due(sinceMs?: number): number
  /** Makes the next request to this server its trial. */
  begin(index: number): void
  /** It answered, after so long. */
  succeeded(index: number, ms: number): void
  failed(index: number, failure: Failure, cause: string): void
  /** A request ended that says nothing of the server. */
  abandoned(index: number): void
  /** What a check found. */
  checked(index: number, good: boolean, cause: string): void
  isUp(index: number): boolean
  /** How often it was put aside. */
  ejections(index: number): number
  /** Why no server may be asked: the bound, and in how many milliseconds one may again. */
  closed(): { name: string; value: number; againMs: number }
}

/** A server was put aside or is back. */
export interface HealthChange {
  index: number
  up: boolean
  why: string
}

export interface HealthOptions {
  count: number
  slowStartMs: number
  healthyAfter: number
  unhealthyAfter: number
  /** Milliseconds that only grow. */
  now: () => number
  onChange: (change: HealthChange) => void
}

interface Server {
  up: boolean
  /** What put it aside: checks also bring it back, failures give way to a trial. */
  by: 'failures' | 'checks'
  changedAt: number
  /** When it may be tried again. */
  until: number
  trying: boolean
  /** Requests in a row that have tried it well. */
  trials: number
  /** In a row. */
  failures: number
  /** In a row: good checks above 0, bad ones below. */
  checks: number
  ejections: number
  /** How often it was put aside without having lasted in between. */
  relapses: number
  /** Of answers, moving. */
  meanMs: number
  answers: number
}

export function createHealth({
  count,
  slowStartMs,
  healthyAfter,
  unhealthyAfter,
  now,
  onChange,
}: HealthOptions): Health {
  const servers = Array.from({ length: count }, createServer)
  const at = (index: number): Server => servers[index] as Server
  /** Servers that are not up: while there are none, nobody looks for one that is due. */
  let down = 0

  function share(index: number): number {
    const { up, changedAt, ejections } = at(index)
    if (!up) return 0
    if (ejections === 0 || slowStartMs === 0) return 1
    const warm = (now() - changedAt) / slowStartMs
    return warm >= 1 ? 1 : Math.max(coldShare, warm)
  }

  function due(sinceMs = 0): number {
    if (down === 0) return -1
    const time = now() - sinceMs
    return servers.findIndex(({ up, by, until, trying }) => !up && by === 'failures' && !trying && time >= until)
  }

  function failed(index: number, failure: Failure, cause: string): void {
    const server = at(index)
    server.failures++
    if (!server.up) {
      if (server.trying) putOff(server)
      server.trying = false
      server.trials = 0
      return
    }
    if (server.failures < limits.upstreamFailuresMax || !maySpare(index, failure)) return
    eject(index, 'failures', `${server.failures} failures in a row, the last: ${cause}`)
  }

  /** The last one left is asked whatever it does, unless each request would wait in vain for a connection. */
  const maySpare = (index: number, failure: Failure): boolean =>
    failure === 'connect_timeout' || servers.some(({ up }, other) => up && other !== index)

  function succeeded(index: number, ms: number): void {
    const server = at(index)
    server.failures = 0
    if (!server.up) {
      if (server.by === 'failures' && server.trying) passTrial(index, server)
      return
    }
    if (count > 1) measure(index, server, ms)
  }

  /** One good answer may be chance: the next request tries it as well, and alone, before it gets its share again. */
  function passTrial(index: number, server: Server): void {
    server.trying = false
    server.trials++
    if (server.trials >= healthyAfter) bringBack(index, `it answered ${server.trials} times in a row`)
  }

  /** One that is far slower than the others is put aside too. */
  function measure(index: number, server: Server, ms: number): void {
    server.answers++
    server.meanMs += (ms - server.meanMs) / Math.min(server.answers, meanOver)
    if (server.meanMs < limits.slowServerMs || server.answers < meanOver || !maySpare(index, 'silent')) return
    const others = servers.filter((other) => other !== server && other.up && other.answers >= meanOver)
    if (others.length === 0 || others.some((other) => other.meanMs * slowerTimes > server.meanMs)) return
    eject(index, 'failures', `it takes ${Math.round(server.meanMs)} ms, more than ${slowerTimes} times the others`)
  }

  function checked(index: number, good: boolean, cause: string): void {
    const server = at(index)
    server.checks = good ? Math.max(0, server.checks) + 1 : Math.min(0, server.checks) - 1
    // At most one change in this time by checks, whatever they say.
    if (now() - server.changedAt < limits.healthChangeMs) return
    if (server.up && server.checks <= -unhealthyAfter)
      eject(index, 'checks', `${-server.checks} checks in a row failed, the last: ${cause}`)
    else if (!server.up && server.checks >= healthyAfter && now() >= server.until)
      bringBack(index, `${server.checks} checks in a row were good`)
  }

  function eject(index: number, by: Server['by'], why: string): void {
    const server = at(index)
    const time = now()
    // Whoever lasted as long as it was put aside for begins anew.
    if (time - server.changedAt > 2 * asideMs(server)) server.relapses = 0
    down++
    Object.assign(server, { up: false, by, changedAt: time, trying: false, trials: 0, answers: 0, meanMs: 0 })
    server.until = time + (servers.some(({ up }) => up) ? asideMs(server) : limits.ejectionMs)
    server.ejections++
    server.relapses++
    onChange({ index, up: false, why: `${why}; asked again in ${Math.round((server.until - time) / 1_000)} s` })
  }

  function putOff(server: Server): void {
    server.until = now() + (servers.some(({ up }) => up) ? asideMs(server) : limits.ejectionMs)
    server.relapses++
  }

  function bringBack(index: number, why: string): void {
    down--
    Object.assign(at(index), { up: true, changedAt: now(), trying: false, failures: 0 })
    onChange({ index, up: true, why })
  }

  function closed(): { name: string; value: number; againMs: number } {
    const time = now()
    const byChecks = servers.some(({ by }) => by === 'checks')
    return {
      ...(byChecks
        ? { name: 'unhealthyAfter', value: unhealthyAfter }
        : { name: 'upstreamFailuresMax', value: limits.upstreamFailuresMax }),
      againMs: Math.max(0, Math.min(...servers.map(({ until }) => until)) - time),
    }
  }

  return {
    share,
    due,
    begin: (index) => {
      if (down > 0 && !at(index).up) at(index).trying = true
    },
    succeeded,
    failed,
    abandoned: (index) => {
      if (down > 0) at(index).trying = false
    },
    checked,
    isUp: (index) => at(index).up,
    ejections: (index) => at(index).ejections,
    closed,
  }
}

const createServer = (): Server => ({
  up: true,
  by: 'failures',
  changedAt: Number.NEGATIVE_INFINITY,
  until: 0,
  trying: false,
  trials: 0,
  failures: 0,
  checks: 0,
  ejections: 0,
  relapses: 0,
  meanMs: 0,
  answers: 0,
})

/** Longer with each relapse. */
const asideMs = ({ relapses }: Server): number => Math.min(limits.ejectionMs * 2 ** relapses, limits.ejectionMsMax)

/** Of its weight, at the least, what a server gets that has just come back. */
const coldShare = 0.1
const meanOver = 10
const slowerTimes = 5
