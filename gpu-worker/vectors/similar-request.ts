import { z } from 'zod'
import { readJsonBody } from '../requests/json-body.ts'

const limitMax = 100
const year = z.int().min(1_800).max(2_200)
const minutes = z.int().min(1).max(1_440)

const filterIn = z.strictObject({
  year_min: year.optional(),
  year_max: year.optional(),
  runtime_min: minutes.optional(),
  runtime_max: minutes.optional(),
  genres: z.array(z.string().min(1).max(40)).min(1).max(20).optional(),
  otts: z.array(z.int().min(1).max(2_147_483_647)).min(1).max(50).optional(),
  allow_adult: z.boolean().default(false),
})

const similarIn = z
  .strictObject({
    text: z.string().trim().min(1).max(2_000).optional(),
    film_id: z.int().min(1).max(2_147_483_647).optional(),
    limit: z.int().min(1).max(limitMax).default(10),
    filter: filterIn.prefault({}),
  })
  .refine(
    ({ text, film_id }) => (text === undefined) !== (film_id === undefined),
    'either text or film_id must be given',
  )

/** What `/v1/similar` is asked for. Throws a WorkerError that names what is wrong. */
export function readSimilar(body: Buffer) {
  const { text, film_id, limit, filter } = readJsonBody(similarIn, body)
  return { of: text ?? (film_id as number), count: limit, filter }
}
