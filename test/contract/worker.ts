import { createWorker } from '#edge/worker/serve.ts'
import { tables } from './tables.ts'

export default createWorker(tables)
