import { existsSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

/** docs/faults.md says which test shows what; that those tests are there is shown here. */
const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const page = read('docs/faults.md')
const rows = [...page.matchAll(/^\| (F\d+) \|(.*)\|$/gm)].map(([, id = '', rest = '']) => ({
  id,
  cells: rest.split(' | ').map((cell) => cell.trim()),
}))
const shown = rows.filter(({ cells }) => cells.length === 3)

const cited = shown.flatMap(({ id, cells }) =>
  (cells[2] ?? '').split('<br>').map((one) => {
    const [, file = '', title = ''] = /^(\S+\.ts): (.+)$/.exec(one) ?? []
    return [id, file, title] as const
  }),
)

it.each(cited)('%s: %s has "%s"', (_, file, title) => {
  expect(existsSync(new URL(`../../test/${file}`, import.meta.url))).toBe(true)
  expect(title).not.toBe('')
  expect(read(`test/${file}`)).toContain(title)
})

it('every fault is shown or says why not, once', () => {
  const wanted = [
    ...Array.from({ length: 50 }, (_, at) => `F${at + 1}`),
    ...Array.from({ length: 9 }, (_, at) => `F${at + 96}`),
  ]
  const named = rows.map(({ id }) => id)
  expect(named.toSorted()).toEqual(wanted.toSorted())
  expect(rows.every(({ cells }) => cells.every((cell) => cell !== ''))).toBe(true)
})
