/** What Workers add to the web's own types, as far as the gateway uses it. */
export interface PlatformRequestInit extends RequestInit {
  /** 'manual': an encoded answer is handed over as it came, not decoded. */
  encodeResponseBody?: 'automatic' | 'manual'
}

export interface PlatformResponseInit extends ResponseInit {
  /** 'manual': the body is encoded already, as Content-Encoding says. */
  encodeBody?: 'automatic' | 'manual'
  webSocket?: unknown
}

export interface PlatformContext {
  /** Keeps what a request started running behind its answer. */
  waitUntil(promise: Promise<unknown>): void
}

/** Something that answers requests, such as the ASSETS binding. */
export interface Fetcher {
  fetch(url: string, init?: RequestInit): Promise<Response>
}

/** The platform's cache of answers, of the place where the Worker runs. */
export interface PlatformCache {
  match(url: string): Promise<Response | undefined>
  put(url: string, answer: Response): Promise<void>
  delete(url: string): Promise<boolean>
}

export const platformCache = (): PlatformCache =>
  (globalThis as unknown as { caches: { default: PlatformCache } }).caches.default

/** What a request came on. */
export interface WorkerIo {
  request: Request
  context: PlatformContext
}
