import { html, raw } from 'hono/html'
import type { ApiDocument } from './docs.ts'

type Schema = {
  $ref?: string
  type?: string | string[]
  format?: string
  description?: string
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  anyOf?: Schema[]
}
type Media = Record<string, { schema?: Schema }>
type Parameter = { name: string; in: string; required?: boolean; description?: string; schema?: Schema }
type Operation = {
  summary?: string
  description?: string
  security?: unknown[]
  parameters?: Parameter[]
  requestBody?: { content?: Media }
  responses?: Record<string, { description?: string; content?: Media }>
}
type Page = ReturnType<typeof html>

/** A page to read about every operation and schema of the document: plain HTML, no script, nothing from elsewhere. */
export function renderReference(document: ApiDocument): Page {
  const { title, version, description } = document.info
  const operations = listOperations(document)
  const schemas = Object.entries((document.components?.schemas ?? {}) as Record<string, Schema>)
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title} - Reference</title>
        <style>
          ${raw(style)}
        </style>
      </head>
      <body>
        <nav>
          <h2>Operations</h2>
          <ul>
            ${operations.map(
              ({ id, method, path }) =>
                html`<li>
                  <a href="#${id}"><b>${method}</b> ${path}</a>
                </li>`,
            )}
          </ul>
          <h2>Schemas</h2>
          <ul>
            ${schemas.map(([name]) => html`<li><a href="#schema-${name}">${name}</a></li>`)}
          </ul>
        </nav>
        <main>
          <h1>${title} <small>${version}</small></h1>
          <p>${description}</p>
          ${operations.map(operationSection)} ${schemas.map(([name, schema]) => schemaSection(name, schema))}
        </main>
      </body>
    </html>`
}

type Listed = { id: string; method: string; path: string; operation: Operation }

function listOperations(document: ApiDocument): Listed[] {
  const paths = (document.paths ?? {}) as Record<string, Record<string, Operation>>
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      id: `${method}${path.replaceAll(/[^a-z0-9]+/gi, '-')}`,
      method: method.toUpperCase(),
      path,
      operation,
    })),
  )
}

function operationSection({ id, method, path, operation }: Listed): Page {
  const parameters = operation.parameters ?? []
  const bodies = Object.entries(operation.requestBody?.content ?? {})
  return html`<section id="${id}">
    <h2><b>${method}</b> <code>${path}</code></h2>
    <p>${operation.summary} ${operation.security?.length ? html`<em>Needs a bearer token.</em>` : ''}</p>
    ${operation.description ? html`<p>${operation.description}</p>` : ''}
    ${parameters.length > 0 ? table(['Parameter', 'In', 'Type', ''], parameters.map(parameterRow)) : ''}
    ${bodies.map(
      ([type, { schema }]) =>
        html`<h3>Body <code>${type}</code></h3>
          ${schemaBody(schema)}`,
    )}
    ${table(['Status', 'Meaning', 'Body'], Object.entries(operation.responses ?? {}).map(responseRow))}
  </section>`
}

function parameterRow({ name, in: where, schema, required, description }: Parameter): Page {
  return html`<tr>
    <td><code>${name}</code></td>
    <td>${where}</td>
    <td>${typeName(schema)}</td>
    <td>${required ? 'required. ' : ''}${description}</td>
  </tr>`
}

function responseRow([status, { description, content }]: [string, { description?: string; content?: Media }]): Page {
  const schema = Object.values(content ?? {})[0]?.schema
  return html`<tr>
    <td>${status}</td>
    <td>${description}</td>
    <td>${schema ? typeName(schema) : ''}</td>
  </tr>`
}

function schemaSection(name: string, schema: Schema): Page {
  return html`<section id="schema-${name}">
    <h2>${name}</h2>
    ${schemaBody(schema)}
  </section>`
}

function schemaBody(schema: Schema | undefined): Page {
  if (!schema?.properties) return html`<p>${typeName(schema)}</p>`
  const required = new Set(schema.required)
  const rows = Object.entries(schema.properties).map(
    ([name, property]) =>
      html`<tr>
        <td><code>${name}</code></td>
        <td>${typeName(property)}</td>
        <td>${required.has(name) ? 'required. ' : ''}${property.description}</td>
      </tr>`,
  )
  return table(['Field', 'Type', ''], rows)
}

function table(heads: string[], rows: Page[]): Page {
  return html`<table>
    <thead>
      <tr>
        ${heads.map((head) => html`<th>${head}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${rows}
    </tbody>
  </table>`
}

function typeName(schema: Schema | undefined): Page | string {
  if (!schema) return 'any'
  if (schema.$ref) return schemaLink(schema.$ref.split('/').at(-1) ?? '')
  if (schema.items) return html`list of ${typeName(schema.items)}`
  if (schema.anyOf) return html`${schema.anyOf.map((one, index) => html`${index > 0 ? ' or ' : ''}${typeName(one)}`)}`
  const type = [schema.type ?? 'any'].flat().join(' or ')
  return schema.format ? `${type} (${schema.format})` : type
}

function schemaLink(name: string): Page {
  return html`<a href="#schema-${name}">${name}</a>`
}

const style = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { display: grid; grid-template-columns: minmax(14rem, 20rem) minmax(0, 60rem); gap: 2rem; margin: 0; padding: 1rem 2rem }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow: auto; font-size: .9rem }
nav ul { list-style: none; padding: 0 } nav li { padding: .15rem 0 } nav a { text-decoration: none }
section { border-top: 1px solid #8884; padding: 1rem 0 }
h2 code { font-size: 1.1rem } b { font-family: monospace }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 } th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8883 }
@media (max-width: 60rem) { body { display: block } nav { position: static } }
`
