import { readFile } from 'node:fs/promises'

/** A film of the catalogue, as the table `public.movies` has it. */
export type CatalogueFilm = {
  movie_id: number
  title: string
  runtime: number
  genres: string[]
  tags: string[]
  release_date: string
  vote_average: number
  vote_count: number
  overview: string
}

type Row = {
  Title: unknown
  'Release Date': string
  'MPAA Rating': string | null
  'Running Time min': number | null
  Distributor: string | null
  Source: string | null
  'Major Genre': string | null
  'Creative Type': string | null
  Director: string | null
  'IMDB Rating': number | null
  'IMDB Votes': number | null
}

/**
 * The films of the data set of `vega-datasets` (BSD-3-Clause) whose running time, rating and genre are known: 1,141 of
 * 3,201. The number of a film is its place in the file, so that it stays the same.
 */
export async function readCatalogue(): Promise<CatalogueFilm[]> {
  const file = new URL('../data/movies.json', import.meta.resolve('vega-datasets'))
  const rows = JSON.parse(await readFile(file, 'utf8')) as Row[]
  return rows.flatMap((row, index) => toFilm(row, index + 1) ?? [])
}

function toFilm(row: Row, movie_id: number): CatalogueFilm | undefined {
  const { 'Running Time min': runtime, 'IMDB Rating': rating, 'IMDB Votes': votes, 'Major Genre': genre } = row
  if (!runtime || !rating || !votes || !genre || !row.Title) return undefined
  const release_date = toDate(row['Release Date'])
  return {
    movie_id,
    title: String(row.Title),
    runtime,
    genres: toGenres(genre, row['Creative Type']),
    tags: [row['Creative Type'], row.Source, row['MPAA Rating']].filter((tag) => tag !== null),
    release_date,
    vote_average: rating,
    vote_count: votes,
    overview: toOverview(row, release_date.slice(0, 4)),
  }
}

// The set knows one main genre; its creative type says when a film is of a second one.
const genresOf: Record<string, string[]> = {
  'Thriller/Suspense': ['Thriller'],
  'Romantic Comedy': ['Romance', 'Comedy'],
  'Black Comedy': ['Comedy'],
  Musical: ['Music'],
  'Concert/Performance': ['Music'],
}
const genreOfType: Record<string, string> = {
  Fantasy: 'Fantasy',
  'Science Fiction': 'Science Fiction',
  'Historical Fiction': 'History',
  'Kids Fiction': 'Family',
}

function toGenres(genre: string, type: string | null): string[] {
  const second = type === null ? undefined : genreOfType[type]
  return [...new Set([...(genresOf[genre] ?? [genre]), ...(second === undefined ? [] : [second])])]
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
/** The set was made in 2010; a year past it lost its century (1939 became 2039). */
const lastYear = 2011

function toDate(text: string): string {
  const [month = '', day = '', year = ''] = text.split(' ')
  const fullYear = Number(year) > lastYear ? Number(year) - 100 : Number(year)
  return `${fullYear}-${String(months.indexOf(month) + 1).padStart(2, '0')}-${day.padStart(2, '0')}`
}

// The set has no synopses; what it does know is said in a sentence.
function toOverview({ Director, Source, Distributor }: Row, year: string): string {
  const parts = [
    `A film of ${year}${Director ? `, directed by ${Director}` : ''}`,
    Source && Source !== 'Original Screenplay' ? Source.toLowerCase() : undefined,
    Distributor ? `released by ${Distributor}` : undefined,
  ]
  return `${parts.filter((part) => part !== undefined).join('; ')}.`
}
