import { once } from 'node:events'
import { join } from 'node:path'
import type postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { lockDirectory } from '#origin/kit/directory-lock.ts'
import type { EmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import { openEmbeddedPostgres } from '#origin/kit/embedded-postgres.ts'
import type { PortSocket } from '#origin/kit/port-socket.ts'
import { copyFreshDatabase } from '../support/fresh-database.ts'
import { makeFolder } from './engines.ts'

const folder = makeFolder()
const directory = join(folder.path, 'postgres')
let embedded: EmbeddedPostgres
let sql: postgres.Sql
let other: postgres.Sql

beforeAll(async () => {
  const limits = { idleInTransactionMs: 500, sessionsMax: 20 }
  await copyFreshDatabase(directory)
  embedded = await openEmbeddedPostgres({ directory, limits })
  sql = embedded.connect({ max: 6 })
  other = embedded.connect({ max: 6, prepare: false })
  await sql`create table account (id int primary key, balance int not null)`
  await sql`insert into account select n, 100 from generate_series(1, 10) n`
})

afterAll(async () => {
  await Promise.all([sql.end(), other.end()])
  await embedded.close()
  folder.remove()
})

describe('sessions on one backend', () => {
  it('keeps a sum through concurrent transactions of two pools', async () => {
    const transfers = Array.from({ length: 120 }, (_, n) =>
      transfer(n % 2 ? sql : other, 1 + (n % 10), 1 + ((n * 7 + 3) % 10)),
    )
    const noise = Array.from({ length: 120 }, (_, n) => other`select ${n}::int as n, ${'x'.repeat(n)} as text`)
    const failed = (await Promise.all(transfers)).filter((outcome) => outcome === 'rolled back')
    expect(failed.length).toBe(12)
    for (const [n, rows] of (await Promise.all(noise)).entries()) expect(rows[0]).toEqual({ n, text: 'x'.repeat(n) })
    expect(await sql`select sum(balance)::int as sum from account`).toEqual([{ sum: 1000 }])
  })

  it('answers unnamed queries with parameters of fifty callers each with its own', async () => {
    const answers = await Promise.all(Array.from({ length: 300 }, (_, n) => other`select ${n}::int as n`))
    expect(answers.map(([row]) => row?.n)).toEqual(Array.from({ length: 300 }, (_, n) => n))
  })

  it('recovers from an error in a query and in a transaction', async () => {
    await expect(sql`select ${1}::int / 0`).rejects.toMatchObject({ code: '22012' })
    await expect(sql.begin((tx) => tx`select nothing`)).rejects.toMatchObject({ code: '42703' })
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  it('has pgvector', async () => {
    await sql`create extension vector`
    const [row] = await sql`select ${'[1,2]'}::halfvec <#> ${'[3,4]'}::halfvec as product`
    expect(row).toEqual({ product: -11 })
  })

  it('streams a cursor', async () => {
    const sizes: number[] = []
    for await (const rows of sql`select generate_series(1, 25)`.cursor(10)) sizes.push(rows.length)
    expect(sizes).toEqual([10, 10, 5])
  })

  it('delivers notifications to every pool that listens', async () => {
    const heard: string[] = []
    const both = Promise.withResolvers<void>()
    const hear = (who: string) => (text: string) => {
      heard.push(`${who} ${text}`)
      if (heard.length === 2) both.resolve()
    }
    await sql.listen('news', hear('sql'))
    await other.listen('news', hear('other'))
    await other.notify('news', 'hello')
    await both.promise
    expect(heard.sort()).toEqual(['other hello', 'sql hello'])
  })
})

describe('COPY FROM STDIN', () => {
  it('is refused as a simple query, and the connection goes on', async () => {
    await expect(sql.unsafe('copy account from stdin')).rejects.toMatchObject({ code: '0A000' })
    await expect(sql.unsafe('/* now */ COPY account (id)\nFROM STDIN csv')).rejects.toMatchObject({ code: '0A000' })
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  it('is refused as a prepared query', async () => {
    await expect(sql`copy account from stdin`.writable()).rejects.toMatchObject({ code: '0A000' })
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  it('fails the transaction it was part of', async () => {
    const broken = sql.begin(async (tx) => {
      await tx`update account set balance = 0`
      await tx.unsafe('copy account from stdin')
    })
    await expect(broken).rejects.toMatchObject({ code: '0A000' })
    expect(await sql`select sum(balance)::int as sum from account`).toEqual([{ sum: 1000 }])
  })

  it('is only words inside a literal or a parameter', async () => {
    expect(await sql.unsafe(`select '; copy account from stdin' as text`)).toEqual([
      { text: '; copy account from stdin' },
    ])
    expect(await sql`select ${'copy account from stdin'} as text`).toEqual([{ text: 'copy account from stdin' }])
  })
})

describe('a client that goes away', () => {
  it('has its transaction rolled back when it hangs up', async () => {
    const socket = await connectRaw()
    await say(socket, 'begin')
    await say(socket, 'update account set balance = balance + 1')
    socket.destroy()
    expect(await sql`select sum(balance)::int as sum from account`).toEqual([{ sum: 1000 }])
  })

  it('has its transaction rolled back when it hangs up in the middle of an extended query', async () => {
    const socket = await connectRaw()
    await say(socket, 'begin')
    await say(socket, 'update account set balance = balance + 1')
    socket.write(Buffer.concat([message('P', '\0select nothing\0\0\0'), message('H', '')]))
    await once(socket, 'data')
    socket.destroy()
    expect(await sql`select sum(balance)::int as sum from account`).toEqual([{ sum: 1000 }])
  })

  it('is hung up on when it stays idle in a transaction, and its work is rolled back', async () => {
    const socket = await connectRaw()
    await say(socket, 'begin')
    await say(socket, 'update account set balance = balance + 1')
    const [last] = await once(socket, 'data')
    expect(String(last)).toContain('25P03')
    expect(await sql`select sum(balance)::int as sum from account`).toEqual([{ sum: 1000 }])
  })

  it('gives its place to the next one waiting', async () => {
    const socket = await connectRaw()
    await say(socket, 'begin')
    const waiting = Promise.all([sql`select 1`, other`select 2`])
    socket.end(message('X', ''))
    expect(await waiting).toHaveLength(2)
  })
})

describe('bytes', () => {
  it('arrive whole when a client sends them one at a time', async () => {
    const socket = await connectRaw()
    const answer = once(socket, 'data')
    for (const byte of message('Q', 'select 42 as answer\0')) socket.write(Buffer.of(byte))
    expect(String(await answer)).toContain('42')
    socket.destroy()
  })

  it('of a message that claims to be shorter than itself end the connection', async () => {
    const socket = await connectRaw()
    socket.write(Buffer.from([81, 0, 0, 0, 1, 0]))
    expect(String(await once(socket, 'data'))).toContain('54000')
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  it('of one session too many are answered with 53300', async () => {
    const sockets = await Promise.all(Array.from({ length: 20 }, () => embedded.socket()))
    const refused = sockets.at(-1)!
    expect(String(await once(refused, 'data'))).toContain('53300')
    for (const socket of sockets) socket.destroy()
    await expect.poll(() => sql`select 1 as one`).toEqual([{ one: 1 }])
  })
})

describe('a query too deep', () => {
  const deeper = `create function deeper(n int) returns int language plpgsql as 'begin return deeper(n + 1); end'`

  it("is refused by the server's own limit", async () => {
    await sql.unsafe(deeper)
    await expect(sql`select deeper(1)`).rejects.toMatchObject({ code: '54001' })
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  it('fails when it kills the server, and the next one finds it started anew with all that was committed', async () => {
    const restarts: string[] = []
    const onRestart = ({ message: reason }: Error) => restarts.push(reason)
    const frailDirectory = join(folder.path, 'frail')
    await copyFreshDatabase(frailDirectory)
    const frail = await openEmbeddedPostgres({ directory: frailDirectory, stackSizeMb: 4, onRestart })
    const pool = frail.connect({ max: 2 })
    await pool.unsafe(`create table kept (id int); insert into kept values (1); ${deeper}`)
    await expect(pool`select deeper(1)`).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
    expect(await pool`select id from kept`).toEqual([{ id: 1 }])
    expect(restarts).toEqual(['the embedded database stopped by itself'])
    // Without a timeout postgres.js waits for the query that died.
    await pool.end({ timeout: 0 })
    await frail.close()
  })
})

describe('the directory', () => {
  it('is refused to a second copy, with what to do about it', async () => {
    const second = openEmbeddedPostgres({ directory })
    await expect(second).rejects.toMatchObject({ code: 'directory_in_use' })
    await expect(second).rejects.toThrow(`${directory} is in use by process ${process.pid}`)
    await expect(second).rejects.toThrow('DATABASE_URL')
  })

  it('is free again after its lock is released', () => {
    const path = join(folder.path, 'elsewhere')
    lockDirectory(path).release()
    lockDirectory(path).release()
  })
})

function transfer(pool: postgres.Sql, from: number, to: number): Promise<'done' | 'rolled back'> {
  const work = pool.begin(async (tx) => {
    await tx`update account set balance = balance - 5 where id = ${from}`
    if (from === 3) throw new Error('changed my mind')
    await tx`update account set balance = balance + 5 where id = ${to}`
  })
  return work.then(
    () => 'done',
    () => 'rolled back',
  )
}

async function connectRaw(): Promise<PortSocket> {
  const socket = await embedded.socket()
  const parameters = Buffer.from('....\0\x03\0\0user\0postgres\0database\0postgres\0\0')
  parameters.writeUInt32BE(parameters.length)
  socket.write(parameters)
  await once(socket, 'data')
  return socket
}

async function say(socket: PortSocket, text: string): Promise<void> {
  socket.write(message('Q', `${text}\0`))
  await once(socket, 'data')
}

function message(type: string, body: string): Buffer {
  const bytes = Buffer.from(`${type}....${body}`)
  bytes.writeUInt32BE(bytes.length - 1, 1)
  return bytes
}
