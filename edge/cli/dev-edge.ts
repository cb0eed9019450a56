import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { tables } from '../sites/index.ts'
import { requiredVariables } from '../variables.ts'

/** Runs the Worker on this machine: `wrangler dev`, with what the tables need in `.dev.vars`, and without the internet. */
if (existsSync('.env')) process.loadEnvFile('.env')
writeVariables('.dev.vars')
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
function writeVariables(file: string): void {
  const before = existsSync(file) ? readFileSync(file, 'utf8') : ''
  let text = before
  for (const name of ['NODE_ENV', ...requiredVariables(tables)]) {
    const line = new RegExp(`^${name}=.+\\n?`, 'm')
    const given = name === 'NODE_ENV' ? undefined : process.env[name]
    if (line.test(text) && !given) continue
    const value = given || (name === 'NODE_ENV' ? 'development' : randomBytes(48).toString('base64'))
    text = `${text.replace(line, '').replace(/[^\n]$/, '$&\n')}${name}='${value}'\n`
  }
  if (text === before) return
  writeFileSync(file, text, { mode: 0o600 })
  process.stderr.write(`${file} has what the tables need: development, and secrets of this machine\n`)
}
