// @ts-check

/** What the page says, in the languages it speaks. `{name}` stands for a value. */
const words = {
  en: {
    skip: 'Skip to the content',
    sections: 'Sections',
    shortcuts: 'Shortcuts',
    close: 'Close',
    keysOn: 'single keys work',
    traffic: 'Traffic',
    rows: 'Sites and rows',
    upstreams: 'Upstreams',
    splits: 'Splits',
    cache: 'Cache',
    changes: 'Changes',
    changesLead:
      'Splits, purges and reloads are asked for with this token. Only this tab keeps it, until it is closed.',
    changesRefused: 'This page can only look: for changes, start the gateway with DAEMUN_ADMIN_TOKEN.',
    token: 'Token (DAEMUN_ADMIN_TOKEN)',
    forget: 'Forget',
    tokenMissing: 'Type the token first, under Changes.',
    tokenWrong: 'That is not the token.',
    reload: 'Reload tables',
    generation: 'Generation {generation}, read at {time}',
    generationKept: 'Generation {generation} is kept: what was read at {time} has faults',
    reloaded: 'Generation {generation} is served.',
    reloadRefused: 'Refused; generation {generation} is served on.',
    apply: 'Apply',
    startRollout: 'Start rollout',
    splitChanged: 'Done.',
    purgeWhat: 'Forget answers by',
    purgeValue: 'URL, prefix or tag',
    prefix: 'prefix',
    tag: 'tag',
    purge: 'Purge',
    purged: 'Answers forgotten: {count}.',
    hitRatio: 'Hit ratio',
    hits: '{hits} of {all} not asked upstream',
    kept: 'Kept answers',
    keptBytes: '{megabytes} MB',
    cached: 'Cache',
    certificates: 'Certificates',
    requests: 'Recent errors',
    explain: 'Explain',
    theme: 'Theme',
    theme_auto: '◐ Auto',
    theme_light: '☀ Light',
    theme_dark: '☾ Dark',
    live: 'live',
    waiting: 'connecting …',
    draining: 'stopping: open requests may end',
    updated: 'updated at {time}',
    lost: 'Connection lost.',
    lostMore: 'The numbers are those of {time}. Next try in {seconds} s.',
    lostFirst: 'The gateway does not answer. Next try in {seconds} s.',
    again: 'Try now',
    range: 'Time range',
    '15m': '15 minutes',
    '6h': '6 hours',
    everything: 'Everything',
    showAll: 'Show everything',
    requestsPerSecond: 'requests/s',
    errorsPerSecond: 'errors/s (5xx)',
    clientErrorsPerSecond: 'refused/s (4xx)',
    p50Ms: 'p50',
    p99Ms: 'p99',
    rate: 'Requests per second',
    latency: 'Latency in milliseconds',
    asTable: 'As a table',
    time: 'Time',
    noPoints: 'nothing yet',
    plotHelp: 'Arrow keys move through the points, Home and End to the first and last.',
    lastMinute: 'last minute',
    tileRequests: 'Requests',
    tileErrors: 'Errors (5xx)',
    tileClientErrors: 'Refused (4xx)',
    tileOpen: 'Being served',
    tileWebSockets: 'WebSockets',
    perSecond: '{value} /s',
    sinceStart: '{value} since the start',
    connections: '{clients} clients, {upstreams} upstream',
    filter: 'Filter rows',
    idle: 'rows without requests too',
    row: 'Row',
    errors: '5xx',
    refusals: '4xx',
    limits: 'Limits',
    allowed: 'allowed',
    refused: 'refused',
    down: 'store down',
    noRow: 'no row matched',
    noSite: 'hosts that no table names',
    idleRows: 'rows without requests: {count}',
    noneMatches: 'No row has this in its path, action or policies.',
    noUpstreams: 'No table has an upstream.',
    server: 'Server',
    state: 'State',
    up: 'up',
    warming: 'warming up, {share} %',
    putAside: 'put aside',
    weight: 'Weight',
    backup: 'backup',
    inFlight: 'With it now',
    ejections: 'Put aside',
    times: '{count} times',
    upstreamFacts: '{balance}, {inFlight} of {inFlightMax} at once, {retries} sent again',
    noCertificates: 'This listener takes no TLS: start it with --https.',
    host: 'Host',
    daysLeft: 'Days left',
    days: '{count} days',
    standIn: 'none: a self-signed one stands in',
    kind: 'Which requests',
    failed: 'Failed',
    refusedKind: 'Refused',
    noRequests: 'None since the start.',
    request: 'Request',
    status: 'Status',
    why: 'Why',
    took: 'Took',
    requestId: 'Request id',
    explainLead: 'What the gateway would do with a request, and why. Nothing is sent.',
    method: 'Method',
    from: 'Client address',
    fields: 'Header fields, one a line',
    ask: 'Explain',
    asking: 'Asking …',
    explanation: 'Explanation',
    badField: 'A field needs a colon: "{line}"',
    unreachable: 'The gateway does not answer.',
    process: 'Process {id}, started {time}. {dropped} log lines dropped.',
    workers: 'Its {count} workers are processes {ids}.',
    silent: 'No answer from {ids}: what they told last is in the sums.',
    keyHelp: 'this list',
    keySections: 'to a section',
    keyFilter: 'filter rows',
    keyExplain: 'explain a request',
    keyRange: 'other time range',
    keyTheme: 'other theme',
    keyLanguage: '한국어로',
    keyEscape: 'show everything again',
    keyArrows: 'in a plot: from point to point',
  },
  ko: {
    skip: '본문으로 건너뛰기',
    sections: '구역',
    shortcuts: '단축키',
    close: '닫기',
    keysOn: '한 글자 단축키 사용',
    traffic: '트래픽',
    rows: '사이트와 라우트',
    upstreams: '업스트림',
    splits: '트래픽 분할',
    cache: '캐시',
    changes: '변경',
    changesLead: '분할, 비우기, 다시 읽기는 이 토큰으로 요청합니다. 토큰은 이 탭에만 있고, 탭을 닫으면 사라집니다.',
    changesRefused:
      '이 페이지에서는 보기만 할 수 있습니다. 변경하려면 DAEMUN_ADMIN_TOKEN을 두고 게이트웨이를 시작하세요.',
    token: '토큰 (DAEMUN_ADMIN_TOKEN)',
    forget: '지우기',
    tokenMissing: '먼저 변경 구역에 토큰을 입력하세요.',
    tokenWrong: '토큰이 맞지 않습니다.',
    reload: '테이블 다시 읽기',
    generation: '{generation}번째 구성, {time}에 읽음',
    generationKept: '{generation}번째 구성을 유지합니다. {time}에 읽은 것에 오류가 있습니다',
    reloaded: '{generation}번째 구성으로 서비스합니다.',
    reloadRefused: '거부했습니다. {generation}번째 구성으로 계속합니다.',
    apply: '적용',
    startRollout: '단계 배포 시작',
    splitChanged: '적용했습니다.',
    purgeWhat: '지울 응답',
    purgeValue: 'URL, 접두사 또는 태그',
    prefix: '접두사',
    tag: '태그',
    purge: '비우기',
    purged: '응답 {count}개를 지웠습니다.',
    hitRatio: '적중률',
    hits: '{all}개 중 {hits}개는 업스트림에 묻지 않음',
    kept: '보관 중인 응답',
    keptBytes: '{megabytes} MB',
    cached: '캐시',
    certificates: '인증서',
    requests: '최근 오류',
    explain: '판정 설명',
    theme: '테마',
    theme_auto: '◐ 자동',
    theme_light: '☀ 밝게',
    theme_dark: '☾ 어둡게',
    live: '실시간',
    waiting: '연결하는 중 …',
    draining: '종료하는 중: 진행 중인 요청만 마칩니다',
    updated: '{time} 기준',
    lost: '연결이 끊겼습니다.',
    lostMore: '{time}의 값입니다. {seconds}초 뒤에 다시 시도합니다.',
    lostFirst: '게이트웨이가 응답하지 않습니다. {seconds}초 뒤에 다시 시도합니다.',
    again: '지금 다시 시도',
    range: '기간',
    '15m': '15분',
    '6h': '6시간',
    everything: '전체',
    showAll: '전체 보기',
    requestsPerSecond: '초당 요청',
    errorsPerSecond: '초당 오류 (5xx)',
    clientErrorsPerSecond: '초당 거부 (4xx)',
    p50Ms: 'p50',
    p99Ms: 'p99',
    rate: '초당 요청 수',
    latency: '응답 시간 (밀리초)',
    asTable: '표로 보기',
    time: '시각',
    noPoints: '아직 없음',
    plotHelp: '화살표 키로 점을 옮겨 다니고, Home과 End로 처음과 끝으로 갑니다.',
    lastMinute: '최근 1분',
    tileRequests: '요청',
    tileErrors: '오류 (5xx)',
    tileClientErrors: '거부 (4xx)',
    tileOpen: '처리 중',
    tileWebSockets: '웹소켓',
    perSecond: '초당 {value}',
    sinceStart: '시작 후 {value}',
    connections: '클라이언트 {clients}, 업스트림 {upstreams}',
    filter: '라우트 거르기',
    idle: '요청이 없는 라우트도',
    row: '라우트',
    errors: '5xx',
    refusals: '4xx',
    limits: '요청 제한',
    allowed: '허용',
    refused: '거부',
    down: '저장소 장애',
    noRow: '맞는 라우트 없음',
    noSite: '어느 테이블에도 없는 호스트',
    idleRows: '요청이 없는 라우트 {count}개',
    noneMatches: '경로, 동작, 정책에 이 말이 있는 라우트가 없습니다.',
    noUpstreams: '업스트림이 있는 테이블이 없습니다.',
    server: '서버',
    state: '상태',
    up: '정상',
    warming: '적응 중, {share}%',
    putAside: '제외됨',
    weight: '가중치',
    backup: '예비',
    inFlight: '처리 중',
    ejections: '제외된 횟수',
    times: '{count}회',
    upstreamFacts: '{balance}, 동시 {inFlight}/{inFlightMax}, 재전송 {retries}',
    noCertificates: '이 게이트웨이는 TLS를 받지 않습니다. --https로 시작하세요.',
    host: '호스트',
    daysLeft: '남은 날',
    days: '{count}일',
    standIn: '없음: 자체 서명 인증서로 대신합니다',
    kind: '요청 종류',
    failed: '실패',
    refusedKind: '거부',
    noRequests: '시작 후 없습니다.',
    request: '요청',
    status: '상태 코드',
    why: '까닭',
    took: '걸린 시간',
    requestId: '요청 ID',
    explainLead: '요청 하나를 게이트웨이가 어떻게 처리할지, 왜 그런지 알려 줍니다. 실제로 보내지는 않습니다.',
    method: '메서드',
    from: '클라이언트 주소',
    fields: '헤더 필드, 한 줄에 하나',
    ask: '설명 보기',
    asking: '묻는 중 …',
    explanation: '설명',
    badField: '필드에 쌍점이 없습니다: "{line}"',
    unreachable: '게이트웨이가 응답하지 않습니다.',
    process: '프로세스 {id}, {time} 시작. 버린 로그 줄 {dropped}.',
    workers: '워커 {count}개: 프로세스 {ids}.',
    silent: '{ids}: 응답 없음. 합계에는 마지막으로 받은 값이 들어 있음.',
    keyHelp: '이 목록',
    keySections: '해당 구역으로',
    keyFilter: '라우트 거르기',
    keyExplain: '요청 설명',
    keyRange: '기간 바꾸기',
    keyTheme: '테마 바꾸기',
    keyLanguage: 'English',
    keyEscape: '다시 전체 보기',
    keyArrows: '그래프에서: 점 사이 이동',
  },
}

/** @typedef {keyof typeof words['en']} Word */
/** @typedef {keyof typeof words} Language */

/** @type {Language} */
let language = navigator.language.toLowerCase().startsWith('ko') ? 'ko' : 'en'
try {
  const chosen = localStorage.getItem('language')
  if (chosen === 'ko' || chosen === 'en') language = chosen
} catch {
  // A browser that keeps nothing.
}

export const currentLanguage = () => language

/** @param {Language} chosen */
export function setLanguage(chosen) {
  language = chosen
  keep('language', chosen)
}

/**
 * @param {Word} word
 * @param {Record<string, string | number>} [values]
 */
export const t = (word, values = {}) =>
  words[language][word].replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''))

/** Puts the language into what stands in the page's HTML. */
export function translatePage() {
  document.documentElement.lang = language
  for (const element of document.querySelectorAll('[data-word]'))
    element.textContent = t(/** @type {Word} */ (element.getAttribute('data-word')))
  for (const element of document.querySelectorAll('[data-label]:not(td)'))
    element.setAttribute('aria-label', t(/** @type {Word} */ (element.getAttribute('data-label'))))
}

/**
 * Three digits that mean something, or '–' for what there is not.
 *
 * @param {number | null | undefined} value
 */
export const toNumber = (value) =>
  value === null || value === undefined
    ? '–'
    : value.toLocaleString(
        language,
        Math.abs(value) >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 },
      )

/** @param {number | null | undefined} milliseconds */
export const toDuration = (milliseconds) =>
  milliseconds !== null && milliseconds !== undefined && milliseconds >= 10_000
    ? `${toNumber(milliseconds / 1_000)} s`
    : milliseconds === null || milliseconds === undefined
      ? '–'
      : `${toNumber(milliseconds)} ms`

/**
 * @param {string | number} time
 * @param {Intl.DateTimeFormatOptions} [options]
 */
export const toTime = (time, options = { timeStyle: 'medium' }) =>
  new Date(time).toLocaleString(language, { hourCycle: 'h23', ...options })

/**
 * For this browser only.
 *
 * @param {string} name
 * @param {string} value
 */
export function keep(name, value) {
  try {
    localStorage.setItem(name, value)
  } catch {
    // A browser that keeps nothing.
  }
}
