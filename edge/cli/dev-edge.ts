import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { tables } from '../sites/index.ts'
import { requiredVariables } from '../variables.ts'

/** Runs the Worker on this machine: `wrangler dev`, with what the tables need in `.dev.vars`, and without the internet. */
if (existsSync('.env')) process.loadEnvFile('.env')
addMissingVariables('.dev.vars')
const offline = { WRANGLER_SEND_METRICS: 'false', CLOUDFLARE_CF_FETCH_ENABLED: 'false' }
const wrangler = spawn('wrangler', ['dev', '--show-interactive-dev-session=false', ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: { ...offline, ...process.env },
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => wrangler.kill(signal))
wrangler.once('exit', (code, signal) => {
  process.exitCode = code ?? 128 + (signal ? constants.signals[signal] : 0)
})

/** What the environment or `.env` says, so that gateway and origins share it; else a secret that nobody knows. */
function addMissingVariables(file: string): void {
  const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
  const names = ['NODE_ENV', ...requiredVariables(tables)].filter((name) => !new RegExp(`^${name}=`, 'm').test(text))
  if (names.length === 0) return
  const toValue = (name: string): string => process.env[name] || randomBytes(48).toString('base64')
  const lines = names.map((name) => `${name}=${name === 'NODE_ENV' ? 'development' : toValue(name)}\n`)
  writeFileSync(file, text + (text === '' || text.endsWith('\n') ? '' : '\n') + lines.join(''), { mode: 0o600 })
  process.stderr.write(`${file}: added ${names.join(', ')}\n`)
}
