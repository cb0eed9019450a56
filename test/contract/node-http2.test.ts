import { startNode } from './node.ts'
import { runSuite } from './suite.ts'

/** RFC 9113 §8.2.2; test/wire/http2.test.ts sends them all the same. */
const noConnectionFields = 'HTTP/2 has none, and its clients send none'

runSuite('Node over HTTP/2 and TLS', {
  start: (environment) => startNode(environment, 'HTTP/2'),
  skips: {
    WebSockets: 'they are joined over HTTP/1.1, on the same port',
    'has a line of a WebSocket': 'they are joined over HTTP/1.1, on the same port',
    'drops hop-by-hop fields of a request (RFC 9110 §7.6.1)': noConnectionFields,
    'drops fields that Connection names in a request': noConnectionFields,
    'gives out nothing that stands beside the pages, whatever a table names':
      'on a machine of their own, tables may name any folder',
  },
})
