import { createTransport } from 'nodemailer'
import type { Log } from '../kit/api.ts'
import { OriginError } from '../kit/error.ts'

type Mail = { to: string; subject: string; text: string }

/** Sends one mail, or throws `service_unavailable` when nobody took it. */
export type Mailer = { send(mail: Mail): Promise<void>; close(): void }

/** Over the SMTP server of `url`; `from` is the sender. */
export function createSmtpMailer({ url, from, log }: { url: string; from: string; log: Log }): Mailer {
  const transport = createTransport({ url, connectionTimeout: 5_000, greetingTimeout: 5_000, socketTimeout: 10_000 })
  return {
    async send(mail) {
      try {
        await transport.sendMail({ from, ...mail })
      } catch (error) {
        log({ event: 'mail refused', system: 'moviesir', reason: (error as Error).message })
        throw new OriginError('service_unavailable', '메일을 보내지 못했습니다. 잠시 후 다시 시도해 주세요.')
      }
    },
    close: () => transport.close(),
  }
}

/** For development: what would be sent goes into the log, codes included. Never for production. */
export function createLogMailer(log: Log): Mailer {
  return {
    async send(mail) {
      log({ event: 'mail', system: 'moviesir', ...mail })
    },
    close() {},
  }
}
