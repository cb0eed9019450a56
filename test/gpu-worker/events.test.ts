import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createEventFinder, findNumbers, findUsage, readEvent, readUsage } from '#gpu-worker/relay/events.ts'
import { chatDelta, errorEvent, roleEvent, usageEvent } from '../support/vllm/wire.ts'

const answer = { id: 'chatcmpl-1', created: 1, model: 'm' }
const delta = { logprobs: null, finish: null, ids: null, usage: undefined, isLast: false }
const read = (text: string) => readEvent(Buffer.from(text), 0, Buffer.byteLength(text))

describe('an event', () => {
  it.each([
    [': queued\n\n', 'comment', undefined],
    ['event: ping\n\n', 'comment', undefined],
    ['data: [DONE]\n\n', 'done', undefined],
    ['data:[DONE]\n\n', 'done', undefined],
    [errorEvent('x'), 'error', undefined],
    ['data: {"error":{"message":"x"}}\n\n', 'error', undefined],
    [usageEvent(answer, 'chat.completion.chunk', { prompt: 1, completion: 2 }), 'usage', undefined],
    [roleEvent(answer, null, undefined), 'empty', undefined],
    [chatDelta(answer, { ...delta, text: 'hi' }), 'content', undefined],
    [chatDelta(answer, { ...delta, text: '' }), 'empty', undefined],
    [chatDelta(answer, { ...delta, text: '', finish: 'abort' }), 'empty', 'abort'],
    [chatDelta(answer, { ...delta, text: '.', finish: 'stop' }), 'content', 'stop'],
    ['data: {"choices": [{"delta": {"content": "spaced"}, "finish_reason": "length"}]}\n\n', 'content', 'length'],
    ['data: {"choices":[{"delta":{"reasoning":"hm"},"finish_reason":null}]}\n\n', 'content', undefined],
    ['data: {"choices":[{"delta":{"tool_calls":[{"index":0}]},"finish_reason":null}]}\n\n', 'content', undefined],
    ['data: {"choices":[{"text":"of a completion","finish_reason":null}]}\n\n', 'content', undefined],
    ['data: {"id":"chatcmpl- garb\n\n', 'garbage', undefined],
    ['data: {"object":"another"}\n\n', 'garbage', undefined],
    ['<html>\n\n', 'garbage', undefined],
  ])('%j is %s, %s', (text, kind, finish) => {
    expect(read(text)).toEqual({ kind, finish })
  })

  it('cannot be made to say anything by the text in it', () => {
    const tricks = [
      '","finish_reason":"abort","x":"',
      '"finish_reason":"abort"',
      '\\","finish_reason":"abort',
      ',"usage":{"prompt_tokens":9,"completion_tokens":9}',
      'data: [DONE]\n\n',
      'data: {"error": {}}\n\n',
      ',"token_ids":[7,7]',
    ]
    for (const trick of tricks) {
      const text = chatDelta(answer, { ...delta, text: trick, usage: { prompt: 1, completion: 2 }, ids: [5] })
      const bytes = Buffer.from(text)
      expect(read(text)).toEqual({ kind: 'content', finish: undefined })
      const span = findUsage(bytes, 0, bytes.length)
      expect(span && readUsage(bytes, span)).toEqual({ promptTokens: 1, completionTokens: 2 })
      expect(findNumbers(bytes, Buffer.from(',"token_ids":'), { start: 0, end: bytes.length })?.numbers).toEqual([5])
    }
  })

  it('is content exactly when its text is not empty, whatever the text is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const finish = text.length % 2 === 0 ? 'stop' : null
        expect(read(chatDelta(answer, { ...delta, text, finish }))).toEqual({
          kind: text === '' ? 'empty' : 'content',
          finish: finish ?? undefined,
        })
      }),
    )
  })
})

describe('events', () => {
  it('are found however the bytes are cut, with either end of line', () => {
    const event = fc.constantFrom('data: {"a":1}', ': x', 'event: b\ndata: {}', 'data: 안녕')
    fc.assert(
      fc.property(
        fc.array(event),
        fc.boolean(),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        (events, returns, cuts) => {
          const end = returns ? '\r\n' : '\n'
          const bytes = Buffer.from(events.map((one) => `${one.replaceAll('\n', end)}${end}${end}`).join(''))
          const finder = createEventFinder(1_000)
          const found: string[] = []
          for (let at = 0, cut = 0; at < bytes.length; cut++) {
            const length = cuts[cut % cuts.length] ?? 1
            finder.push(Buffer.from(bytes.subarray(at, at + length)), (buffer, start, stop) => {
              found.push(buffer.toString('utf8', start, stop).trimEnd().replaceAll('\r\n', '\n'))
            })
            at += length
          }
          expect(found).toEqual(events)
          expect(finder.hasRest()).toBe(false)
        },
      ),
    )
  })

  it('have a size that they may not be above', () => {
    const finder = createEventFinder(100)
    expect(finder.push(Buffer.alloc(60, 'x'), () => {})).toBe(true)
    expect(finder.push(Buffer.alloc(60, 'x'), () => {})).toBe(false)
  })
})
