import { createServer } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

/** How the stand-in misbehaves. */
type Trouble = 'none' | 'refuses' | 'hangs' | 'nonsense' | 'excludes nothing'

type Asked = {
  available_time?: number
  target_runtime?: number
  film_id?: number
  limit?: number
  excluded_ids?: number[]
  excluded_ids_a?: number[]
  excluded_ids_b?: number[]
}

type Film = { movie_id: number; runtime: number }

/**
 * Stands in for the recommendation engine: two disjoint tracks of the first films that fit, and what it was asked.
 * `trouble` may be changed while it runs.
 */
export async function startEngine(films: readonly Film[]) {
  const asked: { path: string; authorization: string | undefined; body: Asked & Record<string, unknown> }[] = []
  const state: { trouble: Trouble } = { trouble: 'none' }
  const gathering = { wanted: 0, waiting: [] as (() => void)[] }
  const server = createServer(async (request, response) => {
    const path = request.url ?? ''
    const body = JSON.parse(await readText(request))
    asked.push({ path, authorization: request.headers.authorization, body })
    if (state.trouble === 'hangs') return
    await gathered()
    const status = state.trouble === 'refuses' ? 500 : 200
    const answer = path === '/recommend' ? toTracks(body) : path === '/v1/similar' ? toSimilar(body) : toSingle(body)
    response.writeHead(status, { 'content-type': 'application/json', 'x-recommendation-tier': 'popularity' })
    response.end(JSON.stringify(state.trouble === 'nonsense' ? { tracks: [] } : answer))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { url, asked, state, gather, stop }

  /** Lets the next `count` requests wait until all of them are here: that they are answered shows that they were asked at once. */
  function gather(count: number): void {
    gathering.wanted = count
  }

  async function gathered(): Promise<void> {
    if (gathering.wanted === 0) return
    const { promise, resolve } = Promise.withResolvers<void>()
    if (gathering.waiting.push(resolve) === gathering.wanted) {
      gathering.wanted = 0
      for (const go of gathering.waiting.splice(0)) go()
    }
    return promise
  }

  function toTracks({ available_time = 0, excluded_ids_a = [], excluded_ids_b = [] }: Asked) {
    const a = fill(available_time, excluded_ids_a)
    const b = fill(available_time, [...excluded_ids_b, ...a.movies.map(({ movie_id }) => movie_id)])
    return { track_a: a, track_b: b }
  }

  function toSingle({ target_runtime = 0, excluded_ids = [] }: Asked) {
    return fill(target_runtime, excluded_ids).movies[0] ?? null
  }

  function toSimilar({ film_id = 0, limit = 10 }: Asked) {
    return {
      model: 'lexical',
      films: films
        .filter(({ movie_id }) => movie_id !== film_id)
        .slice(0, limit)
        .toReversed(),
    }
  }

  function fill(minutes: number, excluded: readonly number[]) {
    const movies: Film[] = []
    let total_runtime = 0
    for (const film of films) {
      const isExcluded = excluded.includes(film.movie_id) && state.trouble !== 'excludes nothing'
      if (isExcluded || total_runtime + film.runtime > minutes) continue
      movies.push({ ...film, ...rest })
      total_runtime += film.runtime
    }
    return { movies, total_runtime }
  }

  async function stop(): Promise<void> {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
}

const rest = {
  tmdb_id: null,
  title: 'A film',
  genres: ['Drama'],
  vote_average: 7,
  vote_count: 4_000,
  overview: '',
  release_date: '2005-01-01',
  poster_path: null,
  score: 0.5,
  recommendation_type: 'hybrid',
}

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}
