import { createHash } from 'node:crypto'
import type { Sql } from '#origin/kit/database.ts'

/** Vectors of texts that were embedded once. Needs no extension, so that nothing is embedded again for want of one. */
export type TextStore = {
  /** All that are kept of the model, by key. */
  read(): Promise<Map<string, Float32Array>>
  add(vectors: ReadonlyMap<string, Float32Array>): Promise<void>
  /** Forgets what is not among these and is older than a month: texts that were edited. Returns how many. */
  forget(keys: ReadonlySet<string>): Promise<number>
}

/** Where the texts are kept. */
export const textMigrations = { schema: 'vectors', directory: new URL('./migrations/', import.meta.url) }

/** What a text of a model is known by: SHA-256, in hex. */
export const toTextKey = (model: string, text: string): string =>
  createHash('sha256').update(`${model}\0${text}`).digest('hex')

export function createTextStore(sql: Sql, model: string): TextStore {
  return {
    async read() {
      const found = new Map<string, Float32Array>()
      const rows = sql<{ key: string; embedding: Buffer }[]>`
        select encode(text_key, 'hex') as key, embedding from vectors.texts where model = ${model}`
      for await (const batch of rows.cursor(rowsAtOnce))
        for (const { key, embedding } of batch) found.set(key, fromBytes(embedding))
      return found
    },
    async add(vectors) {
      const rows = [...vectors].map(([key, vector]) => ({ key, embedding: toBytes(vector).toString('base64') }))
      await sql`
        insert into vectors.texts (text_key, model, embedding)
        select decode(key, 'hex'), ${model}, decode(embedding, 'base64')
        from jsonb_to_recordset(${sql.json(rows)}) as text (key text, embedding text)
        on conflict (text_key) do nothing`
    },
    async forget(keys) {
      const rows = await sql<{ key: string }[]>`
        select encode(text_key, 'hex') as key from vectors.texts
        where model = ${model} and made_at < now() - interval '1 month'`
      const old = rows.map(({ key }) => key).filter((key) => !keys.has(key))
      if (old.length === 0) return 0
      const { count } = await sql`
        delete from vectors.texts where text_key in (select decode(key, 'hex') from unnest(${old}::text[]) as key)`
      return count
    },
  }
}

const rowsAtOnce = 500

// Little-endian, as every machine that Node runs on has it.
const toBytes = ({ buffer, byteOffset, byteLength }: Float32Array): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength)

const fromBytes = ({ buffer, byteOffset, byteLength }: Buffer): Float32Array =>
  new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength))
