import * as fc from 'fast-check'

/** Answers as bytes, good and bad, for whoever reads them. */
export const goodAnswers: [string, string][] = [
  ['Content-Length', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello'],
  ['no body', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
  ['chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n'],
  [
    'chunks with extensions and a trailer',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n05;a=b;c="d"\r\nhello\r\n0;x\r\nX-Sum: 1\r\nX-B:\r\n\r\n',
  ],
  [
    'chunks with capital digits',
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1A\r\n${'x'.repeat(26)}\r\n0\r\n\r\n`,
  ],
  ['the connection’s end', 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nhello'],
  ['the end of a connection of HTTP/1.0', 'HTTP/1.0 200 OK\r\n\r\nhello'],
  ['HTTP/1.0 that keeps the connection', 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello'],
  ['204', 'HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n'],
  ['304 with a length', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 5\r\n\r\n'],
  ['early hints', 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'],
  ['a head without a reason', 'HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno'],
  ['an empty reason', 'HTTP/1.1 404 \r\nContent-Length: 2\r\n\r\nno'],
  ['blanks around values', 'HTTP/1.1 200 OK\r\nX-A: \t b c \t\r\nX-B:c\r\nX-C:\r\nContent-Length:  2 \r\n\r\nok'],
  ['bytes above 127', 'HTTP/1.1 200 \xfcber\r\nX-A: \xe4\xff\r\nContent-Length: 2\r\n\r\n\xff\x00'],
  ['repeated fields', 'HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nContent-Length: 2\r\n\r\nok'],
  [
    'fields that tell of keeping',
    'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nConnection: X, Keep-Alive\r\nContent-Length: 2\r\n\r\nok',
  ],
]

const piece = fc.constantFrom(
  ...': , ; 0 00 5 f F 1A -1 +5 0x5 99999999999999999 chunked gzip HTTP/1.0 HTTP/1.1 HTTP/2.0 close keep-alive'.split(
    ' ',
  ),
  ...' |\t|\r\n|\n|\r|\0|\xff|\x7f|\x01|\r\n\r\n|\r\n |0\r\n\r\n|\r\n: a\r\n|\r\nX-A : b'.split('|'),
  ...'\r\nContent-Length: 3|\r\nContent-Length: 5|\r\nTransfer-Encoding: chunked|\r\nTransfer-Encoding: gzip, chunked'.split(
    '|',
  ),
  ...'\r\nTransfer-Encoding: gzip|\r\nTransfer-Encoding: chunked, chunked|\r\nConnection: close|\r\nContent-Length: 5, 5'.split(
    '|',
  ),
  ...'\r\nConnection: Upgrade\r\nUpgrade: websocket|HTTP/1.1 100 Continue\r\n\r\n|HTTP/1.1 101 Switching Protocols\r\n\r\n'.split(
    '|',
  ),
  ...'HTTP/1.1 102 Processing\r\n\r\n|HTTP/1.1 205 Reset Content\r\n\r\n|HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'.split(
    '|',
  ),
)
const change = fc.tuple(fc.constantFrom('insert', 'lose', 'replace', 'double'), fc.nat(200), fc.nat(6), piece)

/** One of the good answers with one to three changes, mostly where its lines meet. */
export const mutatedAnswer: fc.Arbitrary<string> = fc
  .tuple(
    fc.constantFrom(...goodAnswers.map(([, bytes]) => bytes)),
    fc.array(fc.tuple(change, fc.boolean()), { minLength: 1, maxLength: 3 }),
  )
  .map(([text, changes]) => {
    let bytes = text
    for (const [[kind, where, length, added], atLine] of changes) {
      const lines = [...bytes.matchAll(/\r\n|: |$/g)].map(({ index }) => index)
      const at = (atLine ? lines[where % lines.length] : undefined) ?? where % (bytes.length + 1)
      const [front, back] = [bytes.slice(0, at), bytes.slice(at)]
      if (kind === 'insert') bytes = front + added + back
      else if (kind === 'lose') bytes = front + back.slice(length)
      else if (kind === 'replace') bytes = front + added + back.slice(1)
      else bytes = front + bytes.slice(Math.max(0, at - 3 * length))
    }
    return bytes
  })
