import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findVersion } from './processes.ts'
import { answerFields, body, host, limit } from './work.ts'
import type { Chain, Credentials } from './work.ts'

/** One proxy that can do the work. */
export interface Peer {
  name: string
  /** The program's version; undefined when it is not installed. */
  version: string | undefined
  /** What is missing from this row's work, when that is something; undefined: it cannot do the row at all. */
  missing: Partial<Record<Chain, string>>
  /** Writes its configuration and says how it is started. */
  configure(setting: Setting): Launch
}

interface Setting {
  folder: string
  port: number
  upstreamPort: number
  accessLog: string
  credentials: Credentials | undefined
}

export interface Launch {
  command: string[]
  env?: Record<string, string>
}

const entry = fileURLToPath(new URL('../../edge/cli/main.ts', import.meta.url))
const fields = Object.entries(answerFields)

export const daemun: Peer = {
  name: 'Daemun',
  version: `Node ${process.versions.node}`,
  missing: { bare: '', ES256: '', HS256: '' },
  configure({ folder, port, upstreamPort, credentials }) {
    const table = {
      name: 'bench',
      upstreams: { origin: { servers: [`http://127.0.0.1:${upstreamPort}`] } },
      ...(credentials && {
        keys: {
          people: {
            [credentials.algorithm === 'HS256' ? 'secret' : 'publicKey']: credentials.verifyWith,
            algorithms: [credentials.algorithm],
          },
        },
      }),
      sites: [
        {
          hosts: [host],
          headers: answerFields,
          routes: [
            {
              path: '/api/*',
              ...(credentials && { auth: { jwt: 'people' }, limit: { by: 'subject', ...limit } }),
              proxy: { to: 'origin' },
            },
          ],
        },
      ],
    }
    return configureDaemun(folder, port, table)
  },
}

export const nginx: Peer = {
  name: 'nginx',
  version: findVersion(['nginx', '-v'], /nginx\/(\S+)/),
  missing: { bare: '', ES256: 'no JWT; limit by token text', HS256: 'no JWT; limit by token text' },
  configure({ folder, port, upstreamPort, accessLog, credentials }) {
    const text = `${nginxCommon(folder, port)}
http {
  ${nginxTemporary(folder)}
  log_format line escape=json '{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr","method":"$request_method","scheme":"$scheme","host":"$host","path":"$uri","status":$status,"bytes":$body_bytes_sent,"seconds":$request_time,"server":"$upstream_addr","upstreamSeconds":"$upstream_header_time"}';
  access_log ${accessLog} line buffer=32k flush=50ms;
  keepalive_requests 10000;
  keepalive_timeout 65s;
  ${credentials ? 'limit_req_zone $http_authorization zone=people:10m rate=100000r/s;' : ''}
  upstream origin { server 127.0.0.1:${upstreamPort}; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    server_name ${host};
    location /api/ {
      ${credentials ? 'limit_req zone=people burst=100000 nodelay;' : ''}
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Request-Id $request_id;
      ${nginxFields('      ')}
    }
  }
}
`
    return { command: ['nginx', '-c', write(folder, `nginx-${port}.conf`, text), '-e', 'stderr'] }
  },
}

export const haproxy: Peer = {
  name: 'HAProxy',
  version: findVersion(['haproxy', '-v'], /version (\d[\d.]*)/),
  missing: { bare: '', ES256: '', HS256: '' },
  configure({ folder, port, upstreamPort, credentials }) {
    const text = `global
  nbthread 1
  maxconn 8192
  log stdout format raw local0
defaults
  mode http
  log global
  timeout connect 2s
  timeout client 65s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 65s
  http-reuse always
  log-format '{"time":"%[date,ltime(%Y-%m-%dT%H:%M:%S)]","id":"%[var(txn.id)]","client":"%ci","method":"%HM","host":"%[var(txn.host)]","path":"%HP","status":%ST,"bytes":%B,"ms":%Ta,"server":"%b/%s","upstreamMs":%Tr}'
frontend clients
  bind 127.0.0.1:${port} backlog 4096
  acl known hdr(host) -i ${host}
  http-request deny deny_status 404 unless known { path_beg /api/ }
  http-request set-var(txn.id) uuid()
  http-request set-var(txn.host) hdr(host)
  ${credentials ? haproxyChain(folder, port, credentials) : ''}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[var(txn.host)]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Request-Id %[var(txn.id)]
  ${fields.map(([name, value]) => `http-after-response set-header ${name} ${value}`).join('\n  ')}
  http-after-response set-header X-Request-Id %[var(txn.id)]
  default_backend origin
backend origin
  server one 127.0.0.1:${upstreamPort}
`
    return { command: ['haproxy', '-db', '-f', write(folder, `haproxy-${port}.cfg`, text)] }
  },
}

/** What Daemun does with a token: algorithm, signature, expiry, one count per subject, identity fields for the upstream. */
function haproxyChain(folder: string, port: number, { algorithm, verifyWith }: Credentials): string {
  const key = algorithm === 'ES256' ? write(folder, `key-${port}.pem`, verifyWith) : verifyWith
  return `stick-table type string len 64 size 100k expire 1h store http_req_rate(1h)
  http-request set-var(txn.token) http_auth_bearer
  http-request set-var(txn.alg) var(txn.token),jwt_header_query('$.alg')
  http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
  http-request set-var(txn.sub) var(txn.token),jwt_payload_query('$.sub')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless { var(txn.alg) -m str ${algorithm} }
  http-request deny deny_status 401 unless { var(txn.token),jwt_verify(txn.alg,"${key}") 1 }
  http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int lt 0 }
  http-request track-sc0 var(txn.sub)
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt ${limit.requests} }
  http-request set-header X-User-Id %[var(txn.sub)]
  http-request set-header X-User-Claims %[var(txn.token),word(2,.)]`
}

export const caddy: Peer = {
  name: 'Caddy',
  version: findVersion(['caddy', 'version'], /v?(\d[\d.]*)/),
  missing: { bare: '' },
  configure({ folder, port, upstreamPort }) {
    const text = `{
  admin off
  auto_https off
  storage file_system ${folder}
}
http://${host}:${port} {
  bind 127.0.0.1
  log {
    output stdout
    format json
  }
  header {
    ${fields.map(([name, value]) => `${name} ${value}`).join('\n    ')}
    X-Request-Id {http.request.uuid}
  }
  reverse_proxy 127.0.0.1:${upstreamPort} {
    header_up X-Real-IP {remote_host}
    header_up X-Request-Id {http.request.uuid}
    transport http {
      compression off
      keepalive_idle_conns 1024
      keepalive_idle_conns_per_host 1024
    }
  }
}
`
    const file = write(folder, `Caddyfile-${port}`, text)
    return { command: ['caddy', 'run', '--adapter', 'caddyfile', '--config', file], env: { GOMAXPROCS: '1' } }
  },
}

/** What answers behind every peer. */
export function configureUpstream(folder: string, port: number): Launch {
  if (nginx.version === undefined)
    return { command: [process.execPath, fileURLToPath(new URL('upstream.ts', import.meta.url)), String(port)] }
  const text = `${nginxCommon(folder, port)}
http {
  ${nginxTemporary(folder)}
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 65s;
  default_type application/json;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / { return 200 '${body}'; }
  }
}
`
  return { command: ['nginx', '-c', write(folder, `upstream-${port}.conf`, text), '-e', 'stderr'] }
}

/** Daemun with a table. */
export function configureDaemun(folder: string, port: number, table: object, more: string[] = []): Launch {
  const file = write(folder, `table-${port}.ts`, `export default ${JSON.stringify(table, null, 2)}\n`)
  const addresses = ['--http', `127.0.0.1:${port}`, '--admin', '127.0.0.1:0']
  return { command: [process.execPath, entry, 'serve', file, ...addresses, ...more], env: { NODE_ENV: 'production' } }
}

/** A folder of files, with the same fields and log. */
export function configureDaemunFiles(folder: string, port: number, root: string): Launch {
  const routes = [{ path: '/*', files: { root } }]
  return configureDaemun(folder, port, { name: 'bench', sites: [{ hosts: [host], headers: answerFields, routes }] })
}

/** nginx with an `http` block, and Daemun's log. */
export function configureNginx(folder: string, port: number, accessLog: string, http: string): Launch {
  const text = `${nginxCommon(folder, port)}
http {
  ${nginxTemporary(folder)}
  log_format line escape=json '{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr","method":"$request_method","scheme":"$scheme","host":"$host","path":"$uri","status":$status,"bytes":$body_bytes_sent,"seconds":$request_time}';
  access_log ${accessLog} line buffer=32k flush=50ms;
  keepalive_timeout 65s;
  ${http}
}
`
  return { command: ['nginx', '-c', write(folder, `nginx-${port}.conf`, text), '-e', 'stderr'] }
}

export const configureNginxFiles = (folder: string, port: number, root: string, accessLog: string): Launch =>
  configureNginx(
    folder,
    port,
    accessLog,
    `keepalive_requests 10000;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=100;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    server_name ${host};
    root ${root};
    ${nginxFields('      ')}
    add_header Cache-Control no-cache always;
  }`,
  )

/** What every peer adds to an answer. */
export const nginxFields = (indent: string): string =>
  [
    ...fields.map(([name, value]) => `add_header ${name} ${value} always;`),
    'add_header X-Request-Id $request_id always;',
  ].join(`\n${indent}`)

/** Everything is kept for an hour, and nothing but the first answer is asked for. */
export function configureDaemunCache(folder: string, port: number, upstreamPort: number): Launch {
  const table = {
    name: 'bench',
    upstreams: { origin: { servers: [`http://127.0.0.1:${upstreamPort}`] } },
    sites: [
      { hosts: [host], headers: answerFields, routes: [{ path: '/*', cache: 'shared', proxy: { to: 'origin' } }] },
    ],
  }
  const file = write(folder, `cache-${port}.ts`, `export default ${JSON.stringify(table, null, 2)}\n`)
  return {
    command: [process.execPath, entry, 'serve', file, '--http', `127.0.0.1:${port}`, '--admin', '127.0.0.1:0'],
    env: { NODE_ENV: 'production' },
  }
}

export function configureNginxCache(folder: string, port: number, upstreamPort: number, accessLog: string): Launch {
  const text = `${nginxCommon(folder, port)}
http {
  ${nginxTemporary(folder)}
  proxy_cache_path ${join(folder, `kept-${port}`)} levels=1:2 keys_zone=kept:10m inactive=1h use_temp_path=off;
  log_format line escape=json '{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr","method":"$request_method","scheme":"$scheme","host":"$host","path":"$uri","status":$status,"bytes":$body_bytes_sent,"seconds":$request_time,"cache":"$upstream_cache_status"}';
  access_log ${accessLog} line buffer=32k flush=50ms;
  keepalive_requests 10000;
  keepalive_timeout 65s;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=100;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    server_name ${host};
    location / {
      proxy_pass http://127.0.0.1:${upstreamPort};
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_cache kept;
      proxy_cache_lock on;
      ${fields.map(([name, value]) => `add_header ${name} ${value} always;`).join('\n      ')}
      add_header X-Request-Id $request_id always;
      add_header X-Cache $upstream_cache_status always;
    }
  }
}
`
  return { command: ['nginx', '-c', write(folder, `cache-${port}.conf`, text), '-e', 'stderr'] }
}

const nginxCommon = (folder: string, port: number): string => `daemon off;
master_process off;
pid ${join(folder, `nginx-${port}.pid`)};
error_log stderr crit;
events { worker_connections 32768; }`

const nginxTemporary = (folder: string): string =>
  ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, `nginx-${name}`)};`)
    .join('\n  ')

function write(folder: string, name: string, text: string): string {
  const file = join(folder, name)
  writeFileSync(file, text)
  return file
}
