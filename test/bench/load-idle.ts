import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { host, path } from './work.ts'

/** Connections that have asked once and are kept open, a process of its own. Closes them all when told to open none. */
export interface IdleOrder {
  port: number
  connections: number
}

const open: Socket[] = []

process.on('message', (order: IdleOrder) => {
  void hold(order).then((report) => process.send?.(report))
})
process.on('disconnect', () => process.exit())

/** How many are open. */
async function hold({ port, connections }: IdleOrder): Promise<number> {
  if (connections === 0) for (const socket of open.splice(0)) socket.destroy()
  while (open.length < connections) {
    const lanes = Math.min(200, connections - open.length)
    await Promise.all(Array.from({ length: lanes }, () => openOne(port)))
  }
  return open.filter(({ destroyed }) => !destroyed).length
}

async function openOne(port: number): Promise<void> {
  // An address has 28,000 ports to go out from; many clients have many addresses.
  const socket = connect({ port, host: '127.0.0.1', localAddress: `127.0.0.${2 + (open.length % 8)}` })
  socket.on('error', () => socket.destroy())
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  await Promise.race([once(socket, 'data'), once(socket, 'close')])
  socket.resume()
  open.push(socket)
}
