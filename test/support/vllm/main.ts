import { startVllmDouble } from './double.ts'
import type { Knobs } from './knobs.ts'

/** `node main.ts PORT KNOBS`: the double as a process of its own, for benches. Any message is answered with its records. */
const [port = '0', knobs = '{}'] = process.argv.slice(2)
const double = await startVllmDouble(JSON.parse(knobs) as Partial<Knobs>, Number(port))
process.on('message', () => {
  const { timeOrigin } = performance
  const records = double.records.map(({ id, receivedAt, tokens, finish, body, headers }) => ({
    id,
    receivedAt: timeOrigin + receivedAt,
    tokens,
    finish,
    isCanary: body['max_tokens'] === 1,
    requestId: String(headers['x-request-id'] ?? ''),
  }))
  process.send?.(records)
})
process.on('disconnect', () => process.exit())
