export interface Pumped {
  /** 'read' failed: whoever sends broke off. 'written' failed: whoever receives left. */
  end: 'done' | 'read_failed' | 'write_failed'
  bytes: number
  error?: unknown
}

export interface PumpOptions {
  /** Before each read, and with what it brought; what it throws ends the transfer as a failed read. */
  beforeRead?: () => void
  onChunk?: (total: number, chunk: Uint8Array | undefined) => void
}

/**
 * Moves a body chunk by chunk: one is read when the one before was taken, so nothing piles up. A body that breaks off
 * breaks off on the other side too, never ends. Never rejects.
 */
export async function pump(
  source: ReadableStream<Uint8Array>,
  sink: WritableStream<Uint8Array>,
  { beforeRead, onChunk }: PumpOptions,
): Promise<Pumped> {
  const reader = source.getReader()
  const writer = sink.getWriter()
  let bytes = 0
  // Whoever receives may leave while nothing comes.
  writer.closed.catch((error: unknown) => reader.cancel(error).catch(ignore))
  for (;;) {
    let chunk: Uint8Array | undefined
    try {
      beforeRead?.()
      chunk = (await reader.read()).value
      bytes += chunk?.byteLength ?? 0
      onChunk?.(bytes, chunk)
    } catch (error) {
      await Promise.all([writer.abort(error).catch(ignore), reader.cancel(error).catch(ignore)])
      return { end: 'read_failed', bytes, error }
    }
    try {
      if (chunk === undefined) {
        await writer.close()
        return { end: 'done', bytes }
      }
      await writer.write(chunk)
    } catch (error) {
      await reader.cancel(error).catch(ignore)
      return { end: 'write_failed', bytes, error }
    }
  }
}

/** A stream whose other side is told the length, when it is known. */
export const createPipe = (length: number | null): TransformStream<Uint8Array, Uint8Array> =>
  length === null ? new IdentityTransformStream() : new FixedLengthStream(length)

/** Calls `onSilent` once nothing was heard for `silentMs`. One timer, however much is heard. */
export interface SilenceWatch {
  heard(): void
  /** Until something is heard, silence is nobody's fault. */
  pause(): void
  stop(): void
}

export function watchSilence(silentMs: number, onSilent: () => void): SilenceWatch {
  let heardAt = Date.now()
  let paused = false
  let timer = setTimeout(look, silentMs)

  function look(): void {
    const left = paused ? silentMs : heardAt + silentMs - Date.now()
    if (left > 0) timer = setTimeout(look, left)
    else onSilent()
  }

  return {
    heard() {
      paused = false
      heardAt = Date.now()
    },
    pause() {
      paused = true
    },
    stop: () => clearTimeout(timer),
  }
}

const ignore = (): void => {}
