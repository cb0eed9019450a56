import { createServer } from 'node:net'
import { body } from './work.ts'

/**
 * The upstream where nginx is missing: the same answer to every request, from node:net. Requests here have no body and
 * come one at a time on a connection, so the end of a head is the end of a request.
 */
const head = `HTTP/1.1 200 OK\r\nServer: bench\r\nDate: ${new Date().toUTCString()}\r\nContent-Type: application/json\r\n`
const answer = `${head}Content-Length: ${body.length}\r\nConnection: keep-alive\r\n\r\n${body}`

const server = createServer({ noDelay: true }, (socket) => {
  let rest = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    rest += chunk
    if (!rest.endsWith('\r\n\r\n')) return
    rest = ''
    socket.write(answer, 'latin1')
  })
  socket.on('error', () => socket.destroy())
})
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 1_024 })
