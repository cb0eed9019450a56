import { getConnInfo } from '@hono/node-server/conninfo'
import type { Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { isRecord } from '../shape.ts'
import type { SplitControl, SplitFault, SplitStatus } from '../upstreams/split-control.ts'

/**
 * GET /splits and /splits/UPSTREAM; PUT /splits/UPSTREAM with {"weights": {"blue": 90, "green": 10}}, or with
 * {"rollout": true} to begin the table's. UPSTREAM is 'app', or 'shop/app' with the slash escaped.
 */
export function addSplits(app: Hono, control: SplitControl): void {
  app.get('/splits', (context) => context.json(control.all()))
  app.get('/splits/:name', (context) => answer(context, control.find(context.req.param('name'))))
  app.put('/splits/:name', bodyLimit({ maxSize: bodyBytesMax }), async (context) => {
    const asked: unknown = await context.req.json().catch(() => undefined)
    const name = context.req.param('name')
    const who = `hand from ${getConnInfo(context).remote.address ?? 'nowhere'}`
    if (isRecord(asked) && asked['rollout'] === true) return answer(context, control.startRollout(name, who))
    const weights = isRecord(asked) ? asked['weights'] : undefined
    if (isWeights(weights)) return answer(context, control.setWeights(name, weights, who))
    return answer(context, { status: 400, detail: 'send {"weights": {"blue": 90, "green": 10}} or {"rollout": true}' })
  })
}

const bodyBytesMax = 16_384

const isWeights = (value: unknown): value is Record<string, number> =>
  isRecord(value) && Object.values(value).every((weight) => typeof weight === 'number')

function answer(context: Context, result: SplitStatus | SplitFault): Response {
  if (!('detail' in result)) return context.json(result)
  return context.json({ code: 'no_such_split', detail: result.detail }, result.status)
}
