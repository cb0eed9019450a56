import { keepCompiled } from '../edge/node/compile-cache.ts'

// The system is loaded after this, so that only its first start compiles it.
keepCompiled()
const { runSystem } = await import('./system.ts')
await runSystem()
