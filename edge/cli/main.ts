import { keepCompiled } from '../node/compile-cache.ts'

// The program is loaded after this, so that only its first start compiles it.
keepCompiled()
const { run } = await import('./run.ts')
await run(process.argv.slice(2))
