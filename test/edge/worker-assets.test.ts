import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { tables } from '#edge/sites/index.ts'
import type { Table } from '#edge/table.ts'
import { toAssetFolder } from '#edge/worker/assets.ts'

it('finds the pages of a system among the uploaded files', () => {
  expect(toAssetFolder('origin/spc/web')).toBe('/spc/web')
  expect(toAssetFolder('origin/moviesir/web/landing')).toBe('/moviesir/web/landing')
})

it.each([
  'origin',
  'origin/spc',
  'origin/spc/webs',
  'origin/kit',
  'origin/spc/web/../..',
  'origin/spc/web/.git',
  '/origin/spc/web',
  'certs/acme',
  'edge',
])('takes %s for no folder of pages', (root) => {
  expect(toAssetFolder(root)).toBeUndefined()
})

it('knows every folder that the tables name, but for certificate challenges', () => {
  const named = (tables as Table[]).flatMap(({ sites }) =>
    sites.flatMap(({ routes }) => routes.map(({ files }) => files?.root)),
  )
  const folders = new Set(named.filter((root) => root !== undefined))
  expect([...folders].filter((root) => toAssetFolder(root) === undefined)).toEqual([expect.stringContaining('certs/')])
})

it('tests upload by the same list as the Worker', () => {
  expect(readFileSync('test/contract/origin/.assetsignore', 'utf8')).toBe(readFileSync('origin/.assetsignore', 'utf8'))
})

it('binds a counter for every limit of the tables that the platform can keep, with its numbers', () => {
  const bound = [
    ...readFileSync('wrangler.toml', 'utf8').matchAll(
      /name = "(LIMIT_\d+_\d+)"\n.*\nsimple = \{ limit = (\d+), period = (\d+) \}/g,
    ),
  ]
  for (const [, name, limit, period] of bound) expect(name).toBe(`LIMIT_${limit}_${period}`)
  const limits = (tables as Table[]).flatMap(({ sites }) =>
    sites.flatMap(({ routes }) => routes.flatMap(({ limit }) => limit ?? [])),
  )
  const fitting = limits.filter(({ per, burst }) => burst === undefined && (per === '1 m' || per === '10 s'))
  const wanted = new Set(fitting.map(({ requests, per }) => `LIMIT_${requests}_${per === '1 m' ? 60 : 10}`))
  expect(new Set(bound.map(([, name]) => name))).toEqual(wanted)
})
