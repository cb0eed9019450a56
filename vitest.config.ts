import { availableParallelism } from 'node:os'

import { defineConfig } from 'vitest/config'

/** Where a machine-readable account of the tests goes, besides the one for people. */
const report = process.env['DAEMUN_TEST_REPORT']

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // Most test files wait for other processes and for clocks, so they share cores well.
    maxWorkers: Math.max(3, availableParallelism()),
    testTimeout: 15_000,
    hookTimeout: 60_000,
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
  },
})
