declare module 'cloudflare:workers' {
  /** As the context's: keeps what the running request started alive behind its answer. */
  export function waitUntil(promise: Promise<unknown>): void
}

/** Passes on as many bytes as were said; anything else is an error. Its length becomes the Content-Length. */
declare class FixedLengthStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(length: number)
}

/** Passes bytes on as they come, without a queue of its own. */
declare class IdentityTransformStream extends TransformStream<Uint8Array, Uint8Array> {}
