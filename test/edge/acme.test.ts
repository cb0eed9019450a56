import { rmSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { isExpiring, toRenewalTime, toRetryDelay } from '#edge/acme-schedule.ts'
import { compileTables, ConfigError } from '#edge/compile.ts'
import type { CompiledGateway } from '#edge/compile.ts'
import { createAcmeFiles } from '#edge/node/acme-files.ts'
import { AcmeError } from '#edge/node/acme-client.ts'
import type { AcmeClient } from '#edge/node/acme-client.ts'
import { createAcme } from '#edge/node/acme.ts'
import type { Acme } from '#edge/node/acme.ts'
import { openCertificates } from '#edge/node/certificates.ts'
import type { Certificates } from '#edge/node/certificates.ts'
import { issueCertificate } from '#edge/node/issue-certificate.ts'
import type { Acme as AcmeTable, Table } from '#edge/table.ts'
import { createCertificateFolder } from '../support/certificates.ts'

const hour = 3_600_000
const day = 24 * hour
const at = (days: number): number => Date.UTC(2026, 0, 1) + days * day

describe('when a certificate is renewed', () => {
  const life = { notBefore: at(0), notAfter: at(90) }

  it.each([
    [0, 60],
    [1, 55.5],
  ])('spread %d: after %d of 90 days', (spread, days) => {
    expect(toRenewalTime(life, spread)).toBe(at(days))
  })

  it('is when the authority says so, if that is earlier', () => {
    expect(toRenewalTime(life, 0.5, { start: at(10), end: at(12) })).toBe(at(11))
    expect(toRenewalTime(life, 0, { start: at(70), end: at(80) })).toBe(at(60))
    expect(toRenewalTime(life, 0, { start: at(12), end: at(10) })).toBe(at(60))
  })

  it('is before it counts as expiring', () => {
    for (const days of [6, 90, 398]) {
      const one = { notBefore: at(0), notAfter: at(days) }
      for (const spread of [0, 0.5, 1]) expect(isExpiring(one, toRenewalTime(one, spread) - 1)).toBe(false)
      expect(isExpiring(one, at((days * 2) / 3) + 1)).toBe(true)
    }
  })
})

describe('after a failure', () => {
  const wait = (failures: number, retryAfterMs?: number, lifeMs?: number): number =>
    toRetryDelay({ failures, retryAfterMs, lifeMs }, 0) / 60_000

  it('the wait is twice as long each time, up to a 180th of a life', () => {
    expect([1, 2, 3, 4, 9, 10, 1_000].map((failures) => wait(failures))).toEqual([2, 4, 8, 16, 512, 720, 720])
    expect([1, 5, 6, 1_000].map((failures) => wait(failures, undefined, 6 * day))).toEqual([2, 32, 48, 48])
  })

  it('the authority is obeyed, up to a day', () => {
    expect(wait(1, hour)).toBe(60)
    expect(wait(20, hour)).toBe(720)
    expect(wait(1, 1_000 * day)).toBe(1_440)
  })

  it('no two wait the same', () => {
    expect(toRetryDelay({ failures: 1, retryAfterMs: undefined, lifeMs: undefined }, 1)).toBe(150_000)
  })
})

const toTable = (acme: Partial<AcmeTable> = {}, hosts = ['shop.example']): Table => ({
  name: 'shop',
  tls: { acme: { email: 'admin@shop.example', directory: 'https://ca.example/dir', ...acme } },
  sites: [{ hosts, routes: [{ path: '/*', respond: { status: 200 } }] }],
})
const compile = (table: Table): Promise<CompiledGateway> =>
  compileTables([{ table }], { environment: {}, development: true })

describe('years of renewing, by a clock of its own', () => {
  vi.setConfig({ testTimeout: 40_000 })
  const folder = createCertificateFolder()
  let clock = at(0)
  let ticks = 0
  let lifeMs = 90 * day
  let answers: (now: number) => boolean = () => true
  let orders = 0
  let attempts = 0
  const reports: string[] = []
  let certificates: Certificates
  let acme: Acme

  const client: AcmeClient = {
    order: async ({ names }) => {
      attempts++
      if (!answers(clock)) throw new AcmeError('unreachable', 'ca.example')
      orders++
      const [notBefore, notAfter] = [new Date(clock - hour), new Date(clock - hour + lifeMs)]
      return issueCertificate({ commonName: 'x', names, notBefore, notAfter })
    },
    renewalWindow: async () => undefined,
    close: async () => {},
  }

  async function open(table = toTable()): Promise<void> {
    const compiled = await compile(table)
    const report = (line: string): void => void reports.push(line)
    certificates = await openCertificates({
      compiled,
      directory: folder.path,
      development: false,
      report,
      now: () => clock,
    })
    acme = createAcme({
      compiled,
      directory: folder.path,
      certificates,
      files: createAcmeFiles(folder.path),
      report,
      now: () => clock,
      monotonic: () => ticks,
      random: () => 0.5,
      createClient: () => client,
    })
  }

  /** Steps through so many days; resolves with how long at the longest there was no certificate that is good. */
  async function live(days: number): Promise<number> {
    const end = ticks + days * day
    let longest = 0
    let since: number | undefined
    while (ticks < end) {
      // The clock may jump: what is due by it is looked at in time.
      const waitMs = Math.max(1, Math.min(await acme.step(), day, end - ticks))
      const { notAfter = 0 } = certificates.filesOf('shop.example') ?? {}
      const goodMs = Math.max(0, Math.min(waitMs, notAfter - clock))
      if (goodMs < waitMs) since ??= ticks + goodMs
      else if (since !== undefined) since = undefined
      ticks += waitMs
      clock += waitMs
      if (since !== undefined) longest = Math.max(longest, ticks - since)
    }
    return longest
  }

  beforeEach(() => {
    clock = at(0)
    ticks = 0
    lifeMs = 90 * day
    answers = () => true
    orders = 0
    attempts = 0
    reports.length = 0
  })
  afterEach(async () => {
    await acme.stop()
    certificates.close()
    rmSync(folder.path, { recursive: true, force: true })
  })

  it('a year of 90 days each: an order every 55 to 60 days, and no more', async () => {
    await open()
    await live(1)
    expect(await live(364)).toBe(0)
    expect(orders).toBeGreaterThanOrEqual(365 / 60 - 1)
    expect(orders).toBeLessThanOrEqual(365 / 55 + 1)
    expect(attempts).toBe(orders)
  })

  it.each([0, 29])(
    'a certificate of 90 days never expires while the authority answers one day in thirty (the %dth)',
    async (answering) => {
      await open()
      await live(1)
      answers = (now) => Math.floor((now - at(0)) / day) % 30 === answering
      expect(await live(300)).toBe(0)
    },
  )

  it('nor one of six days while it answers one hour a day', async () => {
    lifeMs = 160 * hour
    await open()
    await live(1)
    answers = (now) => Math.floor((now - at(0)) / hour) % 24 === 17
    expect(await live(24)).toBe(0)
  })

  it('an authority that is gone costs little, is said, and found again', async () => {
    await open()
    await live(1)
    answers = (now) => now > at(100)
    await live(98)
    // From day 60: two minutes, four, … twelve hours.
    expect(attempts).toBeLessThan(110)
    expect(reports.find((line) => line.startsWith('ALARM'))).toMatch(
      /^ALARM: the certificate for shop\.example ends on 2026-03-31/,
    )
    expect(reports.filter((line) => line.startsWith('ALARM')).length).toBeLessThanOrEqual(41)
    await live(3)
    expect(orders).toBe(2)
  })

  it('a clock that jumps ahead or back orders what is due by it, and waits for nothing that lies in another time', async () => {
    await open()
    await live(1)
    clock += day
    await live(1)
    clock -= hour
    await live(1)
    expect(orders).toBe(1)
    clock += 70 * day
    await live(1)
    expect(orders).toBe(2)
    answers = () => false
    clock += 70 * day
    await live(1)
    clock -= 1_000 * day
    answers = () => true
    await live(1)
    // That far back the certificate is not yet valid: nothing else would do then.
    clock += 1_000 * day
    const before = orders
    await live(2)
    expect(orders).toBeLessThanOrEqual(before + 1)
    expect(certificates.filesOf('shop.example')?.notAfter).toBeGreaterThan(clock)
  })

  it('the authority may ask for it earlier', async () => {
    await open()
    await live(1)
    let asked = 0
    client.renewalWindow = async () => {
      asked++
      const first = orders === 1 ? 5 : 50
      return { start: at(first), end: at(first + 1), againMs: 6 * hour }
    }
    await live(6)
    client.renewalWindow = async () => undefined
    expect(orders).toBe(2)
    expect(asked).toBeLessThanOrEqual(6 * 4 + 2)
  })

  it('a certificate by hand is left to who put it there, until nobody renews it', async () => {
    const [notBefore, notAfter] = [new Date(at(-1)), new Date(at(89))]
    folder.put('shop.example', issueCertificate({ commonName: 'hand', names: ['shop.example'], notBefore, notAfter }))
    await open()
    await live(73)
    expect(orders).toBe(0)
    expect(await live(100)).toBe(0)
    expect(orders).toBeGreaterThan(0)
  })

  it('another host, another authority: another certificate at once; other tables: what was learnt stays', async () => {
    await open()
    await live(2)
    acme.swap(await compile(toTable()))
    await live(2)
    expect(orders).toBe(1)
    acme.swap(await compile(toTable({ directory: 'https://other.example/dir' })))
    await live(2)
    expect(orders).toBe(2)
  })

  it('what cannot be issued well is not asked for again and again', async () => {
    lifeMs = -day
    await open()
    await live(10)
    expect(attempts).toBeLessThan(30)
  })
})

describe('a table that orders certificates', () => {
  const faultsOf = async (table: unknown): Promise<string[]> => {
    try {
      await compileTables([{ table }], { environment: {}, development: false })
      return []
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      return error.faults.map(({ at: place, problem, fix }) => `${place} ${problem}: ${fix}`)
    }
  }

  it.each<[string, Table, string]>([
    ['an address', toTable({ email: 'me' }), "tls.acme.email is 'me': write an address such as"],
    ['a directory by http', toTable({ directory: 'http://ca.example/' }), 'tls.acme.directory is'],
    [
      'a misspelt key',
      toTable({ emial: 'a@b.c' } as object),
      "tls.acme has an unknown key 'emial': did you mean 'email'?",
    ],
    [
      'a wildcard',
      toTable({}, ['a.example', '*.a.example']),
      "tls.acme would order a certificate for '*.a.example', which nobody can prove over HTTP",
    ],
    [
      'a wildcard by name',
      toTable({ hosts: ['*.a.example'] }, ['*.a.example']),
      "tls.acme.hosts would order a certificate for '*.a.example'",
    ],
    [
      'an address for a host',
      toTable({}, ['192.0.2.1']),
      "tls.acme would order a certificate for '192.0.2.1', which is an address",
    ],
    [
      'a host that is nowhere',
      toTable({ hosts: ['shop.exampl'] }),
      "tls.acme.hosts names 'shop.exampl', which no site of the table has: did you mean 'shop.example'?",
    ],
    [
      'more hosts than fit',
      toTable(
        {},
        Array.from({ length: 101 }, (_, n) => `h${n}.a.dev`),
      ),
      'sites[0].hosts has 101 hosts for one certificate: at most 100',
    ],
  ])('%s is a fault', async (_, table, fault) => {
    const faults = await faultsOf(table)
    expect(faults).toHaveLength(1)
    expect(faults[0]).toContain(fault)
  })

  it("hosts that are in no public DNS are faults with Let's Encrypt only", async () => {
    const { directory: _, ...acme } = toTable().tls?.acme ?? { email: '' }
    const table = { ...toTable({}, ['shop.example', 'box.local', 'shop.dev']), tls: { acme } }
    expect(await faultsOf(table)).toEqual([
      expect.stringContaining("'shop.example', which is not in the public DNS"),
      expect.stringContaining("'box.local', which is not in the public DNS"),
    ])
  })

  it('without an email orders nothing, so that a variable can turn it on', async () => {
    const { sites } = await compile(toTable({ email: '' }, ['*.a.example']))
    expect(sites.map(({ acme }) => acme)).toEqual([undefined])
  })
})
