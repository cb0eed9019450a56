import { execFileSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createLogSink } from '#edge/node/log-sink.ts'

describe('the log', () => {
  it.skipIf(!existsSync('/dev/full'))('of a disk that is full drops lines and counts them', async () => {
    const descriptor = openSync('/dev/full', 'w')
    const sink = createLogSink(descriptor)
    for (let line = 0; line < 100; line++) sink.write(`line ${line}\n`)
    await sink.flush()
    expect(sink.dropped()).toBe(100)
    closeSync(descriptor)
  })

  it.skipIf(process.platform === 'win32')(
    'that nobody reads drops lines and counts them, and holds up nobody',
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'daemun-log-'))
      execFileSync('mkfifo', [join(folder, 'pipe')])
      const descriptor = openSync(join(folder, 'pipe'), 'r+')
      const sink = createLogSink(descriptor, { shared: true })
      const line = `${'x'.repeat(999)}\n`
      for (let count = 0; count < 10_000; count++) sink.write(line)
      expect(sink.dropped()).toBeGreaterThan(1_000)
      await sink.flush()
      rmSync(folder, { recursive: true })
    },
  )

  it.each([false, true])('has all lines, whole and in order (shared: %s)', async (shared) => {
    const folder = mkdtempSync(join(tmpdir(), 'daemun-log-'))
    const descriptor = openSync(join(folder, 'log'), 'a')
    const sink = createLogSink(descriptor, { shared })
    const lines = Array.from({ length: 500 }, (_, index) => `${index} ${'가'.repeat(index * 7)}\n`)
    for (const line of lines) sink.write(line)
    await sink.flush()
    expect(readFileSync(join(folder, 'log'), 'utf8')).toBe(lines.join(''))
    closeSync(descriptor)
    rmSync(folder, { recursive: true })
  })
})
