import type { AlsSettings } from './als.ts'
import { fixedBlend } from './blend.ts'
import { trainEase } from './ease.ts'
import type { Film } from './film.ts'
import { generateInteractions } from './generate.ts'
import type { Interactions } from './interactions.ts'
import { fromRows } from './interactions.ts'
import { learnBlend } from './learn-blend.ts'
import type { Model } from './model.ts'
import { toReady } from './model.ts'
import { toPartSources, toShelf } from './shelf.ts'
import { split } from './split.ts'
import { lexicalVectors, toFilmText } from './text-vectors.ts'
import type { Features } from './train-als.ts'
import { trainAls } from './train-als.ts'

export type LearnOptions = {
  settings: AlsSettings
  threads?: number
  /** Made-up viewers to learn from beside the real ones. */
  generatedUsers: number
}

export type Learned = { model: Omit<Model, 'version'>; interactions: number }

const seed = 2_026

/** Learns a model of the films from what viewers took. It computes for seconds: run it in a thread of its own. */
export async function learn(
  films: Film[],
  histories: readonly (readonly number[])[],
  {
    settings,
    threads,
    generatedUsers,
    onProgress,
  }: LearnOptions & { onProgress: (what: string, share: number) => void },
): Promise<Learned> {
  const placeOf = new Map(films.map(({ movie_id }, place) => [movie_id, place]))
  const real = histories.map((ids) => ids.flatMap((id) => placeOf.get(id) ?? []))
  const taste = films.map(({ genres, vote_count }) => ({ genres, popularity: vote_count }))
  const generated = generatedUsers > 0 ? generateInteractions(taste, { users: generatedUsers, perUser: 60, seed }) : []
  const interactions = fromRows(films.length, [...real, ...generated])
  const features = toFeatures(films)
  const teach = async (from: Interactions, epochs: number, when: string) => {
    const { items } = await trainAls(from, {
      settings: { ...settings, epochs },
      threads,
      features,
      onEpoch: (done, total) => onProgress(`factors${when}`, done / total),
    })
    const ease = trainEase(from, { onProgress: (done) => onProgress(`weights${when}`, done) })
    return { films: Int32Array.from(films, ({ movie_id }) => movie_id), settings, items, ease }
  }

  // The weights of the blend are learned where something was held back; then everything is learned from.
  const parted = split(interactions, 0.9, seed)
  const tried = await teach(parted.kept, Math.ceil(settings.epochs / 2), ' for the blend')
  const shelf = toShelf(
    films,
    lexicalVectors(films.map(toFilmText)),
    new Date(),
    toReady({ ...tried, version: 0, blend: fixedBlend }),
  )
  const learned = learnBlend(toPartSources(shelf), parted, { seed, onProgress: (done) => onProgress('blend', done) })
  const model = { ...(await teach(interactions, settings.epochs, '')), blend: learned }
  return { model, interactions: interactions.columns.length }
}

/** Genres, tags and decades of films, and 1 for all: what places a film that nobody took. */
export function toFeatures(films: readonly Film[]): Features {
  const namesOf = ({ genres, tags, release_date }: Film) => [
    'any',
    ...genres.map((genre) => `genre ${genre}`),
    ...tags.map((tag) => `tag ${tag}`),
    `decade ${release_date.slice(0, 3)}`,
  ]
  const names = [...new Set(films.flatMap(namesOf))]
  const placeOf = new Map(names.map((name, place) => [name, place]))
  const values = new Float32Array(films.length * names.length)
  for (const [index, film] of films.entries())
    for (const name of namesOf(film)) values[index * names.length + placeOf.get(name)!] = 1
  return { values, count: names.length }
}
