import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Page } from 'playwright-core'
import { noBrowser, startBrowser } from '../support/browser.ts'
import type { TestBrowser } from '../support/browser.ts'
import { get } from '../support/get.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startOrigin } from '../support/origin.ts'
import type { Origin } from '../support/origin.ts'

const token = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='

/** The operators' page as people use it. */
describe(`the operators' page in a browser${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  let origin: Origin
  let gateway: TestGateway
  let changeable: TestGateway
  let browser: TestBrowser

  if (!noBrowser)
    beforeAll(async () => {
      origin = await startOrigin()
      const ofRows = { app: { servers: [origin.url] }, dead: { servers: ['http://127.0.0.1:1'] } }
      const rows = [
        { path: '/a', limit: { by: 'address' as const, requests: 100, per: '1 d' }, respond: { status: 200 } },
        { path: '/never', respond: { status: 200 } },
        { path: '/echo/*', proxy: { to: 'app' } },
        { path: '/dead/*', proxy: { to: 'dead' } },
      ]
      gateway = await startTestGateway({
        name: 'shop',
        upstreams: ofRows,
        sites: [{ hosts: ['shop.example'], routes: rows }],
      })
      const sides = { blue: { servers: [origin.url], weight: 90 }, green: { servers: [origin.url], weight: 10 } }
      const routes = [
        { path: '/answers/*', cache: 'shared' as const, proxy: { to: 'plain' } },
        { path: '/*', proxy: { to: 'app' } },
      ]
      const upstreams = { app: { split: { sides } }, plain: { servers: [origin.url] } }
      const table = { name: 'shop', upstreams, sites: [{ hosts: ['shop.example'], routes }] }
      changeable = await startTestGateway(table, { adminToken: token })
      browser = await startBrowser()
    })
  afterAll(async () => {
    await browser?.close()
    await gateway?.stop()
    await changeable?.stop()
    await origin?.close()
  })

  const serve = (path: string) => get(gateway.port, `http://shop.example${path}`)

  /** Whatever a fact is about, nothing may be refused by the page's own policy or thrown by its scripts. */
  const onPage = (
    fact: string,
    check: (page: Page) => Promise<void>,
    options = {},
    toUrl = (): string => gateway.adminUrl,
  ): void =>
    it.skipIf(noBrowser)(fact, async () => {
      const { page, faults, close } = await browser.open(options)
      await page.goto(toUrl())
      await page.waitForSelector('#sites table')
      await check(page)
      await close()
      // What a test has cut off by itself, and answers that a browser calls errors.
      expect(faults.filter((fault) => !/net::ERR_FAILED|status of 40[14]/.test(fault))).toEqual([])
    })

  const focused = (page: Page): Promise<string> =>
    page.evaluate(() => document.activeElement?.id || document.activeElement?.getAttribute('name') || '')

  onPage('shows what comes without being loaded again', async (page) => {
    await page.check('#idle')
    expect(await page.textContent('#sites')).toContain('/never')
    await serve('/dead/7?token=unshown')
    await serve('/a')
    await page.waitForSelector('#recent tbody tr')
    const [recent, sites, upstreams] = await Promise.all(
      ['#recent', '#sites', '#groups'].map((one) => page.textContent(one)),
    )
    expect(recent).toContain('GET shop.example/dead/7')
    expect(recent).toContain('upstream_unreachable')
    expect(recent).not.toContain('unshown')
    await page.waitForFunction(() => document.querySelector('#sites')?.textContent?.includes('1 allowed'))
    expect(sites).toContain('shop.example')
    expect(upstreams).toContain(origin.url)
    expect(await page.textContent('#hosts')).toContain('--https')
  })

  onPage('explains a request as the program does', async (page) => {
    await page.fill('[name=url]', 'https://shop.example/echo/x?y=1')
    await page.fill('[name=headers]', 'Accept: text/html\nX-Own: 1')
    await page.press('[name=url]', 'Enter')
    await page.waitForFunction(() => document.querySelector('#answer')?.textContent?.includes('action'))
    const text = await page.textContent('#answer')
    expect(text).toContain('GET https://shop.example/echo/x?y=1 from 203.0.113.7')
    expect(text).toMatch(/row +shop \/echo\/\*/)
    await page.fill('[name=headers]', 'no field')
    await page.click('#question button')
    expect(await page.textContent('#answer')).toContain('"no field"')
  })

  onPage('can be used without a mouse', async (page) => {
    await page.keyboard.press('Tab')
    expect(await page.evaluate(() => document.activeElement?.className)).toBe('skip')
    await page.keyboard.press('Enter')
    expect(await focused(page)).toBe('main')
    await page.keyboard.press('/')
    expect(await focused(page)).toBe('filter')
    await page.keyboard.type('never')
    expect(await page.locator('#sites tbody tr:not(.site) th').allTextContents()).toEqual([
      expect.stringContaining('/never'),
    ])
    await page.locator('#sites tr:not(.site) .pick').press('Enter')
    expect(await page.textContent('#scope')).toContain('shop.example /never')
    await page.keyboard.press('Escape')
    expect(await page.textContent('#scope')).toBe('Everything')
    await page.keyboard.press('6')
    expect(await focused(page)).toBe('explain')
    await page.keyboard.press('e')
    expect(await focused(page)).toBe('url')
    await page.keyboard.type('rtl?')
    expect(await page.inputValue('[name=url]')).toBe('rtl?')
  })

  onPage('tells its shortcuts, which can be turned off', async (page) => {
    await page.keyboard.press('?')
    expect(await page.locator('#keys').isVisible()).toBe(true)
    expect(await page.locator('#key-list dt').count()).toBeGreaterThan(6)
    await page.uncheck('#keys-on')
    await page.keyboard.press('Escape')
    expect(await page.locator('#keys').isVisible()).toBe(false)
    await page.keyboard.press('t')
    expect(await page.evaluate(() => document.documentElement.dataset['theme'])).toBeUndefined()
  })

  onPage('tells the points of a plot by keyboard and as a table', async (page) => {
    const from = Date.UTC(2026, 0, 1)
    const values = (last: number) => [...Array.from({ length: 179 }, () => null), last]
    const measures = { requestsPerSecond: 12.5, errorsPerSecond: 0.25, clientErrorsPerSecond: 0, p50Ms: 3, p99Ms: 41 }
    const points = Object.fromEntries(Object.entries(measures).map(([name, value]) => [name, values(value)]))
    await page.route('**/status/history*', (route) => route.fulfill({ json: { from, stepMs: 5_000, ...points } }))
    await page.keyboard.press('r')
    const latency = page.locator('.plot').nth(1)
    await expect
      .poll(() =>
        latency
          .locator('.chart path.p99Ms')
          .getAttribute('d', { timeout: 1_000 })
          .catch(() => ''),
      )
      .toMatch(/^M/)
    await latency.locator('.area').focus()
    await page.keyboard.press('ArrowLeft')
    expect(await latency.locator('.tip').innerText()).toBe('00:14:55\np50: 3 ms\np99: 41 ms')
    await page.keyboard.press('Home')
    expect(await latency.locator('.tip').innerText()).toBe('00:00:00\np50: – ms\np99: – ms')
    await page.locator('.plot summary').first().click()
    expect(await page.locator('.plot').first().locator('tbody tr').allInnerTexts()).toEqual(['00:14:55\t12.5\t0.25\t0'])
  })

  onPage('says when the gateway is gone, and when it is back', async (page) => {
    await page.route('**/status*', (route) => route.abort())
    await page.waitForSelector('#lost:not([hidden])')
    expect(await page.textContent('#lost')).toContain('Connection lost')
    expect(await page.textContent('#sites')).toContain('shop.example')
    await page.unroute('**/status*')
    // It may have tried by itself by now.
    await page.evaluate(() => document.querySelector<HTMLElement>('#lost button')?.click())
    await page.waitForSelector('#lost', { state: 'hidden' })
    expect(await page.textContent('#connection')).toContain('live')
  })

  const background = (page: Page): Promise<string> =>
    page.evaluate(() => getComputedStyle(document.body).backgroundColor)

  onPage(
    'is dark where the reader likes it dark, and keeps what they choose',
    async (page) => {
      const dark = await background(page)
      await page.click('#theme')
      const light = await background(page)
      expect([dark, light]).toEqual(['rgb(18, 19, 22)', 'rgb(245, 245, 243)'])
      await page.reload()
      expect(await background(page)).toBe(light)
    },
    { colorScheme: 'dark' },
  )

  onPage(
    'speaks Korean to whoever reads Korean, and English when told to',
    async (page) => {
      expect(await page.getAttribute('html', 'lang')).toBe('ko')
      expect(await page.textContent('#rows-title')).toBe('사이트와 라우트')
      expect(await page.evaluate(() => document.body.innerText)).not.toMatch(/undefined|\{\w+\}/)
      await page.keyboard.press('l')
      expect(await page.getAttribute('html', 'lang')).toBe('en')
      expect(await page.textContent('#rows-title')).toBe('Sites and rows')
      await page.waitForSelector('#sites table')
      expect(await page.textContent('#sites')).not.toMatch(/[가-힣]/)
    },
    { locale: 'ko-KR' },
  )

  onPage(
    'changes nothing without the token, and splits with it',
    async (page) => {
      await page.waitForSelector('#splits:not([hidden])')
      const split = page.locator('#split-list .split')
      expect(await split.innerText()).toContain('blue 90 % · green 10 %')
      await split.getByLabel('green').fill('30')
      await split.getByRole('button', { name: 'Apply' }).click()
      await expect.poll(() => split.innerText()).toContain('Type the token first')
      await page.fill('#token', 'x'.repeat(44))
      await split.getByRole('button', { name: 'Apply' }).click()
      await expect.poll(() => split.innerText()).toContain('That is not the token')
      await page.fill('#token', token)
      await split.getByLabel('blue').fill('70')
      await split.getByRole('button', { name: 'Apply' }).click()
      await expect.poll(() => split.innerText()).toContain('blue 70 % · green 30 %')
      await page.reload()
      expect(await page.inputValue('#token')).toBe(token)
      await page.click('#forget')
      expect(await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }))).not.toContain(token)
    },
    {},
    () => changeable.adminUrl,
  )

  onPage(
    'shows how often the cache is hit, and empties it',
    async (page) => {
      for (let times = 0; times < 4; times++) await get(changeable.port, 'http://shop.example/answers/cached')
      await page.waitForSelector('#cache:not([hidden])')
      await expect.poll(() => page.innerText('#cache-tiles')).toContain('3 of 4 not asked upstream')
      await page.fill('#token', token)
      await page.selectOption('#purge [name=kind]', 'prefix')
      await page.fill('#purge [name=value]', 'http://shop.example/answers')
      await page.click('#purge button')
      await expect.poll(() => page.innerText('#purge-answer')).toBe('Answers forgotten: 1.')
    },
    {},
    () => changeable.adminUrl,
  )

  onPage('has no place for a token that nobody has set', async (page) => {
    expect(await page.locator('#token').isVisible()).toBe(false)
  })

  onPage('shows what caches do and which tables are served, where there are any', async (page) => {
    expect(await page.locator('#cache').isVisible()).toBe(false)
    const status = await page.evaluate(async () => (await fetch('status')).json())
    status.cache = { entries: 12, bytes: 3_145_728 }
    status.sites[0].routes[0].cacheVerdicts = { hit: 6, stale: 1, collapsed: 1, miss: 2, bypass: 5 }
    status.tables = { generation: 4, lastReloadSuccessful: false, lastReloadAt: '2026-01-01T00:00:00.000Z' }
    status.certificates = [
      { host: 'late.example', daysLeft: 3, expiring: true },
      { host: 'fresh.example', daysLeft: 80, expiring: false },
      { host: 'bare.example', daysLeft: 0, expiring: true },
    ]
    await page.route('**/status', (route) => route.fulfill({ json: status }))
    await page.waitForSelector('#cache:not([hidden])')
    expect(await page.innerText('#cache-tiles')).toContain('80 %')
    expect(await page.innerText('#cache-tiles')).toContain('8 of 10')
    expect(await page.innerText('#generation')).toContain('Generation 4 is kept')
    const hosts = await page.locator('#hosts tbody tr').allInnerTexts()
    expect(hosts.map((text) => text.replace(/\s+/g, ' '))).toEqual([
      'bare.example none: a self-signed one stands in',
      'late.example 3 days',
      'fresh.example 80 days',
    ])
  })

  for (const locale of ['en-GB', 'ko-KR'])
    onPage(
      `fits on a phone in ${locale}`,
      async (page) => {
        await serve('/dead/a-path-that-is-rather-long-and-has-no-place-to-break/'.repeat(3))
        await page.waitForSelector('#recent tbody tr')
        await page.check('#idle')
        const wide = await page.evaluate(() =>
          [...document.querySelectorAll('main, main *')]
            .filter((one) => !one.closest('pre, .scroll, svg') && one.getBoundingClientRect().right > innerWidth + 1)
            .map((one) => one.outerHTML.slice(0, 80)),
        )
        expect(wide).toEqual([])
        expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360)
      },
      { locale, viewport: { width: 360, height: 740 } },
    )
})
