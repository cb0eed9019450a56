import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { readPage } from './page.ts'
import type { Block } from './page.ts'
import { runPage } from './run-page.ts'
import type { Ran } from './run-page.ts'
import { isSameOutput, toComparable } from './same-output.ts'

/**
 * Every command of README.md and docs/ is run, and prints what the page says (`page.ts` and `same-output.ts` have the
 * rules). DAEMUN_UPDATE_DOCS=1 writes what was printed into the pages instead, to be read before it is committed.
 */
const root = new URL('../../', import.meta.url)
const pages = [
  'README.md',
  ...readdirSync(new URL('docs/', root))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

/** The commands of pages that are not run here: why, and what runs them. */
const elsewhere: Record<string, string> = {
  'DAEMUN_TRUSTED_HOPS=10.0.0.0/8 npm run -s daemun -- serve shop.ts --http :80 --https :443 --proxy-protocol http,https':
    'needs a proxy in front; test/wire/proxy-protocol.test.ts plays one',
  'npm ci && npm start': 'installs the packages; test/compose/embedded.test.ts runs the program behind it',
  'npm ci && npm test': 'is what runs this',
  'npm run dev:edge': 'starts a second runtime for seconds; test/contract/workerd.test.ts runs the Worker in it',
  'npx wrangler deploy --dry-run': 'bundles for seconds; test/contract/workerd.test.ts bundles too',
  'npx wrangler secret put HOMEWORK_HELPER_JWT_SECRET': 'needs an account',
  'npx wrangler secret put COWRITE_JWT_SECRET': 'needs an account',
  'npm run recommender -- train': 'needs a stopped system; test/gpu-worker/recommender-service.test.ts learns',
  'npm run moviesir -- seed': 'needs a stopped system; test/origin/moviesir.test.ts loads the catalogue',
  'npm run bench -- gpu-overload    # three times what the model can do, for a minute': 'measures for minutes',
  "npm run bench -- gpu-relay       # what it costs, beside the model's server alone and beside Portkey's gateway":
    'measures for minutes',
  'sudo cp /opt/daemun/compose/systemd/daemun.* /etc/systemd/system/':
    'needs systemd; test/cli/systemd.test.ts looks at the units',
  'sudo systemctl daemon-reload': 'needs systemd; test/cli/systemd.test.ts looks at the units',
  'sudo systemctl enable --now daemun.socket daemun.service':
    'needs systemd; test/cli/systemd.test.ts looks at the units',
  'sudo systemctl reload daemun    # the table, as it is now':
    'needs systemd; test/cli/systemd.test.ts looks at the units',
  'sudo systemctl restart daemun   # a new version; clients wait in the sockets meanwhile':
    'needs systemd; test/cli/systemd.test.ts looks at the units',
  'sudo cp /opt/daemun/compose/systemd/moviesir-backup.* /etc/systemd/system/':
    'needs systemd; test/cli/systemd.test.ts looks at the units',
  'sudo systemctl enable --now moviesir-backup.timer':
    'needs systemd; test/origin/moviesir.test.ts runs what the timer starts',
  'npx wrangler deploy': 'needs an account',
}

describe.concurrent('the pages', () => {
  for (const page of pages) {
    const file = new URL(page, root)
    const blocks = readPage(file)
    const missing = findMissing(blocks)
    it.skipIf(missing)(
      `${page} prints what it says${missing ? ` (skipped: needs ${missing})` : ''}`,
      // A second try: a machine with much else to do may leave a Redis more than the 50 ms in which it must answer.
      { timeout: 90_000, retry: 1 },
      async () => {
        const ran = await runPage(blocks, { ownNpm: page !== 'README.md' })
        for (const { block, output, status } of ran)
          if (block.kind === 'run')
            expect(`${page}:${block.line} ends with ${status}\n${status === block.status ? '' : output}`).toBe(
              `${page}:${block.line} ends with ${block.status}\n`,
            )
        if (process.env['DAEMUN_UPDATE_DOCS']) return update(file, blocks, ran)
        for (const { block, output } of ran) {
          const expected = expectedOf(blocks, block)
          if (expected && !isSameOutput(expected.text, output))
            expect(`${page}:${expected.line}\n${toComparable(output)}`).toBe(
              `${page}:${expected.line}\n${toComparable(expected.text)}`,
            )
        }
      },
    )
  }
})

it('what is not run here is known by name', () => {
  const named = pages.flatMap((page) =>
    [...readFileSync(new URL(page, root), 'utf8').matchAll(/^```sh elsewhere\n([^]*?)\n```$/gm)].flatMap(
      ([, text = '']) => text.split('\n'),
    ),
  )
  expect([...new Set(named)].sort()).toEqual(Object.keys(elsewhere).sort())
})

/** The block that says what a block prints: itself after Ctrl-C, else the one behind it. */
function expectedOf(blocks: Block[], block: Block): Block | undefined {
  const expected = block.kind === 'output' ? block : blocks[blocks.indexOf(block) + 1]
  return expected?.kind === 'output' && (expected === block || !expected.stopped) ? expected : undefined
}

/** The first program that a page needs and this machine has not. */
function findMissing(blocks: Block[]): string | undefined {
  const text = blocks
    .filter(({ kind }) => kind === 'run' || kind === 'serve')
    .map((block) => block.text)
    .join('\n')
  return ['bash', 'curl', 'openssl', 'redis-server'].find(
    (program) => (program === 'bash' || text.includes(program)) && !isInstalled(program),
  )
}

function isInstalled(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' })
    return true
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ENOENT')
  }
}

function update(file: URL, blocks: Block[], ran: Ran[]): void {
  const lines = readFileSync(file, 'utf8').split('\n')
  for (const { block, output } of ran.toReversed()) {
    const expected = expectedOf(blocks, block)
    if (!expected || isSameOutput(expected.text, output)) continue
    const known = expected.text.split('\n')
    const printed = output
      .replace(/\r/g, '')
      .trim()
      .split('\n')
      // What is the same but for an id stays as it is.
      .map((line, index) =>
        isSameOutput(`>${known[index] ?? ''}`, `>${line}`) ? (known[index] ?? '') : line.trimEnd(),
      )
    lines.splice(expected.line, expected.text === '' ? 0 : expected.text.split('\n').length, ...printed)
  }
  writeFileSync(file, lines.join('\n'))
}
