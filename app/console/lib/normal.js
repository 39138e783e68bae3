// Standard normal noise as a function of seed, image and step, to seven digits that of the service.

/** Return standard normal numbers, Float32Array (numImages x size). `seed` is a BigInt. */
export function normal(seed, numImages, step, size) {
  const pairs = Math.ceil(size / 2), blocks = Math.ceil(pairs / 2);
  const key = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
  const noise = new Float32Array(numImages * size), words = new Float64Array(4 * blocks);
  for (let image = 0; image < numImages; image++) {
    for (let block = 0; block < blocks; block++) {
      philox([block, image, step, 0], key).forEach((word, i) => (words[i * blocks + block] = word));
    }
    const of = noise.subarray(image * size, (image + 1) * size);
    for (let j = 0; j < pairs; j++) {
      const radius = Math.sqrt(-2 * Math.log((words[j] + 0.5) / 2 ** 32));
      const angle = (2 * Math.PI * words[pairs + j]) / 2 ** 32 - Math.PI / 4;
      of[j] = radius * Math.cos(angle);
      of[pairs + j] = radius * Math.sin(angle); // beyond the end of an odd size it is dropped
    }
  }
  return noise;
}

/** Return Philox 4x32-10: four 32-bit words. */
function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = product(0xd2511f53, c0), [high1, low1] = product(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return [c0, c1, c2, c3];
}

/** Return the upper and the lower 32 bits of a product of 32-bit words. */
function product(a, b) {
  const upper = a * (b >>> 16) + Math.floor((a * (b & 0xffff)) / 2 ** 16); // below 2^49: exact
  return [Math.floor(upper / 2 ** 16), Math.imul(a, b) >>> 0];
}
