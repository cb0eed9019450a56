import { within } from '../shared-limiter.ts'

/** What one side may ask, and what it is answered. */
export type Protocol = Record<string, { asks: unknown; answers: unknown }>

export interface Channel<Asked extends Protocol> {
  /** Rejects when there is no answer in time, the other side fails, or is gone. */
  ask<Kind extends keyof Asked & string>(
    kind: Kind,
    data: Asked[Kind]['asks'],
    timeoutMs: number,
  ): Promise<Asked[Kind]['answers']>
}

export type Handlers<Taken extends Protocol> = {
  [Kind in keyof Taken]: (data: Taken[Kind]['asks']) => Taken[Kind]['answers'] | Promise<Taken[Kind]['answers']>
}

/** A process to talk to: a child, or `process` for its parent. */
interface Peer {
  connected: boolean
  send?(message: unknown, callback: (error: Error | null) => void): boolean
  on(event: 'message', listener: (message: unknown) => void): unknown
  on(event: 'disconnect', listener: () => void): unknown
}

type Question = { ask: number; kind: string; data: unknown }
type Message = Question | { answer: number; data: unknown } | { answer: number; fault: string }

/** Questions and answers in both directions between a process and its child. */
export function createChannel<Asked extends Protocol, Taken extends Protocol>(
  peer: Peer,
  handlers: Handlers<Taken>,
): Channel<Asked> {
  const waiting = new Map<number, PromiseWithResolvers<unknown>>()
  let count = 0

  peer.on('message', (message) => void take(message as Message))
  peer.on('disconnect', () => {
    for (const { reject } of waiting.values()) reject(new Error('the process is gone'))
    waiting.clear()
  })

  async function take(message: Message): Promise<void> {
    if ('ask' in message) return answer(message)
    const asked = waiting.get(message.answer)
    waiting.delete(message.answer)
    if ('fault' in message) asked?.reject(new Error(message.fault))
    else asked?.resolve(message.data)
  }

  async function answer({ ask: number, kind, data }: Question): Promise<void> {
    try {
      const handler = handlers[kind]
      if (!handler) throw new Error(`nothing is known of '${kind}'`)
      send({ answer: number, data: await handler(data) })
    } catch (error) {
      send({ answer: number, fault: error instanceof Error ? (error.stack ?? error.message) : String(error) })
    }
  }

  /** What cannot be sent is never answered: the other side is gone, and its end is heard of elsewhere. */
  function send(message: Message): void {
    if (peer.connected) peer.send?.(message, () => {})
  }

  function ask(kind: string, data: unknown, timeoutMs: number): Promise<unknown> {
    if (!peer.connected) return Promise.reject(new Error('the process is gone'))
    const number = count++
    const asked = Promise.withResolvers<unknown>()
    waiting.set(number, asked)
    send({ ask: number, kind, data })
    return within(asked.promise, timeoutMs).finally(() => waiting.delete(number))
  }

  return { ask: ask as Channel<Asked>['ask'] }
}
