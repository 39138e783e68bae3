// Images from a portable model: what README.md of the download says, with onnxruntime-web.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { normal } from "./noise.js";

/** Load network.onnx: an ArrayBuffer, or its address. */
export const load = (network) => ort.InferenceSession.create(network);

/**
 * Yield the images as they are expected at each row, and at last as they are: a Uint8ClampedArray
 * (numImages x channels x height x width). `label` is the index of a class, null for any class;
 * `guidance` is the model's own where left out.
 */
export async function* sample(
  network, card, table, seed, numImages = 1, label = null,
  guidance = label === null ? 1 : (card.sampling?.guidance_scale ?? 1),
) {
  if (card.has_null_class === false && (label === null || guidance !== 1)) {
    throw new Error("This model needs a class, and takes no guidance.");
  }
  const shape = [numImages, card.channels, ...card.image_size], anyClass = card.class_names.length;
  const noise = (step) => normal(seed, numImages, step, shape[1] * shape[2] * shape[3]);
  const { clip } = card.sampling ?? { clip: 1 };
  let x = noise(0).map((value) => table.start * value);
  let x0_prev = new Float32Array(x.length), x0_prev2 = x0_prev;

  async function estimate([c_in, c_noise, p_x, p_y], label) {
    const inputs = {
      x: new ort.Tensor("float32", x.map((value) => c_in * value), shape),
      c_noise: new ort.Tensor("float32", Array(numImages).fill(c_noise), [numImages]),
    };
    if (anyClass) {
      inputs.label = new ort.Tensor("int64", Array(numImages).fill(BigInt(label)), [numImages]);
    }
    const { y } = await network.run(inputs);
    return x.map((value, i) => p_x * value + p_y * y.data[i]);
  }

  for (const [r, row] of table.rows.entries()) {
    const [k_x, k_0, k_1, k_2, k_s] = row.slice(4);
    let x0 = await estimate(row, label ?? anyClass);
    if (guidance !== 1) {
      const unguided = await estimate(row, anyClass);
      x0 = x0.map((value, i) => unguided[i] + guidance * (value - unguided[i]));
    }
    if (clip !== null) x0 = x0.map((value) => Math.min(Math.max(value, -clip), clip));
    x = x.map((value, i) => k_x * value + k_0 * x0[i] + k_1 * x0_prev[i] + k_2 * x0_prev2[i]);
    if (k_s) {
      const fresh = noise(r + 1);
      x = x.map((value, i) => value + k_s * fresh[i]);
    }
    [x0_prev, x0_prev2] = [x0, x0_prev];
    yield pixels(x0);
  }
  yield pixels(x);
}

const pixels = (x) => Uint8ClampedArray.from(x, (value) => 127.5 * (value + 1)); // rounds and clips
