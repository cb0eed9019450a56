import { startNode } from './node.ts'
import { runSuite } from './suite.ts'

runSuite('Node', {
  start: (environment) => startNode(environment),
  skips: {
    'gives out nothing that stands beside the pages, whatever a table names':
      'on a machine of their own, tables may name any folder',
  },
})
