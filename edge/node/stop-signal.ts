/**
 * Resolves with the first SIGINT or SIGTERM. In a terminal one Ctrl-C may come twice, from the terminal and from npm:
 * a repeat within a second is the same wish, a later one is that of somebody who will not wait, and ends the process.
 */
export function stopSignal(): Promise<NodeJS.Signals> {
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals>()
  let askedAt: number | undefined
  const onSignal = (signal: NodeJS.Signals): void => {
    askedAt ??= performance.now()
    resolve(signal)
    if (performance.now() - askedAt > 1_000) process.exit(signal === 'SIGINT' ? 130 : 143)
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  return promise
}
