import { readFile } from 'node:fs/promises'

/** Ratings by users and items as the file names them. */
export type Ratings = { users: string[]; items: string[]; pairs: [user: number, item: number][] }

/** What is wrong with a file of ratings, and in which line. */
export class RatingsFault extends Error {
  override readonly name = 'RatingsFault'
}

/**
 * Reads `user item rating timestamp` (MovieLens), between tabs, commas, colons (`::`) or spaces, with a header or not. A
 * rating is evidence whatever it says. Throws a RatingsFault that names the line.
 */
export async function readRatings(path: string): Promise<Ratings> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new RatingsFault(
      `${path} cannot be read: ${error.code === 'ENOENT' ? 'there is no such file' : error.message}`,
    )
  })
  return parseRatings(text, path)
}

export function parseRatings(text: string, path: string): Ratings {
  const users = createNames()
  const items = createNames()
  const pairs: Ratings['pairs'] = []
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '') continue
    const [user, item, rating] = line.split(/\t|::|,|\s+/)
    const isHeader = index === 0 && !Number.isFinite(Number(rating))
    if (isHeader) continue
    if (!user || !item || rating === undefined || !Number.isFinite(Number(rating)))
      throw new RatingsFault(
        `${path}:${index + 1}: expected “user item rating timestamp”, found “${line.slice(0, 80)}”`,
      )
    pairs.push([users.numberOf(user), items.numberOf(item)])
  }
  if (pairs.length === 0) throw new RatingsFault(`${path}: there is no rating in it`)
  return { users: users.names, items: items.names, pairs }
}

function createNames() {
  const names: string[] = []
  const numbers = new Map<string, number>()
  return { names, numberOf }

  function numberOf(name: string): number {
    const known = numbers.get(name)
    if (known !== undefined) return known
    numbers.set(name, names.length)
    return names.push(name) - 1
  }
}
