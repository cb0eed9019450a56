import { OriginError } from './error.ts'

/** Runs a program of its own; what is wrong with its settings is said in a line, and ends it with 2. */
export async function runProgram(main: () => Promise<void>): Promise<void> {
  try {
    await main()
  } catch (error) {
    console.error(error instanceof OriginError ? error.message : error)
    process.exitCode = error instanceof OriginError && error.code === 'config_invalid' ? 2 : 1
  }
}

/**
 * The first SIGINT or SIGTERM. It may come twice, from the terminal and from the program that started this one: stopping
 * is bounded in time, so what comes after the first is ignored.
 */
export function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    process.on('SIGINT', resolve)
    process.on('SIGTERM', resolve)
  })
}

/** A line of JSON on standard output. */
export function logToOutput(entry: Record<string, unknown>): void {
  console.log(JSON.stringify({ time: new Date().toISOString(), ...entry }))
}
