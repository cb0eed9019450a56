import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compileTables } from '#edge/compile.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import { loadTables } from '#edge/node/load-tables.ts'
import { startGateway } from '#edge/node/serve.ts'
import { readCatalogue } from '#origin/moviesir/catalogue/films.ts'
import { startOrigins } from '#origin/systems.ts'
import { noBrowser, startBrowser } from '../support/browser.ts'
import type { TestBrowser } from '../support/browser.ts'
import { findFreePort } from '../support/free-port.ts'
import { startLoginProviders } from '../support/login-providers.ts'
import { copyFreshDatabase } from '../support/fresh-database.ts'
import { startEngine } from '../support/recommendation-engine.ts'

const secret = 'd1b2c3d4e5f60718293a4b5c6d7e8f90'
const films = await readCatalogue()

describe.skipIf(noBrowser)(`MovieSir in a browser, through the gateway${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'daemun-pages-'))
  const logged: Record<string, unknown>[] = []
  const accessLines: string[] = []
  let engine: Awaited<ReturnType<typeof startEngine>>
  let providers: Awaited<ReturnType<typeof startLoginProviders>>
  let origins: Awaited<ReturnType<typeof startOrigins>>
  let gateway: Awaited<ReturnType<typeof startGateway>>
  let browser: TestBrowser

  beforeAll(async () => {
    engine = await startEngine(films.filter(({ runtime }) => runtime <= 130))
    providers = await startLoginProviders()
    const port = await findFreePort()
    await copyFreshDatabase(join(folder, 'postgres'))
    origins = await startOrigins({
      systems: ['moviesir'],
      dataDirectory: folder,
      environment: {
        MOVIESIR_JWT_SECRET: secret,
        MOVIESIR_ENGINE: engine.url,
        ...providers.environment(`http://console.moviesir.localhost:${port}`),
      },
      log: (entry) => logged.push(entry),
    })
    const sources = (await loadTables([])).filter(({ table }) => (table as { name: string }).name === 'moviesir')
    const environment = { MOVIESIR_API: origins.origins[0]!.url }
    gateway = await startGateway({
      compiled: await compileTables(sources, { environment, development: true }),
      limiter: createLocalLimiter({ now: () => performance.now() }),
      trustedHops: [],
      http: { host: '127.0.0.1', port },
      admin: { host: '127.0.0.1', port: 0 },
      accessLog: { write: (line) => void accessLines.push(line), async flush() {}, dropped: () => 0 },
      report() {},
    })
    browser = await startBrowser()
  }, 60_000)
  afterAll(async () => {
    await browser.close()
    await gateway.stop()
    await origins.stop()
    await providers.stop()
    await engine.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const site = (name: string) => `http://${name}moviesir.localhost:${gateway.port}/`
  const isWithin = (page: Page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)
  const mailedCode = () =>
    /\d{6}/.exec(String(logged.findLast(({ event }) => event === 'mail')?.['text'] ?? ''))?.[0] ?? ''

  it('takes a viewer from signing up to two tracks, another film, and what was recommended', async () => {
    const { page, faults, close } = await browser.open({ locale: 'ko-KR' })
    await page.goto(site('demo.'))
    await page.getByRole('button', { name: '처음이신가요? 가입하기' }).click()
    await page.getByLabel('이메일').fill('mina@example.com')
    await page.getByLabel('비밀번호').fill('a long password')
    await page.getByLabel('닉네임').fill('mina')
    await page.getByRole('button', { name: '인증 코드 받기' }).click()
    const code = page.getByLabel('인증 코드')
    await code.waitFor()
    await code.fill(mailedCode())
    await page.getByRole('button', { name: '확인' }).click()

    await page.getByLabel('Netflix').check()
    await page.getByRole('button', { name: '다음' }).click()
    await page.locator('.pick input').first().check()
    await page.getByText('1편 골랐어요').waitFor()
    await page.getByRole('button', { name: '고르기 끝' }).click()

    await page.getByRole('button', { name: '4시간' }).click()
    await page.getByRole('button', { name: '영화 고르기' }).click()
    const tracks = page.locator('.tracks article')
    await tracks.first().waitFor()
    expect(await tracks.count()).toBe(2)
    expect(engine.asked.at(-1)?.body).toMatchObject({ available_time: 240, preferred_otts: [8] })
    expect(engine.asked.at(-1)?.body['user_movie_ids']).toHaveLength(1)

    const first = tracks.first().locator('li').first()
    const before = await first.getAttribute('data-film')
    await first.getByRole('button', { name: '다른 영화로' }).click()
    await expect.poll(() => tracks.first().locator('li').first().getAttribute('data-film')).not.toBe(before)
    await tracks.first().locator('li').first().getByRole('button', { name: '비슷한 영화' }).click()
    await expect.poll(() => tracks.first().locator('.alike li').count()).toBe(6)
    await page.getByRole('button', { name: '좋아요' }).click()
    await page.getByText('고맙습니다').waitFor()

    await page.getByRole('button', { name: '지난 추천' }).click()
    await page.getByText('좋아요').waitFor()
    await page.reload()
    await page.getByRole('button', { name: '내 정보' }).click()
    await page.getByText('mina@example.com').waitFor()
    await page.getByRole('button', { name: '로그아웃' }).click()
    await page.getByRole('button', { name: '로그인', exact: true }).waitFor()
    expect(faults).toEqual([])
    await close()
  }, 60_000)

  it('says in the viewer’s language when the engine is away, and that a password is wrong', async () => {
    const { page, close } = await browser.open({ locale: 'en-GB' })
    await page.goto(site('demo.'))
    await page.getByLabel('Email').fill('mina@example.com')
    await page.getByLabel('Password').fill('not the password')
    await page.getByRole('button', { name: 'Log in', exact: true }).click()
    await page.getByText('The email or the password is wrong').waitFor()
    await page.getByLabel('Password').fill('a long password')
    await page.getByRole('button', { name: 'Log in', exact: true }).click()
    const pick = page.getByRole('button', { name: 'Pick films' })
    await pick.waitFor()
    engine.state.trouble = 'refuses'
    await pick.click()
    await page.getByText('No recommendations right now').waitFor()
    engine.state.trouble = 'none'
    await page.getByRole('button', { name: '한국어' }).click()
    await page.getByRole('button', { name: '영화 고르기' }).waitFor()
    await close()
  }, 60_000)

  it('gives a company a key once, and its calls as figures, plots and lines', async () => {
    const { page, faults, close } = await browser.open({ locale: 'ko-KR' })
    await page.goto(site('console.'))
    await page.getByRole('button', { name: '계정이 없나요? 가입하기' }).click()
    await page.getByLabel('회사 이름').fill('작은 회사')
    await page.getByLabel('이메일').fill('dev@small.example')
    await page.getByLabel('비밀번호').fill('a long password')
    await page.getByRole('button', { name: '회사 가입' }).click()
    await page.getByText('아직 호출이 없습니다').waitFor()

    await page.getByRole('button', { name: 'API 키' }).click()
    await page.getByLabel('키 이름').fill('앱')
    await page.getByRole('button', { name: '만들기' }).click()
    const key = (await page.locator('#fresh-key').textContent()) ?? ''
    expect(key).toMatch(/^sk-moviesir-[\da-f]{48}$/)
    await page.getByRole('button', { name: '닫기' }).click()
    await page.locator('#fresh-key').waitFor({ state: 'detached' })
    expect(await page.content()).not.toContain(key)

    // Another origin than the page's: a preflight, and an answer that the page may read.
    await page.getByRole('button', { name: '시험해 보기' }).click()
    await page.getByLabel('API 키').fill(key)
    await page.getByRole('button', { name: '보내기' }).click()
    await page.getByText('오늘 1,000번 중 999번 남았습니다.').waitFor()

    await page.getByRole('button', { name: '규칙' }).click()
    await page.getByLabel('무엇을 막을까요?').selectOption('장르')
    await page.getByLabel('값').fill('Horror')
    await page.getByRole('button', { name: '추가' }).click()
    await page.getByText('장르: Horror').waitFor()
    await page.getByText(/규칙이 영화 \d+편을 막고 있습니다/).waitFor()
    page.once('dialog', (dialog) => void dialog.accept())
    await page.getByRole('button', { name: '삭제' }).click()
    await page.getByText('아직 규칙이 없습니다').waitFor()

    await page.getByRole('button', { name: '요청 기록' }).click()
    await page.getByRole('cell', { name: 'POST /v1/recommend' }).waitFor()
    await page.getByRole('button', { name: '대시보드' }).click()
    await page.locator('svg.plot').first().waitFor()
    expect(await page.locator('svg.plot rect').count()).toBe(14)
    expect(faults).toEqual([])
    await close()
  }, 60_000)

  it('lets a company in with Google, add GitHub, and set a password with a mailed code', async () => {
    const { page, faults, close } = await browser.open({ locale: 'en-GB' })
    providers.person.email = 'founder@small.example'
    await page.goto(site('console.'))
    await page.getByRole('button', { name: 'Continue with Google' }).click()
    await page.getByText('No calls yet').waitFor()
    expect(page.url()).toBe(`${site('console.')}#dashboard`)

    await page.getByRole('button', { name: 'Account' }).click()
    await page.getByText('There is no password').waitFor()
    await page.getByRole('button', { name: 'Connect', exact: true }).click()
    await page.getByText('GitHub · connected').waitFor()
    await page.getByRole('button', { name: 'Set a password' }).click()
    const mailed = () => /: ([\w-]{32})/.exec(String(logged.findLast(({ event }) => event === 'mail')?.['text'] ?? ''))
    await expect.poll(() => mailed()?.[1]).toBeTruthy()
    await page.getByLabel('Code').fill(mailed()![1]!)
    await page.getByLabel('New password').fill('a long password')
    await page.getByRole('button', { name: 'Change password' }).click()
    await page.getByText('The password is changed').waitFor()
    await page.getByLabel('Email').fill(providers.person.email)
    await page.getByLabel('Password', { exact: true }).fill('a long password')
    await page.getByRole('button', { name: 'Log in', exact: true }).click()
    await page.getByText('No calls yet').waitFor()
    await page.getByRole('button', { name: 'Account' }).click()
    await page.getByRole('button', { name: 'Disconnect' }).first().click()
    await page.getByRole('button', { name: 'Connect', exact: true }).waitFor()
    expect(faults).toEqual([])
    const written = `${accessLines.join('')}${logged.filter(({ event }) => event !== 'mail').map((entry) => JSON.stringify(entry))}`
    expect(written).toContain('/auth/google/callback')
    for (const value of providers.secrets) expect(written).not.toContain(value)
    await close()
  }, 60_000)

  it('says that a login was cancelled, and offers no login of a provider that is not configured', async () => {
    const { page, close } = await browser.open({ locale: 'en-GB' })
    await page.goto(`${site('console.')}auth/github/callback?error=access_denied&state=x`)
    await page.getByText('The login with GitHub was cancelled').waitFor()
    expect(page.url()).toBe(site('console.'))
    await page.route('**/b2b/auth/providers', (route) => route.fulfill({ json: { providers: [] } }))
    await page.reload()
    await page.getByRole('button', { name: 'Log in', exact: true }).waitFor()
    expect(await page.getByRole('button', { name: /Continue with/ }).count()).toBe(0)
    await close()
  }, 60_000)

  it('says at the door what it is in the visitor’s language, and in the other one at a click', async () => {
    for (const name of ['', 'api.']) {
      const { page, close } = await browser.open({ locale: 'en-GB' })
      await page.goto(site(name))
      const shown = () => page.locator('body').innerText()
      expect((await shown()).replace('한국어', ''), name).not.toMatch(/[가-힣]/)
      await page.getByRole('button', { name: '한국어' }).click()
      expect(await shown(), name).toMatch(/[가-힣]/)
      await page.reload()
      await page.getByRole('button', { name: 'English' }).waitFor()
      await close()
    }
  }, 60_000)

  it('takes a viewer to two tracks without a mouse', async () => {
    const { page, faults, close } = await browser.open({ locale: 'en-GB' })
    const press = async (...keys: string[]) => {
      for (const key of keys) await page.keyboard.press(key)
    }
    const focused = () =>
      page.evaluate(() => document.activeElement?.getAttribute('name') ?? document.activeElement?.id)
    await page.goto(site('demo.'))
    await expect.poll(focused).toBe('email')
    await page.keyboard.type('mina@example.com')
    await press('Tab')
    await page.keyboard.type('a long password')
    await press('Enter')
    await page.getByText('How much time have you got?').waitFor()
    while ((await focused()) !== 'minutes') await press('Tab')
    await press('ArrowRight', 'ArrowRight')
    await page.getByText('2 h 40 min').waitFor()
    while ((await focused()) !== 'genre') await press('Tab')
    await press('Space', 'Enter')
    await page.locator('.tracks article').first().waitFor()
    expect(engine.asked.at(-1)?.body).toMatchObject({ available_time: 160, preferred_genres: ['Action'] })
    expect(faults).toEqual([])
    await close()
  }, 60_000)

  it('fits a phone, in the dark too, and is worked by keyboard', async () => {
    for (const name of ['', 'demo.', 'console.', 'api.']) {
      const { page, faults, close } = await browser.open({
        viewport: { width: 360, height: 740 },
        colorScheme: 'dark',
        locale: 'ko-KR',
      })
      await page.goto(site(name))
      expect(await isWithin(page), name).toBe(true)
      await page.keyboard.press('Tab')
      expect(await page.evaluate(() => document.documentElement.lang), name).toBe('ko')
      expect(await page.evaluate(() => document.activeElement?.tagName), name).toMatch(/^(A|BUTTON|INPUT)$/)
      expect(faults, name).toEqual([])
      await close()
    }
  }, 60_000)
})
