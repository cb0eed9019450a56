import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { html } from 'hono/html'
import type { ApiEnv } from './api.ts'
import { renderReference } from './reference-page.ts'

type DocsOptions = { title: string; version: string; description: string; docsPath?: string }

const assets = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
} as const

// Swagger UI styles itself with style attributes and draws with data: images; nothing comes from elsewhere.
const docsPolicy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

/**
 * Serves the description of an API from its own routes: `/openapi.json`, Swagger UI at `docsPath` with every file
 * from this machine, and `/redoc`, a page to read that needs no script. Call it after the routes are declared.
 */
export function serveDocs<E extends ApiEnv>(api: OpenAPIHono<E>, options: DocsOptions): void {
  const document = once(() => describeApi(api, options))
  const page = once(() => renderReference(document()))
  const read = once(readAssets)

  api.get('/openapi.json', (c) => c.json(document()))
  const { title, docsPath = '/docs' } = options
  api.get(docsPath, (c) =>
    c.html(swaggerPage(title, docsPath.slice(1)), 200, { 'Content-Security-Policy': docsPolicy }),
  )
  api.get(`${docsPath}/start.js`, (c) =>
    c.body(swaggerStart, 200, { 'Content-Type': 'text/javascript; charset=utf-8' }),
  )
  api.get('/redoc', async (c) => c.html(await page(), 200, { 'Content-Security-Policy': pagePolicy }))
  for (const [name, type] of Object.entries(assets)) {
    api.get(`${docsPath}/${name}`, (c) =>
      c.body(read()[name] ?? '', 200, { 'Content-Type': type, 'Cache-Control': 'public, max-age=86400' }),
    )
  }
}

function describeApi<E extends ApiEnv>(api: OpenAPIHono<E>, { title, version, description }: DocsOptions) {
  return api.getOpenAPI31Document({ openapi: '3.1.0', info: { title, version, description } })
}

export type ApiDocument = ReturnType<typeof describeApi>

function swaggerPage(title: string, folder: string) {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title} - Swagger UI</title>
        <link rel="icon" href="${folder}/favicon-32x32.png" />
        <link rel="stylesheet" href="${folder}/swagger-ui.css" />
      </head>
      <body>
        <div id="swagger-ui"></div>
        <script src="${folder}/swagger-ui-bundle.js"></script>
        <script src="${folder}/start.js"></script>
      </body>
    </html>`
}

const swaggerStart = `SwaggerUIBundle({ url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true, persistAuthorization: true })\n`

function readAssets(): Record<string, Uint8Array<ArrayBuffer>> {
  const directory = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'))
  const files = Object.keys(assets).map((name) => [name, new Uint8Array(readFileSync(join(directory, name)))] as const)
  return Object.fromEntries(files)
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined
  return () => (made ??= { value: make() }).value
}
