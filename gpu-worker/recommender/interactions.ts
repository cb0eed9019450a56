/** Who took what: for each user the items, ascending, in rows one behind the other (compressed sparse rows). */
export type Interactions = {
  users: number
  items: number
  /** Where the row of a user begins; one longer than there are users. */
  starts: Int32Array
  /** The items of all rows. */
  columns: Int32Array
}

/** Builds the rows from pairs in any order; a pair that comes twice counts once. */
export function toInteractions(
  users: number,
  items: number,
  pairs: Iterable<readonly [user: number, item: number]>,
): Interactions {
  const rows: Set<number>[] = Array.from({ length: users }, () => new Set())
  for (const [user, item] of pairs) rows[user]?.add(item)
  return fromRows(
    items,
    rows.map((row) => [...row]),
  )
}

/** Builds the rows from one list of items per user. */
export function fromRows(items: number, rows: readonly (readonly number[])[]): Interactions {
  const starts = new Int32Array(rows.length + 1)
  for (const [user, row] of rows.entries()) starts[user + 1] = starts[user]! + row.length
  const columns = new Int32Array(starts[rows.length]!)
  for (const [user, row] of rows.entries()) columns.set(Int32Array.from(row).sort(), starts[user])
  return { users: rows.length, items, starts, columns }
}

/** The items of one user. */
export function rowOf({ starts, columns }: Interactions, user: number): Int32Array {
  return columns.subarray(starts[user], starts[user + 1])
}

/** The same pairs by item: for each item its users. */
export function transpose({ users, items, starts, columns }: Interactions): Interactions {
  const turned = new Int32Array(items + 1)
  for (const item of columns) turned[item + 1]! += 1
  for (let item = 0; item < items; item += 1) turned[item + 1]! += turned[item]!
  const next = turned.slice()
  const rows = new Int32Array(columns.length)
  for (let user = 0; user < users; user += 1)
    for (let at = starts[user]!; at < starts[user + 1]!; at += 1) {
      const item = columns[at]!
      rows[next[item]!] = user
      next[item]! += 1
    }
  return { users: items, items: users, starts: turned, columns: rows }
}

/** How many users took each item. */
export function countItems({ items, columns }: Interactions): Int32Array {
  const counts = new Int32Array(items)
  for (const item of columns) counts[item]! += 1
  return counts
}
