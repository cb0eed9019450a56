import { tables } from './sites/index.ts'
import { createWorker } from './worker/serve.ts'

export default createWorker(tables)
