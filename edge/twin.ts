/** 'demo.moviesir.cloud' → 'demo.moviesir.localhost': browsers resolve it to this machine. */
export const toTwin = (host: string): string => host.replace(/\.[^.]+$/, '.localhost')
export const hasTwin = (host: string): boolean => host.includes('.') && !/[\d\]]$/.test(host)
