import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { chromium } from 'playwright-core'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'

const executable = [
  '/usr/bin/chromium',
  ...(process.env['PATH'] ?? '')
    .split(delimiter)
    .flatMap((folder) => ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join(folder, name))),
].find((path) => existsSync(path))

/** Why tests in a browser are skipped, for their title; undefined when they run. */
export const noBrowser = executable ? undefined : 'skipped: no chromium on PATH'

export interface TestBrowser {
  /** A page of a profile of its own. What its scripts throw and what the console calls an error is in `faults`. */
  open(options?: BrowserContextOptions): Promise<TestPage>
  close(): Promise<void>
}

interface TestPage {
  page: Page
  faults: string[]
  close(): Promise<void>
}

/** Debian's chromium without a window, and without asking the internet for anything. */
export async function startBrowser(): Promise<TestBrowser> {
  const browser: Browser = await chromium.launch({
    executablePath: executable as string,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })

  async function open(options: BrowserContextOptions = {}): Promise<TestPage> {
    const context = await browser.newContext({ locale: 'en-GB', timezoneId: 'UTC', ...options })
    const page = await context.newPage()
    const faults: string[] = []
    page.on('pageerror', (error) => faults.push(error.message))
    page.on('console', (message) => message.type() === 'error' && faults.push(message.text()))
    return { page, faults, close: () => context.close() }
  }

  return { open, close: () => browser.close() }
}
