import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createFolder, serveCli } from '../support/cli.ts'
import type { Served } from '../support/cli.ts'
import { ask, connectRaw } from '../support/raw-client.ts'
import type { RawClient } from '../support/raw-client.ts'

/** Of util-linux. */
const program = 'prlimit'
/** Why the process cannot be given fewer file descriptors here; undefined when it can. */
const noPrlimit = findFault()

function findFault(): string | undefined {
  try {
    execFileSync(program, ['--version'])
    return undefined
  } catch {
    return 'skipped: no prlimit on PATH (Debian: util-linux)'
  }
}

describe.skipIf(noPrlimit)(`a process without file descriptors${noPrlimit ? ` — ${noPrlimit}` : ''}`, () => {
  const folder = createFolder({
    'table.mjs': `export default { name: 'few', sites: [{ hosts: ['a.example'], routes: [
      { path: '/fixed', respond: { status: 200, body: 'fixed' } },
      { path: '/files/*', files: { root: '.' } },
    ] }] }`,
    'file.txt': 'a file',
  })
  let served: Served

  beforeAll(async () => {
    served = await serveCli(['table.mjs'], { folder: folder.path })
  })
  afterAll(async () => {
    expect(await served.stop()).toBe(0)
    folder.remove()
  })

  it('refuses connections, says nothing wrong, and serves again by itself when some are closed', async () => {
    const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a.example\r\n\r\n`
    const kept = await connectRaw(served.port)
    kept.send(get('/fixed'))
    expect((await kept.read())[0]?.body).toBe('fixed')
    execFileSync(program, ['--pid', String(served.child.pid), '--nofile=80:80'])
    const clients: RawClient[] = []
    for (let n = 0; n < 150; n++) clients.push(await connectRaw(served.port))
    for (const client of clients) client.send(get('/fixed'))
    // Some are served, the others are closed or wait: none gets anything else.
    await Promise.race([Promise.all(clients.map(({ closed }) => closed)), clients[0]?.read()])
    const got = clients.flatMap((client) => client.answers())
    expect(got.length).toBeLessThan(150)
    expect(got.every(({ status, body }) => status === 200 && body === 'fixed')).toBe(true)
    // Who has a connection goes on using it; a file that cannot be opened is an answer, not the end.
    kept.send(get('/fixed'))
    expect((await kept.read(2))[1]?.body).toBe('fixed')
    for (const { socket } of clients) socket.destroy()
    for (;;) {
      const answer = await ask(served.port, get('/files/file.txt')).catch(() => undefined)
      if (answer?.status === 200) break
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(served.child.exitCode).toBeNull()
    kept.socket.destroy()
  })
})
