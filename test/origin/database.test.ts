import { once } from 'node:events'
import { appendFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Database, Transaction } from '#origin/kit/database.ts'
import { openDatabase } from '#origin/kit/database.ts'
import { applyMigrations } from '#origin/kit/migrations.ts'
import type { RunningEngine } from './engines.ts'
import { missingPostgres } from '../support/postgres.ts'
import { engines, makeFolder, openServer } from './engines.ts'

/** AuthenticationOk, then ReadyForQuery with no transaction. */
const welcome = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49])

describe('a connection that is lost', () => {
  it('right after the server has welcomed it fails the query, and nothing else', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => 'it was reset')
      socket.once('data', () => {
        socket.write(welcome)
        socket.once('data', () => socket.resetAndDestroy())
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `postgresql://someone@127.0.0.1:${(server.address() as AddressInfo).port}/any`
    const { sql } = openDatabase({ name: 'test', url })
    await expect(sql`select 1`).rejects.toMatchObject({ code: expect.stringMatching(/ECONN|CONNECTION_/) })
    await sql.end({ timeout: 0 })
    server.close()
  })
})

describe.skipIf(missingPostgres)(
  `connections that a PostgreSQL server ends${missingPostgres ? ` (${missingPostgres})` : ''}`,
  () => {
    let engine: RunningEngine
    let database: Database
    let killer: Database
    beforeAll(async () => {
      engine = await openServer()
      killer = engine.connect()
      await killer.sql`create table written (id int)`
    })
    afterAll(async () => {
      await killer.close()
      await engine.close()
    })
    beforeEach(() => {
      database = openDatabase({ name: 'test', url: engine.url!, connectionsMax: 1 })
      return () => database.close()
    })
    const pidOf = async (sql: Transaction | Database['sql']): Promise<number> => {
      const [row] = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`
      return row!.pid
    }
    const kill = (pid: number) => killer.sql`select pg_terminate_backend(${pid})`
    /** A connection ends a moment after the server was told to end it. */
    const askUntilAnswered = async (): Promise<unknown> => {
      for (;;) {
        const answer = await database.sql`select 1 as one`.catch(() => undefined)
        if (answer) return answer
      }
    }
    const lost = { code: expect.stringMatching(/57P01|ECONN|CONNECTION_/) }

    it('in a transaction that asks something: it fails, and the next request has a connection', async () => {
      const asked = database.sql.begin(async (tx) => {
        const pid = await pidOf(tx)
        setTimeout(() => void kill(pid).execute(), 50)
        await tx`select pg_sleep(5)`
      })
      await expect(asked).rejects.toMatchObject(lost)
      expect(await askUntilAnswered()).toEqual([{ one: 1 }])
    })

    it('in a transaction that asks nothing: what it asks behind that fails, and touches no other transaction', async () => {
      const ended = Promise.withResolvers<void>()
      const next = Promise.withResolvers<void>()
      const behind: unknown[] = []
      const first = database.sql.begin(async (tx) => {
        await kill(await pidOf(tx))
        await ended.promise
        await tx`insert into written values (1)`.catch((error: unknown) => behind.push(error))
        await tx`commit`.catch((error: unknown) => behind.push(error))
        next.resolve()
      })
      await expect(first).rejects.toMatchObject(lost)
      const second = database.sql.begin(async (tx) => {
        await tx`insert into written values (2)`
        ended.resolve()
        await next.promise
        throw new Error('taken back')
      })
      await expect(second).rejects.toThrow('taken back')
      expect(behind).toEqual([expect.objectContaining(lost), expect.objectContaining(lost)])
      expect(await database.sql`select id from written`).toEqual([])
    })

    it('as a query is sent: others get their answers, again and again', async () => {
      for (let round = 0; round < 20; round++) {
        await kill(await pidOf(database.sql))
        // Some of these run into the end of the connection; a new one takes the place of that.
        await Promise.allSettled(Array.from({ length: 5 }, () => database.sql`select 1`))
        expect(await askUntilAnswered()).toEqual([{ one: 1 }])
      }
    })

    it('kept for somebody: what he asks fails, and it is a connection again when he gives it back', async () => {
      const kept = await database.sql.reserve()
      await kill(await pidOf(kept))
      await expect(kept`select 1`.then(() => kept`select 1`)).rejects.toMatchObject(lost)
      kept.release()
      expect(await askUntilAnswered()).toEqual([{ one: 1 }])
    })

    it('serve a transaction behind any number of queries that wait', async () => {
      await database.sql`select 1`
      for (let waiting = 95; waiting < 105; waiting++) {
        const asked = Array.from({ length: waiting }, () => database.sql`select 1`.execute())
        const kept = await database.sql.begin((tx) => tx`select pg_current_xact_id_if_assigned() is null as fresh`)
        expect(kept).toEqual([{ fresh: true }])
        await Promise.all(asked)
      }
    })
  },
)

for (const { name: engineName, missing, open } of engines) {
  describe.skipIf(missing)(`migrations and arrays on ${engineName}`, () => {
    let engine: RunningEngine
    let database: Database
    let folder: ReturnType<typeof makeFolder>
    let schema: string
    const apply = () => applyMigrations(database.sql, { schema, directory: pathToFileURL(`${folder.path}/`) })
    const write = (name: string, text: string) => writeFileSync(join(folder.path, name), text)
    let round = 0

    beforeAll(async () => {
      engine = await open()
      database = engine.connect()
    })
    afterAll(async () => {
      await database.close()
      await engine.close()
    })
    beforeEach(() => {
      folder = makeFolder()
      schema = `system_${++round}`
      write('0001-a.sql', `create table ${schema}.a (id int); insert into ${schema}.a values (1);`)
      write('0002-b.sql', `create table ${schema}.b (id int);`)
      return () => folder.remove()
    })

    it('are applied in order, once', async () => {
      expect(await apply()).toEqual(['0001-a.sql', '0002-b.sql'])
      expect(await apply()).toEqual([])
      write('0003-c.sql', `insert into ${schema}.a values (2);`)
      expect(await apply()).toEqual(['0003-c.sql'])
      expect(await database.sql.unsafe(`select id from ${schema}.a`)).toEqual([{ id: 1 }, { id: 2 }])
    })

    it('are applied once by eight starters at the same time', async () => {
      const applied = await Promise.all(Array.from({ length: 8 }, apply))
      expect(applied.flat().sort()).toEqual(['0001-a.sql', '0002-b.sql'])
    })

    it('refuse a file that was edited after it was applied', async () => {
      await apply()
      appendFileSync(join(folder.path, '0001-a.sql'), '-- edited')
      await expect(apply()).rejects.toMatchObject({
        code: 'migration_changed',
        detail: expect.stringContaining('0001-a.sql was edited'),
      })
    })

    it('take a file whose line ends were turned by a checkout for the same file', async () => {
      write('0002-b.sql', `create table ${schema}.b\n(id int);\n`)
      await apply()
      write('0002-b.sql', `create table ${schema}.b\r\n(id int);\r\n`)
      expect(await apply()).toEqual([])
    })

    it('refuse a history with a file missing', async () => {
      await apply()
      rmSync(join(folder.path, '0001-a.sql'))
      await expect(apply()).rejects.toMatchObject({
        code: 'migration_changed',
        detail: expect.stringContaining('its file is gone'),
      })
    })

    it('refuse a new file that sorts before an applied one', async () => {
      await apply()
      write('0001-aa.sql', 'select 1')
      await expect(apply()).rejects.toMatchObject({
        detail: expect.stringContaining('0001-aa.sql sorts before 0002-b.sql'),
      })
    })

    it('leave nothing behind when one of them fails', async () => {
      write('0003-c.sql', 'select nothing')
      await expect(apply()).rejects.toMatchObject({ code: '42703' })
      expect(await database.sql`select from information_schema.tables where table_schema = ${schema}`).toHaveLength(0)
    })

    it('arrays go in and come out as they are', async () => {
      const texts = ['a', 'b, c', '"d"', 'e\\f', '', ' g ', '{h}', 'NULL', '영화', 'i\nj']
      const ids = ['8f14e45f-ceea-467f-a8d3-6b4e1f4f1a11']
      const [row] = await database.sql`
        select ${texts}::text[] as texts, ${[]}::text[] as none, ${[1, -2]}::integer[] as integers, ${ids}::uuid[] as ids,
          2 = any(${[1, 2]}::integer[]) as found, array_agg(n) as numbers from generate_series(1, 3) n`
      expect(row).toEqual({ texts, none: [], integers: [1, -2], ids, found: true, numbers: [1, 2, 3] })
    })
  })
}
