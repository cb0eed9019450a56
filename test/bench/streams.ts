import { fileURLToPath } from 'node:url'
import { compare, heading, inWorkshop, median, put, readRounds, showLine, startGenerator } from './beside.ts'
import type { Done, Side } from './beside.ts'
import type { StreamOrder } from './load-streams.ts'
import { configureDaemun, configureNginx, nginx, nginxFields } from './peers.ts'
import type { Workshop } from './processes.ts'
import { answerFields, host } from './work.ts'

/** CPU time per event passed on, and how much later the first one comes, of Daemun beside nginx that does not buffer. */
export async function benchEvents(args: string[]): Promise<void> {
  const options = readRounds(args, 'events', nginx.version)
  if (!options) return
  const { seconds, rounds } = options
  await inWorkshop(async (workshop) => {
    const { upstream, sides } = await putStreams(workshop)
    const generator = startGenerator(workshop, 'load-streams.ts')
    const load = ({ port }: Side, length: number): Promise<Done> =>
      generator.run({ kind: 'events', port, seconds: length, connections: 100 } satisfies StreamOrder)
    process.stdout.write(heading('CPU µs per event'))
    process.stdout.write(
      showLine('100 connections, 100 events/s each', await compare(sides, { seconds, rounds, load }), 1.5),
    )
    const times: number[][] = []
    for (let round = 0; round < rounds + 1; round++) {
      const taken: number[] = []
      for (const { port } of [upstream, ...sides])
        taken.push(await generator.run<number>({ kind: 'first', port, times: 300 } satisfies StreamOrder))
      if (round > 0) times.push(taken)
    }
    const [direct = 0, ours = 0, theirs = 0] = [0, 1, 2].map((at) =>
      median(times.map((taken) => taken[at] ?? Number.NaN)),
    )
    const verdict = ours - theirs <= 0.5 ? 'met' : 'not met'
    process.stdout.write(
      `first event, median ms: ${direct.toFixed(2)} without a proxy, ${ours.toFixed(2)} Daemun, ${theirs.toFixed(2)} nginx; Daemun is ${(ours - theirs).toFixed(2)} later, expected ≤ 0.5: ${verdict}\n`,
    )
  })
}

/** CPU time per WebSocket message passed on, either way, of Daemun beside nginx. */
export async function benchWebSocket(args: string[]): Promise<void> {
  const options = readRounds(args, 'websocket', nginx.version)
  if (!options) return
  const { seconds, rounds } = options
  await inWorkshop(async (workshop) => {
    const { sides } = await putStreams(workshop)
    const generator = startGenerator(workshop, 'load-streams.ts')
    const load = ({ port }: Side, length: number): Promise<Done> =>
      generator.run({ kind: 'messages', port, seconds: length, connections: 64 } satisfies StreamOrder)
    process.stdout.write(heading('CPU µs per message'))
    process.stdout.write(
      showLine('64 connections, 64 bytes each way', await compare(sides, { seconds, rounds, load }), 1.5),
    )
  })
}

/** Both proxies before the upstream of streams. */
export async function putStreams(workshop: Workshop): Promise<{ upstream: Side; sides: Side[] }> {
  const { folder } = workshop
  const upstream = await put(workshop, 'upstream', (port) => ({
    command: [process.execPath, fileURLToPath(new URL('upstream-streams.ts', import.meta.url)), String(port)],
  }))
  const origin = `http://127.0.0.1:${upstream.port}`
  const table = {
    name: 'bench',
    upstreams: { origin: { servers: [origin] } },
    sites: [
      {
        hosts: [host],
        headers: answerFields,
        routes: [{ path: '/*', bodyBytesMax: 2_147_483_648, proxy: { to: 'origin', websocket: true } }],
      },
    ],
  }
  const sides = [
    await put(workshop, 'Daemun', (port) => configureDaemun(folder, port, table)),
    await put(workshop, 'nginx', (port, log) =>
      configureNginx(
        folder,
        port,
        log,
        `map $http_upgrade $passed { default upgrade; '' ''; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    server_name ${host};
    client_max_body_size 2g;
    location / {
      proxy_pass ${origin};
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $passed;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Request-Id $request_id;
      ${nginxFields('      ')}
    }
  }`,
      ),
    ),
  ]
  return { upstream, sides }
}
