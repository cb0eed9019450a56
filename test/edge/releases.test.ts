import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { get } from '../support/get.ts'

/** New builds while the gateway runs: at once, and yesterday's pages still find their files. */
const parent = mkdtempSync(join(tmpdir(), 'daemun-releases-'))
let folder: string
let root: string
let gateway: TestGateway
let made = 0

beforeEach(async () => {
  folder = join(parent, String(made++))
  root = join(folder, 'web')
  mkdirSync(folder)
  gateway = await startTestGateway({
    name: 'releases',
    sites: [{ hosts: ['a.example'], routes: [{ path: '/*', files: { root, spa: true, releases: 2 } }] }],
  })
})
afterEach(async () => {
  await gateway.settled()
  expect(gateway.output()).not.toContain('internal error')
  await gateway.stop()
})
afterAll(() => rmSync(parent, { recursive: true }))

const hashOf = (build: number): string => `${build}f9a1c2${build}`
function makeBuild(build: number, name = `build-${build}`): void {
  const own = join(folder, name)
  mkdirSync(join(own, 'assets'), { recursive: true })
  writeFileSync(join(own, 'index.html'), `page ${build}`)
  writeFileSync(join(own, 'version.txt'), `text ${build}`)
  writeFileSync(join(own, 'assets', `app-${hashOf(build)}.js`), `script ${build}`)
}
function point(build: string): void {
  symlinkSync(build, join(folder, 'next'))
  renameSync(join(folder, 'next'), root)
}
const read = async (path: string): Promise<string> => {
  const { status, body } = await get(gateway.port, `http://a.example${path}`, { 'sec-fetch-mode': 'no-cors' })
  return status === 200 ? body.toString() : String(status)
}
const script = (build: number): Promise<string> => read(`/assets/app-${hashOf(build)}.js`)
const arrives = (build: number): Promise<void> =>
  expect.poll(() => read('/'), { timeout: 5_000 }).toBe(`page ${build}`) as Promise<void>

describe('a new build', () => {
  it('comes by a link that is switched, and earlier builds’ hashed files stay, as many as the row says', async () => {
    for (let build = 1; build <= 4; build++) {
      makeBuild(build)
      point(`build-${build}`)
      await arrives(build)
      expect(await script(build)).toBe(`script ${build}`)
      if (build > 1) rmSync(join(folder, `build-${build - 1}`), { recursive: true })
      expect(await read('/version.txt')).toBe(`text ${build}`)
    }
    await expect.poll(() => script(1)).toBe('404')
    expect(await Promise.all([2, 3, 4].map(script))).toEqual(['script 2', 'script 3', 'script 4'])
  })

  it('comes by a folder that takes the place of another, though nobody asked for the files before', async () => {
    makeBuild(1, 'web')
    await arrives(1)
    await new Promise((resolve) => setTimeout(resolve, 100))
    makeBuild(2, 'new')
    renameSync(root, join(folder, 'old'))
    renameSync(join(folder, 'new'), root)
    rmSync(join(folder, 'old'), { recursive: true })
    await arrives(2)
    const { status, headers, body } = await get(gateway.port, `http://a.example/assets/app-${hashOf(1)}.js`)
    expect([status, body.toString(), headers['cache-control']]).toEqual([
      200,
      'script 1',
      'public, max-age=31536000, immutable',
    ])
    expect(await script(2)).toBe('script 2')
  })

  it('written over the last one is noticed by its index', async () => {
    makeBuild(1, 'web')
    await arrives(1)
    await new Promise((resolve) => setTimeout(resolve, 100))
    rmSync(join(root, 'assets'), { recursive: true })
    makeBuild(2, 'web')
    await arrives(2)
    expect(await Promise.all([1, 2].map(script))).toEqual(['script 1', 'script 2'])
  })

  it('begins for all files at once: what was read of the one is not served with the other', async () => {
    for (let build = 1; build <= 3; build++) makeBuild(build)
    point('build-1')
    await arrives(1)
    for (let build = 2; build <= 3; build++) {
      expect(await read('/version.txt')).toBe(`text ${build - 1}`)
      point(`build-${build}`)
      // Not known yet, so the disk is asked: from here on nothing is of the last build.
      expect(await script(build)).toBe(`script ${build}`)
      expect(await read('/version.txt')).toBe(`text ${build}`)
      expect(await read('/')).toBe(`page ${build}`)
    }
  })

  it('of a folder that is away for a moment: what is in memory goes on', async () => {
    makeBuild(1, 'web')
    await arrives(1)
    renameSync(root, join(folder, 'away'))
    const until = Date.now() + 1_500
    while (Date.now() < until) {
      expect(await read('/')).toBe('page 1')
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    makeBuild(2, 'web')
    await arrives(2)
  })

  it('files without a hash are gone with their build', async () => {
    makeBuild(1)
    point('build-1')
    await arrives(1)
    writeFileSync(join(folder, 'build-1', 'once.txt'), 'once')
    expect(await read('/once.txt')).toBe('once')
    makeBuild(2)
    point('build-2')
    await arrives(2)
    expect(await read('/once.txt')).toBe('404')
  })
})
