import { z } from 'zod'
import { WorkerError } from '../error.ts'

/** What a body of JSON says, in the shape of the schema. Throws a WorkerError that names what is wrong. */
export function readJsonBody<S extends z.ZodType>(schema: S, body: Buffer): z.output<S> {
  const result = schema.safeParse(toJson(body))
  if (result.success) return result.data
  const param = result.error.issues[0]?.path.join('.')
  throw new WorkerError('invalid_request', z.prettifyError(result.error), { ...(param && { param }) })
}

function toJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch {
    throw new WorkerError('invalid_request', 'The body is not JSON')
  }
}
