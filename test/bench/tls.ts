import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { issueCertificate } from '#edge/node/issue-certificate.ts'
import { compare, heading, inWorkshop, put, readRounds, showLine, startGenerator } from './beside.ts'
import type { Done, Side } from './beside.ts'
import type { TlsOrder } from './load-tls.ts'
import { configureDaemun, configureNginx, nginx, nginxFields } from './peers.ts'
import { freePort } from './processes.ts'
import { answerFields, host } from './work.ts'

const group = 'X25519' as const
const rows: { name: string; mode: TlsOrder['mode']; lanes: number; group?: 'X25519'; expected?: number }[] = [
  { name: 'full handshake + 1 request', mode: 'full', lanes: 16, group, expected: 1.5 },
  { name: 'resumed handshake + 1 request', mode: 'resumed', lanes: 16, group, expected: 1.5 },
  // nginx 1.22 knows no hybrid: it takes X25519 of what is offered.
  { name: 'full handshake, ML-KEM offered', mode: 'full', lanes: 16 },
  { name: 'kept connection, 1 KB', mode: 'kept', lanes: 64, expected: 1.5 },
  { name: 'HTTP/2, 20 streams each, 1 KB', mode: 'HTTP/2', lanes: 4 },
]
const bytes = 1_024
const day = 86_400_000

/** CPU time per request over TLS 1.3 with a key on P-256, of Daemun beside nginx: a file of 1 KB. */
export async function benchTls(args: string[]): Promise<void> {
  const options = readRounds(args, 'tls', nginx.version)
  if (!options) return
  const { seconds, rounds } = options
  await inWorkshop(async (workshop) => {
    const { folder } = workshop
    const root = join(folder, 'web')
    const live = join(folder, 'certs', 'live', host)
    mkdirSync(root)
    mkdirSync(live, { recursive: true })
    writeFileSync(join(root, 'file.bin'), randomBytes(bytes))
    const { certificate, key } = issueCertificate({
      commonName: host,
      names: [host],
      notBefore: new Date(Date.now() - day),
      notAfter: new Date(Date.now() + day),
    })
    writeFileSync(join(live, 'fullchain.pem'), certificate)
    writeFileSync(join(live, 'privkey.pem'), key)
    const generator = startGenerator(workshop, 'load-tls.ts')
    const plainPort = await freePort()
    const sites = [
      { hosts: [host], https: { hsts: false }, headers: answerFields, routes: [{ path: '/*', files: { root } }] },
    ]
    const sides = [
      await put(workshop, 'Daemun', (port) => {
        const launch = configureDaemun(folder, plainPort, { name: 'bench', sites }, ['--https', `127.0.0.1:${port}`])
        return { ...launch, env: { ...launch.env, DAEMUN_CERTIFICATES: join(folder, 'certs') } }
      }),
      await put(workshop, 'nginx', (port, log) =>
        configureNginx(
          folder,
          port,
          log,
          `keepalive_requests 10000;
  server {
    listen 127.0.0.1:${port} ssl http2 backlog=4096;
    server_name ${host};
    ssl_certificate ${join(live, 'fullchain.pem')};
    ssl_certificate_key ${join(live, 'privkey.pem')};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:sessions:10m;
    open_file_cache max=100;
    root ${root};
    ${nginxFields('    ')}
    add_header Cache-Control no-cache always;
  }`,
        ),
      ),
    ]
    process.stdout.write(heading('CPU µs per request'))
    for (const { name, expected, ...order } of rows) {
      const load = ({ port }: Side, length: number): Promise<Done> =>
        generator.run({ port, seconds: length, path: '/file.bin', bodyLength: bytes, ...order } satisfies TlsOrder)
      process.stdout.write(showLine(name, await compare(sides, { seconds, rounds, load }), expected))
    }
  })
}
