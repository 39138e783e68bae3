// The power of a picture by the length of its waves, and the noise level at which each is lost.
//
// The discrete cosine transform writes a picture as a sum of waves. With its orthonormal form, noise
// of standard deviation sigma has the power sigma^2 in every wave, so that each band of waves is
// lost where alpha^2 P, the power of the picture in it, falls below sigma^2.

/** Bands of waves: `low` < max(u / height, v / width) <= `high`, where 1 is a wave of 2 pixels. */
const BANDS = [
  { name: "fine detail", about: "waves shorter than 4 pixels", low: 0.5, high: 1 },
  { name: "edges and parts", about: "waves of 4 to 8 pixels", low: 0.25, high: 0.5 },
  { name: "shapes", about: "waves of 8 pixels and more", low: 0, high: 0.25 },
  { name: "colours", about: "slow changes of colour", low: -1, high: 0.25, ofColour: true },
];

/** Each band that the picture has, with its power P: the mean square of its waves' heights. */
export function bandsOf({ values, shape: [channels, height, width] }) {
  const planes = splitColour(values, channels, height * width).map((plane) =>
    transformed(plane, height, width),
  );
  const [grey, ...colours] = planes;
  return BANDS.filter(({ ofColour }) => !ofColour || colours.length)
    .map((band) => ({ ...band, power: powerOf(band.ofColour ? colours : [grey], band, height, width) }))
    .filter(({ power }) => power !== undefined);
}

/** The first t at which the noise in a band is as strong as the picture; T + 1 if there is none. */
export function lostAt({ power }, { alphas, sigmas }) {
  const t = alphas.findIndex((alpha, i) => i > 0 && alpha ** 2 * power <= sigmas[i] ** 2);
  return t < 0 ? alphas.length : t;
}

/** Brightness and two differences of colours, each of unit length, so that noise keeps its power. */
function splitColour(values, channels, count) {
  if (channels !== 3) return [values.subarray(0, count)];
  const [r, g, b] = [0, 1, 2].map((c) => values.subarray(c * count, (c + 1) * count));
  const mix = (x, y, z) => r.map((value, i) => x * value + y * g[i] + z * b[i]);
  const [third, half, sixth] = [3, 2, 6].map((n) => 1 / Math.sqrt(n));
  return [mix(third, third, third), mix(half, 0, -half), mix(sixth, -2 * sixth, sixth)];
}

function powerOf(planes, { low, high }, height, width) {
  let [sum, count] = [0, 0];
  for (const plane of planes)
    for (let u = 0; u < height; u += 1)
      for (let v = 0; v < width; v += 1) {
        const place = Math.max(u / height, v / width);
        if (place <= low || place > high) continue;
        sum += plane[u * width + v] ** 2;
        count += 1;
      }
  return count ? sum / count : undefined;
}

/** The orthonormal DCT-II along rows, then along columns. */
function transformed(plane, height, width) {
  const [rows, columns] = [cosines(height), cosines(width)];
  const half = new Float64Array(height * width);
  const whole = new Float64Array(height * width);
  for (let y = 0; y < height; y += 1)
    for (let v = 0; v < width; v += 1)
      for (let x = 0; x < width; x += 1)
        half[y * width + v] += columns[v * width + x] * plane[y * width + x];
  for (let u = 0; u < height; u += 1)
    for (let y = 0; y < height; y += 1)
      for (let v = 0; v < width; v += 1)
        whole[u * width + v] += rows[u * height + y] * half[y * width + v];
  return whole;
}

function cosines(n) {
  const table = new Float64Array(n * n);
  for (let k = 0; k < n; k += 1)
    for (let x = 0; x < n; x += 1)
      table[k * n + x] = Math.sqrt((k ? 2 : 1) / n) * Math.cos((Math.PI * (2 * x + 1) * k) / (2 * n));
  return table;
}
