import { benchFiles } from './files.ts'
import { benchProfile } from './profile.ts'
import { benchProxy } from './proxy.ts'

/** What can be measured. Each takes its own options; `--help` lists them. */
const benches: Record<string, { what: string; run: (args: string[]) => Promise<void> }> = {
  proxy: { what: 'CPU per request and latency of the proxied path, beside nginx, HAProxy and Caddy', run: benchProxy },
  files: { what: 'CPU per file of 1 KB, 100 KB and 10 MB, beside nginx', run: benchFiles },
  profile: { what: "where the time of Daemun's proxied path goes", run: benchProfile },
}

const [name = '', ...args] = process.argv.slice(2)
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined
if (bench) await bench.run(args)
else {
  const lines = Object.entries(benches).map(([known, { what }]) => `  npm run bench -- ${known.padEnd(8)} ${what}\n`)
  process.stdout.write(`${name === '' ? '' : `there is no bench '${name}'\n`}benches:\n${lines.join('')}`)
  if (name !== '') process.exitCode = 2
}
