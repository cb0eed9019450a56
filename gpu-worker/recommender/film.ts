/** A film as the recommender knows it; `runtime` in minutes, `release_date` as 2005-01-31. */
export type Film = {
  movie_id: number
  tmdb_id: number | null
  title: string
  runtime: number
  genres: string[]
  tags: string[]
  release_date: string
  vote_average: number
  vote_count: number
  overview: string
  poster_path: string | null
  adult: boolean
  /** The services that have it. */
  providers: number[]
}
