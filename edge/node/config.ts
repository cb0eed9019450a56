import { existsSync, readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { readNetwork } from '../address.ts'
import type { Network } from '../address.ts'
import { limits } from '../limits.ts'
import { readSystemd } from './systemd.ts'
import type { Systemd } from './systemd.ts'
import { findSecretFault } from '../token.ts'
import type { Environment } from '../variables.ts'
import { readHostName } from './known-hosts.ts'

/** What the gateway's programs read from their environment; read once, here. */
export interface Config {
  /** What variables in tables stand for. */
  environment: Environment
  /** Everything but NODE_ENV=production: hosts also answer at their `.localhost` twins. */
  development: boolean
  /** REDIS_URL: where limits are counted for several processes. */
  redisUrl: string | undefined
  /** DAEMUN_ADMIN_HOSTS: names by which operators may ask, separated by commas. */
  adminHosts: string[]
  /** DAEMUN_TRUSTED_HOPS: networks, separated by commas, of proxies in front of this one. */
  trustedHops: Network[]
  /** DAEMUN_CERTIFICATES: the folder with certificates. */
  certificates: string
  /** DAEMUN_STATE: the folder in which changes of splits outlive the process. */
  stateDirectory: string | undefined
  /** DAEMUN_ADMIN_TOKEN: what changes on the admin listener are asked for with. */
  adminToken: string | undefined
  /** DAEMUN_CACHE_BYTES: how much of upstreams' answers is kept. */
  cacheBytes: number
  systemd: Systemd
}

/** What is wrong with the environment or the command line. */
export class UsageError extends Error {}

/** What the process was started with, before a file was read. */
const given = { ...process.env }

/** Reads `.env` in the working folder, if there is one, as it is now, and the environment, which wins. */
export function readConfig(): Config {
  const environment: NodeJS.ProcessEnv = { ...readEnvFile(), ...given }
  // For other programs of this process, and for what Node itself looks at.
  Object.assign(process.env, environment)
  const {
    NODE_ENV,
    REDIS_URL,
    DAEMUN_TRUSTED_HOPS = '',
    DAEMUN_CERTIFICATES,
    DAEMUN_ADMIN_TOKEN,
    DAEMUN_STATE,
  } = environment
  return {
    environment,
    development: NODE_ENV !== 'production',
    redisUrl: REDIS_URL || undefined,
    adminHosts: (environment['DAEMUN_ADMIN_HOSTS'] ?? '').split(',').filter(Boolean).map(toHostName),
    trustedHops: DAEMUN_TRUSTED_HOPS.split(',').filter(Boolean).map(toNetwork),
    certificates: DAEMUN_CERTIFICATES || 'certs',
    stateDirectory: DAEMUN_STATE || undefined,
    adminToken: readAdminToken(DAEMUN_ADMIN_TOKEN),
    cacheBytes: readCacheBytes(environment['DAEMUN_CACHE_BYTES']),
    systemd: readSystemd(given, process.pid),
  }
}

function readAdminToken(token: string | undefined): string | undefined {
  if (!token) return undefined
  const fault = /[^\x21-\x7e]/.test(token)
    ? { problem: 'has a character that no header may have', fix: "make one with 'openssl rand -base64 48'" }
    : findSecretFault(token)
  if (fault) throw new UsageError(`DAEMUN_ADMIN_TOKEN ${fault.problem}: ${fault.fix}`)
  return token
}

function readCacheBytes(text: string | undefined): number {
  if (!text) return limits.cacheBytesMax
  const bytes = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN
  if (Number.isNaN(bytes)) throw new UsageError(`DAEMUN_CACHE_BYTES is '${text}': write a whole number of bytes`)
  return bytes
}

function readEnvFile(): NodeJS.Dict<string> {
  try {
    return existsSync('.env') ? parseEnv(readFileSync('.env', 'utf8')) : {}
  } catch (error) {
    throw new UsageError(`.env cannot be read: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    })
  }
}

/** 'ADDR:PORT', ':PORT' or 'PORT'; loopback when no address is given, 0 lets the system choose a port. */
export function readListenAddress(text: string): { host: string; port: number } {
  const parts = /^(?:(\[[0-9a-fA-F:.]+\]|[^:]*):)?(\d{1,5})$/.exec(text)
  const port = Number(parts?.[2] ?? Number.NaN)
  if (!parts || port > 65_535)
    throw new UsageError(`'${text}' is no address to listen on: write ADDR:PORT, such as 127.0.0.1:8080 or 0.0.0.0:80`)
  return { host: (parts[1] ?? '').replace(/^\[|\]$/g, '') || '127.0.0.1', port }
}

function toNetwork(text: string): Network {
  const network = readNetwork(text.trim())
  if (!network)
    throw new UsageError(`DAEMUN_TRUSTED_HOPS has '${text}', which is no network: write it as 10.0.0.0/8 or 127.0.0.1`)
  return network
}

function toHostName(text: string): string {
  const name = readHostName(text)
  if (name === undefined)
    throw new UsageError(`DAEMUN_ADMIN_HOSTS has '${text}', which is no host: write a name without a port`)
  return name
}
