import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { BoundSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { readSystemd } from '#edge/node/systemd.ts'
import { get } from '../support/get.ts'

/** What a service manager gives and is told (sd_listen_fds(3), sd_notify(3)), and the units that are shipped. */
const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'daemun-systemd-'))
const table = { name: 'shop', sites: [{ hosts: ['shop.example'], routes: [{ path: '/*', respond: { status: 200 } }] }] }
writeFileSync(join(folder, 'shop.ts'), `export default ${JSON.stringify(table)}\n`)
afterAll(() => rmSync(folder, { recursive: true }))

const has = (...command: string[]): boolean => spawnSync(command[0] ?? '', command.slice(1)).error === undefined
const hasNotify = has('systemd-notify', '--version') && has('python3', '--version')
const hasAnalyze = has('systemd-analyze', '--version')
if (!hasNotify || !hasAnalyze) process.stderr.write('no systemd here: what it is told is not tested\n')

describe('sockets that are given', () => {
  it.each([
    ['none', {}, {}],
    ['of another process', { LISTEN_PID: '8', LISTEN_FDS: '1' }, {}],
    ['one', { LISTEN_PID: '7', LISTEN_FDS: '1', LISTEN_FDNAMES: 'daemun.socket' }, { http: 3 }],
    ['two', { LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'daemun.socket:daemun.socket' }, { http: 3, https: 4 }],
    ['named', { LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'https:http' }, { https: 3, http: 4 }],
    ['only https', { LISTEN_PID: '7', LISTEN_FDS: '1', LISTEN_FDNAMES: 'https' }, { https: 3 }],
  ])('are told apart: %s', (_, environment, sockets) => {
    expect(readSystemd(environment, 7).sockets).toEqual(sockets)
  })

  it('are refused when there are too many, or one has a name that says nothing', () => {
    expect(() => readSystemd({ LISTEN_PID: '7', LISTEN_FDS: '3' }, 7)).toThrow('LISTEN_FDS is 3')
    expect(() => readSystemd({ LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'http:admin' }, 7)).toThrow(
      "LISTEN_FDNAMES has 'admin'",
    )
  })

  it('a watchdog of another process is not ours', () => {
    expect(readSystemd({ WATCHDOG_USEC: '30000000' }, 7).watchdogMs).toBe(30_000)
    expect(readSystemd({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '8' }, 7).watchdogMs).toBeUndefined()
  })

  it.each(['1', '2'])('are served on, and stay open when the gateway ends (--workers %s)', async (workers) => {
    using socket = new BoundSocket({ host: '127.0.0.1', port: 0 })
    const { port } = socket.address()
    for (let start = 0; start < 2; start++) {
      const child = activate(socket, ['--workers', workers])
      // Somebody has to listen once, as systemd has; from then on clients wait while nobody takes them.
      if (start === 0) while (!(await accepts(port))) await new Promise((resolve) => setTimeout(resolve, 20))
      expect((await get(port, 'http://shop.example/')).status).toBe(200)
      child.kill('SIGTERM')
      expect(await once(child, 'exit')).toEqual([0, null])
    }
  })
})

const accepts = (port: number): Promise<boolean> =>
  get(port, 'http://shop.example/').then(
    () => true,
    () => false,
  )

/** As systemd starts it: LISTEN_PID is known only once the process is there. */
function activate(socket: BoundSocket, args: string[], env: Record<string, string> = {}): ChildProcess {
  const main = join(root, 'edge/cli/main.ts')
  const command = `LISTEN_PID=$$ exec "$0" "$@"`
  return spawn('sh', ['-c', command, process.execPath, main, 'serve', 'shop.ts', '--admin', ':0', ...args], {
    cwd: folder,
    env: { PATH: process.env['PATH'], LISTEN_FDS: '1', LISTEN_FDNAMES: 'daemun.socket', ...env },
    stdio: ['ignore', 'ignore', 'ignore', socket.fd()],
  })
}

describe.skipIf(!hasNotify)('what a service manager is told', () => {
  it('ready, reloading, whether the tables were taken, that it lives, stopping', async () => {
    using socket = new BoundSocket({ host: '127.0.0.1', port: 0 })
    const manager = join(folder, 'notify')
    const heard = spawn('python3', ['-uc', listenScript, manager], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    heard.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    const says = async (wanted: RegExp): Promise<void> => {
      while (!wanted.test(text)) await new Promise((resolve) => setTimeout(resolve, 20))
      text = text.replace(wanted, '')
    }
    while (!existsSync(manager)) await new Promise((resolve) => setTimeout(resolve, 20))
    const child = activate(socket, [], { NOTIFY_SOCKET: manager, WATCHDOG_USEC: '400000' })
    await says(/READY=1\nSTATUS=serving/)
    await says(/WATCHDOG=1/)
    child.kill('SIGHUP')
    await says(/RELOADING=1\nMONOTONIC_USEC=\d+/)
    await says(/READY=1\nSTATUS=serving\n/)
    const good = readFileSync(join(folder, 'shop.ts'))
    writeFileSync(join(folder, 'shop.ts'), 'export default {}')
    child.kill('SIGHUP')
    await says(/READY=1\nSTATUS=serving, but the last reload was refused/)
    writeFileSync(join(folder, 'shop.ts'), good)
    child.kill('SIGTERM')
    await says(/STOPPING=1/)
    expect(await once(child, 'exit')).toEqual([0, null])
    heard.kill()
  })
})

/** Prints what it is told; closes what comes with it, for which `systemd-notify` waits. */
const listenScript = `
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
  text, extra, _, _ = s.recvmsg(4096, 1024)
  for level, kind, data in extra:
    if kind == socket.SCM_RIGHTS:
      for fd in array.array('i', data): os.close(fd)
  print(text.decode())
`

describe('the units', () => {
  const units = join(root, 'compose/systemd')

  it('take sockets and tell how they are, and need no right', () => {
    const service = readFileSync(join(units, 'daemun.service'), 'utf8')
    for (const line of [
      'Type=notify',
      'NotifyAccess=all',
      'Requires=daemun.socket',
      'CapabilityBoundingSet=',
      'DynamicUser=true',
    ])
      expect(service.split('\n')).toContain(line)
  })

  it.skipIf(!hasAnalyze).each([
    ['daemun.service', []],
    ['moviesir-backup.service', ['moviesir-backup.timer']],
  ])('%s is found right by systemd, and hardly exposed', (unit, besides) => {
    const there = join(folder, unit)
    cpSync(units, there, { recursive: true })
    const file = join(there, unit)
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll('/opt/daemun/', root))
    const files = [file, ...besides.map((name) => join(there, name))]
    const { stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...files], { encoding: 'utf8' })
    const complaints = `${stdout}${stderr}`.split('\n').filter((line) => /daemun|moviesir/.test(line))
    expect(complaints).toEqual([])
    const exposed = spawnSync('systemd-analyze', ['security', '--offline=true', '--threshold=20', file], {
      encoding: 'utf8',
    })
    expect(exposed.stdout).toContain('Overall exposure level')
    expect(exposed.status).toBe(0)
  })
})
