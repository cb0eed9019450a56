/** The dot product of a row of `rows` that begins at `at` and a vector, in four sums that do not wait for each other. */
export function dot(rows: Float32Array, at: number, vector: Float64Array): number {
  const length = vector.length
  const whole = length - (length & 3)
  let [a, b, c, d] = [0, 0, 0, 0]
  for (let i = 0; i < whole; i += 4) {
    a += rows[at + i]! * vector[i]!
    b += rows[at + i + 1]! * vector[i + 1]!
    c += rows[at + i + 2]! * vector[i + 2]!
    d += rows[at + i + 3]! * vector[i + 3]!
  }
  for (let i = whole; i < length; i += 1) a += rows[at + i]! * vector[i]!
  return a + b + (c + d)
}
