const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const month = months.join('|')

/** The three forms of RFC 9110 §5.6.7; the last two are old, and still have to be read. */
const forms = [
  new RegExp(
    String.raw`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?<day>\d\d) (?<month>${month}) (?<year>\d{4}) (?<time>\d\d:\d\d:\d\d) GMT$`,
  ),
  new RegExp(
    String.raw`^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?<day>\d\d)-(?<month>${month})-(?<year>\d\d) (?<time>\d\d:\d\d:\d\d) GMT$`,
  ),
  new RegExp(
    String.raw`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?<month>${month}) (?<day>[ \d]\d) (?<time>\d\d:\d\d:\d\d) (?<year>\d{4})$`,
  ),
]

/** Milliseconds since the epoch; NaN for what is no HTTP-date. `now` tells the century of a year of two digits. */
export function readHttpDate(text: string | undefined, now: number): number {
  const parts = forms.map((form) => form.exec(text ?? '')?.groups).find(Boolean)
  if (!parts) return Number.NaN
  const { day = '', month: name = '', year = '', time = '' } = parts
  const [hours = 0, minutes = 0, seconds = 0] = time.split(':').map(Number)
  if (hours > 23 || minutes > 59 || seconds > 60) return Number.NaN
  return Date.UTC(toYear(year, now), months.indexOf(name), Number(day), hours, minutes, seconds)
}

/** More than fifty years ahead is the last year that ends so. */
function toYear(text: string, now: number): number {
  if (text.length === 4) return Number(text)
  const thisYear = new Date(now).getUTCFullYear()
  const year = Math.floor(thisYear / 100) * 100 + Number(text)
  return year > thisYear + 50 ? year - 100 : year
}
