/** Parsed JSON; a test asserts what is inside. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Body = any

/** A parsed answer of an API; `body` is undefined when there is none. */
export type Answer = { status: number; headers: Headers; body: Body }

type Options = { token?: string; headers?: Record<string, string>; form?: Record<string, string>; raw?: string }

/** A user of a test API: its id, its token, and requests that carry the token. */
export type TestUser = ReturnType<ReturnType<typeof createClient>['signIn']>

/** A client of the API at `url`, as a phone would be. */
export function createClient(url: string) {
  return { request, signUp, signIn }

  async function request(method: string, path: string, body?: unknown, options: Options = {}): Promise<Answer> {
    const { token, headers, form, raw } = options
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(body === undefined && raw === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...headers,
      },
      body: form ? new URLSearchParams(form) : (raw ?? (body === undefined ? undefined : JSON.stringify(body))),
    })
    const text = await response.text()
    const isJson = response.headers.get('content-type')?.includes('json')
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text || undefined }
  }

  /** Makes an account through the API. */
  async function signUp(username = `user-${crypto.randomUUID().slice(0, 8)}`, password = 'correct horse') {
    const email = `${username}@example.com`
    const { body: user } = await request('POST', '/api/v1/auth/register', { username, email, password })
    const { body: login } = await request('POST', '/api/v1/auth/login', { username, password })
    return signIn({ id: user.id, username, email, password, token: login.access_token })
  }

  /** Requests of somebody who has a token. */
  function signIn(account: { id: number; username: string; email: string; password: string; token: string }) {
    const { token } = account
    return {
      ...account,
      get: (path: string) => request('GET', path, undefined, { token }),
      put: (path: string, body: unknown) => request('PUT', path, body, { token }),
      post: (path: string, body: unknown, headers?: Record<string, string>) =>
        request('POST', path, body, { token, headers }),
      delete: (path: string) => request('DELETE', path, undefined, { token }),
    }
  }
}
