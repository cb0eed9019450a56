/** A line of the access log, as it was written. */
export type LogLine = Record<string, unknown>

type Matches = (line: LogLine) => boolean

/** Keeps the access log of a target, for tests that ask what was written of a request. */
export function createLogbook() {
  const lines: LogLine[] = []
  const waiting: { matches: Matches; resolve: (line: LogLine) => void }[] = []

  function write(text: string): void {
    if (!text.startsWith('{"time"')) return
    const line = JSON.parse(text) as LogLine
    lines.push(line)
    for (const { matches, resolve } of waiting) if (matches(line)) resolve(line)
  }

  return {
    write,
    /** The line that matches, as soon as it is there. */
    find: (matches: Matches): Promise<LogLine> =>
      new Promise((resolve) => {
        const found = lines.find(matches)
        if (found) resolve(found)
        else waiting.push({ matches, resolve })
      }),
    count: (matches: Matches): number => lines.filter(matches).length,
  }
}

export type Logbook = ReturnType<typeof createLogbook>
