import { availableParallelism } from 'node:os'

import { defineConfig } from 'vitest/config'
import { BaseSequencer } from 'vitest/node'
import type { TestSpecification } from 'vitest/node'
import { keepCompiled } from './edge/node/compile-cache.ts'

// Each test file has a process of its own, which need not compile again what another one has.
keepCompiled()

/** Where a machine-readable account of the tests goes, besides the one for people. */
const report = process.env['DAEMUN_TEST_REPORT']

/** What takes longest, longest first: begun last, one of these would keep one core busy at the end and no other. */
const long = [
  'docs/commands',
  'compose/embedded',
  'cli/workers',
  'wire/acme',
  'browser/admin-page',
  'origin/moviesir-pages',
  'edge/acme',
  'cli/serve',
  'origin/moviesir',
  'gpu-worker/recommender-service',
  'origin/homework-helper',
]

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const found = long.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`))
      return found === -1 ? long.length : found
    }
    return (await super.sort(files)).sort((one, other) => place(one) - place(other))
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    sequence: { sequencer: LongestFirst },
    // Most test files wait for other processes and for clocks, so they share cores well.
    maxWorkers: Math.max(4, availableParallelism()),
    testTimeout: 15_000,
    hookTimeout: 60_000,
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
  },
})
