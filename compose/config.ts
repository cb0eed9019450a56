import { readConfig, readListenAddress } from '../edge/node/config.ts'
import type { Config } from '../edge/node/config.ts'

export interface EmbeddedConfig extends Config {
  http: { host: string; port: number }
  admin: { host: string; port: number }
  gpuWorkerPort: number
  /** Where the database, secrets and logs are kept. */
  dataDirectory: string
}

/** PORT (default 8080; operators have the next one, the GPU worker the one after) and DATA_DIRECTORY (default .data), and the gateway's own. */
export function readEmbeddedConfig(): EmbeddedConfig {
  const config = readConfig()
  const { PORT = '8080', DATA_DIRECTORY = '.data' } = process.env
  const http = readListenAddress(PORT)
  return {
    ...config,
    development: true,
    http,
    admin: { host: '127.0.0.1', port: http.port && http.port + 1 },
    gpuWorkerPort: http.port && http.port + 2,
    dataDirectory: DATA_DIRECTORY,
  }
}
