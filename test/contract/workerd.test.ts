import { runSuite } from './suite.ts'
import { startWorkerd } from './workerd.ts'

const resolved =
  'the platform resolves dot segments before the Worker sees them, so the path that is checked is the one that is sent'

runSuite('workerd', {
  start: (environment) => startWorkerd({ ...environment, NODE_ENV: 'development' }),
  skips: {
    'never sends on the path /echo/../row': resolved,
    'never sends on the path /echo/./x': resolved,
    'never sends on the path /echo/..': resolved,
    'never sends on the path /echo/%2e%2e/row': resolved,
    'never sends on the path /echo/.%2E': resolved,
    "sends the client's Host on": "fetch sends the upstream's own name; X-Forwarded-Host has the client's",
    'passes on a body with GET': 'fetch has none; such a request gets 501',
    "answers 502 when the upstream's answer is not HTTP":
      'fetch does not tell why it failed: it is 502 with the code upstream_unreachable',
    'sends the part of a file that is asked for, or the whole':
      'the binding has no parts: the whole is sent, as it may be',
    'answers 304 to whoever has had the file since it changed': 'the binding tells no time of a file, only its tag',
    'trusted edges': 'this is the edge: what it signs is checked behind it (zone.test.ts)',
  },
})
