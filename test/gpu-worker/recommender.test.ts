import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import * as fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { bucketOf, fixedBlend, toParts } from '../../gpu-worker/recommender/blend.ts'
import { learnBlend } from '../../gpu-worker/recommender/learn-blend.ts'
import type { Side } from '../../gpu-worker/recommender/als.ts'
import { alsDefaults, createSolver, gramOf } from '../../gpu-worker/recommender/als.ts'
import { diversify } from '../../gpu-worker/recommender/diversify.ts'
import { createEaseScorer, trainEase } from '../../gpu-worker/recommender/ease.ts'
import { evaluate } from '../../gpu-worker/recommender/evaluate.ts'
import { fillTime } from '../../gpu-worker/recommender/fill-time.ts'
import type { Film } from '../../gpu-worker/recommender/film.ts'
import { addFactorScores, createFoldIn } from '../../gpu-worker/recommender/fold-in.ts'
import { generateInteractions, generateItems } from '../../gpu-worker/recommender/generate.ts'
import { topOf } from '../../gpu-worker/recommender/top.ts'
import { countItems, fromRows, rowOf, toInteractions, transpose } from '../../gpu-worker/recommender/interactions.ts'
import { fromBytes, toBytes, toReady } from '../../gpu-worker/recommender/model.ts'
import { createRandom } from '../../gpu-worker/recommender/random.ts'
import { parseRatings } from '../../gpu-worker/recommender/ratings-file.ts'
import type { RecommendRequest } from '../../gpu-worker/recommender/recommend.ts'
import { recommend, recommendSingle } from '../../gpu-worker/recommender/recommend.ts'
import type { Shelf } from '../../gpu-worker/recommender/shelf.ts'
import { toShelf } from '../../gpu-worker/recommender/shelf.ts'
import { split } from '../../gpu-worker/recommender/split.ts'
import { createTextIndex } from '../../gpu-worker/recommender/text-index.ts'
import { lexicalVectors } from '../../gpu-worker/recommender/text-vectors.ts'
import { toFeatures } from '../../gpu-worker/recommender/learn.ts'
import { trainAls } from '../../gpu-worker/recommender/train-als.ts'

const genres = ['Action', 'Comedy', 'Drama', 'Horror', 'Romance']
const small = { ...alsDefaults, dimension: 8, epochs: 5 }
const today = new Date('2026-01-01')

describe('interactions', () => {
  it('keep each pair once, in order, and turn around without losing one', () => {
    const given = toInteractions(3, 4, [
      [0, 3],
      [0, 1],
      [0, 3],
      [2, 0],
    ])
    expect([...rowOf(given, 0)]).toEqual([1, 3])
    expect([...rowOf(given, 1)]).toEqual([])
    expect([...rowOf(transpose(given), 3)]).toEqual([0])
    expect([...countItems(given)]).toEqual([1, 1, 0, 1])
    expect(transpose(transpose(given))).toEqual(given)
  })
})

describe('implicit ALS', () => {
  it('solves a row as elimination does', () => {
    const fixed = makeSide(20, 6)
    const settings = { ...alsDefaults, dimension: 6, steps: 30, regularisation: 0.1, unobservedWeight: 0.4 }
    const items = Int32Array.from([1, 5, 7])
    const prior = Float32Array.from([0.2, 0, 0, -0.1, 0, 0])
    const target = new Float32Array(6)
    createSolver(fixed, gramOf(fixed), settings).solve(target, 0, items, prior)
    expectClose(target, solveExactly(fixed, settings, items, prior))
  })

  it('comes to the same with one thread and with three', async () => {
    const rows = fromRows(60, generateInteractions(generateItems(60, genres, 1), { users: 40, perUser: 20, seed: 2 }))
    const [one, three] = await Promise.all([1, 3].map((threads) => trainAls(rows, { settings: small, threads })))
    expect([...three!.items.factors]).toEqual([...one!.items.factors])
  })

  it('places a new viewer where one with the same films was trained', async () => {
    const rows = fromRows(60, generateInteractions(generateItems(60, genres, 1), { users: 40, perUser: 20, seed: 2 }))
    const { users, items } = await trainAls(rows, { settings: { ...small, steps: 8 }, threads: 1 })
    const folded = createFoldIn(items, small)(rowOf(rows, 3))
    expectClose(folded, users.factors.subarray(3 * 8, 4 * 8))
  })

  it('places an item that nobody took among those it is like', async () => {
    const kinds = Array.from({ length: 40 }, (_, item) => (item % 2 === 0 ? ['Action'] : ['Romance']))
    const users = Array.from({ length: 60 }, (_, user) =>
      kinds.flatMap((_kind, item) => (item !== 0 && item % 2 === user % 2 && (item + user) % 3 > 0 ? [item] : [])),
    )
    const films = kinds.map((kind, index) => makeFilm(index + 1, { genres: kind }))
    const { items } = await trainAls(fromRows(40, users), { settings: small, threads: 1, features: toFeatures(films) })
    const scores = new Float64Array(40)
    const fan = Int32Array.from([2, 4, 6, 8])
    addFactorScores(items, createFoldIn(items, small)(fan), scores)
    expect(scores[0]).toBeGreaterThan(Math.max(...scores.filter((_, item) => item % 2 === 1)))
  })
})

describe('EASE', () => {
  it('is the closed form of its paper', () => {
    const rows = fromRows(5, [
      [0, 1, 2],
      [0, 1],
      [2, 3],
      [1, 4],
    ])
    const ease = trainEase(rows, { regularisation: 2, width: 4 })
    const scores = new Float64Array(5)
    createEaseScorer(ease)([0], scores)
    // P = (XᵀX + 2I)⁻¹ by hand of a computer algebra system; B₀ⱼ = −P₀ⱼ / Pⱼⱼ.
    const inverse = invert(gramOfRows(rows, 2))
    for (let j = 1; j < 5; j += 1) expect(scores[j]).toBeCloseTo(-inverse[0]![j]! / inverse[j]![j]!, 6)
    expect(scores[0]).toBe(0)
  })

  it('is so for more items than are swept at once', () => {
    const rows = fromRows(150, generateInteractions(generateItems(150, genres, 1), { users: 90, perUser: 30, seed: 2 }))
    const inverse = invert(gramOfRows(rows, 20))
    const scores = new Float64Array(150)
    createEaseScorer(trainEase(rows, { regularisation: 20 }))([3, 140], scores)
    const said = (item: number, j: number) => (item === j ? 0 : -inverse[item]![j]! / inverse[j]![j]!)
    expectClose(
      scores,
      inverse.map((_, j) => said(3, j) + said(140, j)),
    )
  })

  it('leaves out items that fewer took than so many others', () => {
    const rows = fromRows(4, [
      [0, 1, 3],
      [0, 3],
      [0, 3, 2],
    ])
    const ease = trainEase(rows, { regularisation: 2, itemsMax: 2 })
    expect([...ease.members]).toEqual([0, 3])
    const scores = new Float64Array(4)
    createEaseScorer(ease)([0, 1, 2], scores)
    expect([...scores].map((score) => score !== 0)).toEqual([false, false, false, true])
  })
})

describe('filling the time', () => {
  it('finds what trying everything finds, and never goes over the time', () => {
    const choice = fc.record({ runtime: fc.integer({ min: 40, max: 200 }), value: fc.integer({ min: 1, max: 100 }) })
    fc.assert(
      fc.property(fc.array(choice, { maxLength: 9 }), fc.integer({ min: 30, max: 500 }), (choices, minutes) => {
        const places = fillTime(choices, { minutes, countMax: 4 })
        const picked = places.map((place) => choices[place]!)
        const total = sum(picked.map(({ runtime }) => runtime))
        expect(new Set(places).size).toBe(places.length)
        expect(places.length).toBeLessThanOrEqual(4)
        expect(total).toBeLessThanOrEqual(minutes)
        const best = tryAll(choices, minutes, 4)
        expect([total >= 0.9 * minutes, sum(picked.map(({ value }) => value))]).toEqual([best.isFull, best.value])
      }),
      { numRuns: 300 },
    )
  })
})

describe('text vectors', () => {
  it('are of length 1 and nearer for words in common', () => {
    const vectors = lexicalVectors(['space war robots', 'robots at war', 'a quiet love story'])
    const near = createTextIndex(vectors).toEach(0, [0, 1, 2])
    expect(near[0]).toBeCloseTo(1)
    expect(near[1]).toBeGreaterThan(near[2]!)
  })

  it('compare as the same whether most of them is nothing or not', () => {
    const texts = ['space war robots', 'robots at war', 'a quiet love story', 'a love of robots']
    const wide = createTextIndex(lexicalVectors(texts, 1_024))
    const { values } = lexicalVectors(texts, 1_024)
    // As many numbers that are tiny as there are places make it dense.
    const dense = createTextIndex({ dimension: 1_024, values: values.map((value) => value || 1e-9) })
    expectClose(wide.toMiddleOf([0, 3]), dense.toMiddleOf([0, 3]))
    for (const place of [0, 1, 2, 3]) expectClose(wide.toEach(place, [0, 1, 2, 3]), dense.toEach(place, [0, 1, 2, 3]))
    expectClose(wide.toMiddleOf([1]), wide.toEach(1, [0, 1, 2, 3]))
  })
})

describe('the blend', () => {
  const count = 60
  const facts = [0, 1, 2].map(() => new Float64Array(count))

  it('has weights by how many films are known', () => {
    expect([0, 1, 5, 6, 20, 21].map(bucketOf)).toEqual([0, 1, 1, 2, 2, 3])
  })

  it('scores by parts of mean 0 and deviation 1, and by nothing where nothing is known', () => {
    const text = createTextIndex(
      lexicalVectors(Array.from({ length: count }, (_, at) => `word${at % 7} word${at % 3}`)),
    )
    const [byFactors, byItems, byWords] = toParts({ learned: undefined, text, facts }, [4, 9])
    expect([...byFactors!, ...byItems!].every((score) => score === 0)).toBe(true)
    expect(sum([...byWords!])).toBeCloseTo(0)
    expect(sum([...byWords!].map((score) => score * score)) / count).toBeCloseTo(1)
  })

  it('learns what its viewers go by, for each length of history', () => {
    // Viewers take what is popular, with some chance; nothing else says anything.
    const random = createRandom(3)
    const popularity = Float64Array.from({ length: count }, () => 2 * random() - 1)
    const rows = Array.from({ length: 120 }, () =>
      topOf(
        Array.from(popularity, (value) => 3 * value + random()),
        30,
      ).filter(() => random() < 0.8),
    )
    const sources = { learned: undefined, text: undefined, facts: [popularity, facts[1]!, facts[2]!] }
    const learned = learnBlend(sources, split(fromRows(count, rows), 0.8, 1), { seed: 1 })
    expect(learned).toHaveLength(fixedBlend.length)
    for (const weights of learned.slice(1)) {
      expect(weights[3]).toBeGreaterThan(0.1)
      expect(weights.filter((_, part) => part !== 3)).toEqual([0, 0, 0, 0, 0])
    }
  })

  it('stays as it is where there is nobody to learn from', () => {
    const sources = { learned: undefined, text: undefined, facts }
    expect(learnBlend(sources, split(fromRows(count, []), 0.8, 1), { seed: 1 })).toEqual(fixedBlend)
  })
})

describe('diversity', () => {
  it('puts what is unlike those before it first, and keeps what something is worth by itself', () => {
    const candidates = [1, 0.95, 0.9].map((value, place) => ({ place, value }))
    const worth = diversify(candidates, (place, others) =>
      Float64Array.from(others, (other) => (place + other === 1 ? 1 : 0)),
    )
    expect(worth[0]).toBeCloseTo(0.7 * 1 + 0.3)
    expect(worth[1]).toBeCloseTo(0.7 * 0.95)
    expect(worth[2]).toBeCloseTo(0.7 * 0.9 + 0.3)
  })
})

describe('recommending', async () => {
  const films = makeFilms(300)
  const vectors = lexicalVectors(
    films.map(({ title, genres: kinds, tags }) => `${title} ${kinds.join(' ')} ${tags.join(' ')}`),
  )
  const rows = fromRows(
    films.length,
    generateInteractions(
      films.map(({ genres: kinds, vote_count }) => ({ genres: kinds, popularity: vote_count })),
      { users: 200, perUser: 40, seed: 3 },
    ),
  )
  const { items } = await trainAls(rows, { settings: small, threads: 1 })
  const ease = trainEase(rows)
  const model = {
    version: 4,
    films: Int32Array.from(films, ({ movie_id }) => movie_id),
    settings: small,
    items,
    ease,
    blend: fixedBlend,
  }
  const shelf = toShelf(films, vectors, today, toReady(model))
  const bare = toShelf(films, vectors, today)

  const request = (more: Partial<RecommendRequest> = {}): RecommendRequest => ({
    user_movie_ids: [],
    available_time: 240,
    preferred_genres: [],
    preferred_otts: [],
    allow_adult: false,
    excluded_ids_a: [],
    excluded_ids_b: [],
    negative_movie_ids: [],
    ...more,
  })

  it('keeps every rule whatever is asked', () => {
    const id = fc.integer({ min: 1, max: films.length })
    const asked = fc.record({
      user_movie_ids: fc.uniqueArray(id, { maxLength: 8 }),
      available_time: fc.integer({ min: 60, max: 600 }),
      preferred_genres: fc.subarray(genres),
      preferred_otts: fc.subarray([8, 97, 337]),
      allow_adult: fc.boolean(),
      excluded_ids_a: fc.uniqueArray(id, { maxLength: 20 }),
      excluded_ids_b: fc.uniqueArray(id, { maxLength: 20 }),
      negative_movie_ids: fc.uniqueArray(id, { maxLength: 3 }),
    })
    fc.assert(
      fc.property(asked, fc.integer(), fc.boolean(), (given, seed, hasModel) => {
        const { track_a, track_b } = recommend(hasModel ? shelf : bare, given, createRandom(seed))
        const [a, b] = [track_a, track_b].map(({ movies }) => movies.map(({ movie_id }) => movie_id)) as [
          number[],
          number[],
        ]
        expect(a.filter((film) => b.includes(film))).toEqual([])
        for (const [track, ids, excluded] of [
          [track_a, a, given.excluded_ids_a],
          [track_b, b, given.excluded_ids_b],
        ] as const) {
          expect(track.total_runtime).toBe(sum(track.movies.map(({ runtime }) => runtime)))
          expect(track.total_runtime).toBeLessThanOrEqual(given.available_time)
          expect(ids.length).toBeLessThanOrEqual(15)
          for (const film of [...excluded, ...given.user_movie_ids, ...given.negative_movie_ids])
            expect(ids).not.toContain(film)
          for (const { movie_id, genres: kinds } of track.movies) {
            const film = films[movie_id - 1]!
            expect(given.allow_adult || !film.adult).toBe(true)
            expect(Number(film.release_date.slice(0, 4))).toBeGreaterThanOrEqual(2000)
            if (given.preferred_genres.length > 0)
              expect(kinds.some((kind) => given.preferred_genres.includes(kind))).toBe(true)
          }
        }
      }),
      { numRuns: 150 },
    )
  })

  it('fills 90 to 100 % of an ordinary evening, in both tracks', () => {
    for (let seed = 0; seed < 20; seed += 1) {
      const { track_a, track_b } = recommend(shelf, request({ user_movie_ids: [1, 2, 3, 4, 5] }), createRandom(seed))
      for (const { total_runtime } of [track_a, track_b]) {
        expect(total_runtime).toBeGreaterThanOrEqual(216)
        expect(total_runtime).toBeLessThanOrEqual(240)
      }
    }
  })

  it('says how much it knew', () => {
    const tierOf = (from: Shelf, more: Partial<RecommendRequest>) =>
      recommend(from, request(more), createRandom(1)).tier
    expect(tierOf(shelf, { user_movie_ids: [1, 2, 3, 4, 5] })).toBe('personalised')
    expect(tierOf(shelf, { user_movie_ids: [1] })).toBe('fold-in')
    expect(tierOf(shelf, { preferred_genres: ['Drama'] })).toBe('segment')
    expect(tierOf(bare, { user_movie_ids: [1, 2, 3, 4, 5] })).toBe('segment')
    expect(tierOf(shelf, {})).toBe('popularity')
    expect(tierOf(shelf, { user_movie_ids: [9_999] })).toBe('popularity')
  })

  it('goes without the services when they have too little', () => {
    const rare = films.filter(({ providers }) => providers.includes(337)).slice(0, 1)
    const without = films.map((film) => ({ ...film, providers: film === rare[0] ? [337] : [8] }))
    const poor = toShelf(without, vectors, today)
    const { track_a } = recommend(poor, request({ preferred_otts: [337] }), createRandom(1))
    expect(track_a.total_runtime).toBeGreaterThanOrEqual(216)
  })

  it('picks one film as near to the time as there is', () => {
    const single = { ...request(), target_runtime: 120, excluded_ids: [], track: 'a' as const }
    const { film } = recommendSingle(shelf, single, createRandom(1))
    expect(film!.runtime).toBeGreaterThanOrEqual(108)
    expect(film!.runtime).toBeLessThanOrEqual(120)
    const long = recommendSingle(shelf, { ...single, target_runtime: 1_000 }, createRandom(1))
    expect(long.film).toBeDefined()
    expect(recommendSingle(shelf, { ...single, target_runtime: 10 }, createRandom(1)).film).toBeUndefined()
  })

  it('likes what the viewer’s films are like more than what others watch', () => {
    const ofGenre = (kind: string) => films.filter((film) => film.genres[0] === kind && film.genres.length === 1)
    const horror = ofGenre('Horror').slice(0, 8)
    const { track_a } = recommend(
      shelf,
      request({ user_movie_ids: horror.map(({ movie_id }) => movie_id), available_time: 600 }),
      createRandom(5),
    )
    const share = track_a.movies.filter(({ genres: kinds }) => kinds.includes('Horror')).length / track_a.movies.length
    expect(share).toBeGreaterThan(0.5)
  })

  it('keeps a model as bytes and reads the same one back', () => {
    const read = fromBytes(toBytes(model), 4)
    expect(read).toEqual(model)
    expect(() => fromBytes(toBytes(model).subarray(0, -4), 4)).toThrow('cut off')
  })
})

describe('measuring', () => {
  it('holds back a quarter of each item’s ratings, the same for the same seed', () => {
    const rows = fromRows(80, generateInteractions(generateItems(80, genres, 1), { users: 60, perUser: 25, seed: 2 }))
    const { kept, heldBack } = split(rows, 0.75, 1)
    const [all, counts] = [countItems(rows), countItems(kept)]
    for (const [item, count] of all.entries()) expect(counts[item]).toBe(Math.round(count * 0.75))
    expect(kept.columns.length + heldBack.columns.length).toBe(rows.columns.length)
    expect(split(rows, 0.75, 1)).toEqual({ kept, heldBack })
  })

  it('finds the methods in the order they are known for', async () => {
    const rows = fromRows(
      200,
      generateInteractions(generateItems(200, genres, 1), { users: 250, perUser: 40, seed: 2 }),
    )
    const figures = await evaluate(rows, { settings: { ...alsDefaults, dimension: 16, epochs: 8 }, threads: 1 })
    const [popularity, sar, , , fixed, learned] = figures.map(({ ndcg }) => ndcg)
    expect(sar).toBeGreaterThan(popularity!)
    expect(fixed).toBeGreaterThan(sar!)
    expect(learned).toBeGreaterThan(0.97 * fixed!)
    for (const { recall, coverage } of figures) {
      expect(recall).toBeGreaterThan(0)
      expect(coverage).toBeLessThanOrEqual(1)
    }
  }, 60_000)
})

describe('a file of ratings', () => {
  it.each([
    ['tabs', '1\t10\t5\t881250949\n2\t10\t3\t881250950\n'],
    ['commas with a header', 'userId,movieId,rating,timestamp\n1,10,4.5,881250949\n2,10,3,1\n'],
    ['double colons', '1::10::5::1\r\n2::10::3::2\r\n'],
  ])('is read with %s', (_name, text) => {
    expect(parseRatings(text, 'file')).toEqual({
      users: ['1', '2'],
      items: ['10'],
      pairs: [
        [0, 0],
        [1, 0],
      ],
    })
  })

  it('is refused with the line that is wrong', () => {
    expect(() => parseRatings('1\t2\t3\t4\n1\ttwo\n', 'r.tsv')).toThrow(
      /^r\.tsv:2: expected “user item rating timestamp”/,
    )
    expect(() => parseRatings('userId,movieId,rating\n', 'r.csv')).toThrow('there is no rating')
  })
})

describe('the command', () => {
  const folder = mkdtempSync(join(tmpdir(), 'daemun-recommender-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const run = async (...words: string[]) => {
    const result = await promisify(execFile)(process.execPath, ['gpu-worker/recommender/main.ts', ...words]).catch(
      (error: { code: number; stdout: string; stderr: string }) => error,
    )
    return { code: 'code' in result ? result.code : 0, output: result.stdout + result.stderr }
  }

  it('makes up ratings and measures them', async () => {
    const file = join(folder, 'ratings.tsv')
    expect(await run('generate', file, '--users', '120', '--items', '90', '--ratings', '3000')).toMatchObject({
      code: 0,
    })
    expect(readFileSync(file, 'utf8').split('\n').length).toBeGreaterThan(2_000)
    const { code, output } = await run('evaluate', file, '--dimension', '8', '--epochs', '3')
    expect(code).toBe(0)
    expect(output).toMatch(/NDCG@10 +Recall@10/)
    for (const method of ['popularity', 'SAR', 'iALS', 'EASE', 'blend']) expect(output).toContain(method)
  }, 60_000)

  it('says what is wrong and ends with 2', async () => {
    const bad = join(folder, 'bad.csv')
    writeFileSync(bad, 'a,b\n')
    for (const [words, text] of [
      [['evaluate', join(folder, 'none.tsv')], 'there is no such file'],
      [['evaluate', bad], 'there is no rating in it'],
      [['evaluate', bad, '--dimension', 'x'], '--dimension takes a whole number'],
      [['retrain'], 'npm run recommender -- train'],
    ] as const) {
      const { code, output } = await run(...words)
      expect([code, output]).toEqual([2, expect.stringContaining(text)])
      expect(output).not.toMatch(/\n\s+at /)
    }
  })
})

function makeSide(count: number, dimension: number): Side {
  const random = createRandom(9)
  return { factors: Float32Array.from({ length: count * dimension }, () => random() - 0.5), count, dimension }
}

function makeFilm(movie_id: number, more: Partial<Film> = {}): Film {
  return {
    movie_id,
    tmdb_id: null,
    title: `Film ${movie_id}`,
    runtime: 100,
    genres: ['Drama'],
    tags: [],
    release_date: '2005-06-01',
    vote_average: 7,
    vote_count: 5_000,
    overview: '',
    poster_path: null,
    adult: false,
    providers: [8],
    ...more,
  }
}

function makeFilms(count: number): Film[] {
  const random = createRandom(11)
  return Array.from({ length: count }, (_, index) =>
    makeFilm(index + 1, {
      runtime: 70 + Math.floor(random() * 90),
      genres: index % 3 === 0 ? [genres[index % 5]!, genres[(index + 2) % 5]!] : [genres[index % 5]!],
      tags: [`mood ${index % 7}`],
      release_date: `${1995 + Math.floor(random() * 25)}-06-01`,
      vote_count: Math.floor(random() * 50_000),
      adult: index % 29 === 0,
      providers: [8, 97, 337].filter(() => random() < 0.5),
    }),
  )
}

function expectClose(given: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(given.length).toBe(expected.length)
  for (let i = 0; i < given.length; i += 1) expect(given[i]).toBeCloseTo(expected[i]!, 3)
}

function solveExactly(fixed: Side, settings: typeof alsDefaults, items: Int32Array, prior: Float32Array): number[] {
  const { dimension: d, factors, count } = fixed
  const weight = settings.regularisation * (items.length + settings.unobservedWeight * count)
  const f = (row: number, i: number) => factors[row * d + i]!
  const all = Array.from({ length: count }, (_, row) => row)
  const matrix = Array.from({ length: d }, (_, i) =>
    Array.from(
      { length: d },
      (_unused, j) =>
        settings.unobservedWeight * sum(all.map((row) => f(row, i) * f(row, j))) +
        sum([...items].map((row) => f(row, i) * f(row, j))) +
        (i === j ? weight : 0),
    ),
  )
  const right = Array.from({ length: d }, (_, i) => sum([...items].map((row) => f(row, i))) + weight * prior[i]!)
  return invert(matrix).map((line) => sum(line.map((value, j) => value * right[j]!)))
}

function gramOfRows(rows: ReturnType<typeof fromRows>, regularisation: number): number[][] {
  const matrix = Array.from({ length: rows.items }, (_, i) =>
    Array.from({ length: rows.items }, (_unused, j) => (i === j ? regularisation : 0)),
  )
  for (let user = 0; user < rows.users; user += 1)
    for (const a of rowOf(rows, user)) for (const b of rowOf(rows, user)) matrix[a]![b]! += 1
  return matrix
}

function invert(matrix: readonly (readonly number[])[]): number[][] {
  const n = matrix.length
  const work = matrix.map((line, i) => [...line, ...Array.from({ length: n }, (_, j) => (i === j ? 1 : 0))])
  for (let k = 0; k < n; k += 1) {
    const pivot = work[k]![k]!
    work[k] = work[k]!.map((value) => value / pivot)
    for (let i = 0; i < n; i += 1)
      if (i !== k) {
        const factor = work[i]![k]!
        work[i] = work[i]!.map((value, j) => value - factor * work[k]![j]!)
      }
  }
  return work.map((line) => line.slice(n))
}

type Choices = readonly { runtime: number; value: number }[]

function tryAll(choices: Choices, minutes: number, countMax: number): { isFull: boolean; value: number } {
  let best = { total: 0, value: 0, isFull: false }
  for (let mask = 0; mask < 1 << choices.length; mask += 1) {
    const picked = choices.filter((_, place) => mask & (1 << place))
    const total = sum(picked.map(({ runtime }) => runtime))
    const value = sum(picked.map((choice) => choice.value))
    if (picked.length > countMax || total > minutes) continue
    const isFull = total >= Math.ceil(0.9 * minutes)
    const isBetter = isFull
      ? !best.isFull || value > best.value
      : !best.isFull && (total > best.total || (total === best.total && value > best.value))
    if (isBetter) best = { total, value, isFull }
  }
  return best
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

it('takes the highest scores first, and the first of equal ones', () => {
  expect(topOf([1, 3, 2, 3], 3)).toEqual([1, 3, 2])
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 9 })), fc.nat(12), (scores, count) => {
      const sorted = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b)
      expect(topOf(scores, count)).toEqual(sorted.slice(0, count))
    }),
  )
})
