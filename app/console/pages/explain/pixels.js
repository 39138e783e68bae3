// Pictures as numbers: Float32Array (channels x height x width) in [-1, 1].

import { blobOf, pngOf, toBase64 } from "../../lib/files.js";

/** {values, shape: [channels, height, width]} of an image, cropped to the size of a model's images. */
export async function pictureOf(blob, { image_size: [height, width], channels }) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [width / scale, height / scale]; // the part that is kept
  const { canvas, context } = blank(width, height);
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // behind transparent pixels, as in the service
  context.fillRect(0, 0, width, height);
  const [left, top] = [(bitmap.width - w) / 2, (bitmap.height - h) / 2];
  context.drawImage(bitmap, left, top, w, h, 0, 0, width, height);
  const values = valuesIn(context.getImageData(0, 0, width, height).data, channels);
  const picture = { values, shape: [channels, height, width] };
  draw(canvas, picture); // grey where the model is
  return { ...picture, base64: await toBase64(await blobOf(canvas)) };
}

/** The values of a PNG in base64 that the service made. */
export async function valuesOf(png, [channels, height, width]) {
  const { context } = blank(width, height);
  context.drawImage(await createImageBitmap(pngOf(png)), 0, 0);
  return valuesIn(context.getImageData(0, 0, width, height).data, channels);
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return { canvas, context: canvas.getContext("2d", { willReadFrequently: true }) };
}

function valuesIn(bytes, channels) {
  const count = bytes.length / 4;
  const values = new Float32Array(channels * count);
  for (let i = 0; i < count; i += 1) {
    const [red, green, blue] = bytes.subarray(4 * i, 4 * i + 3);
    const grey = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
    const pixel = channels === 1 ? [grey] : [red, green, blue];
    pixel.forEach((value, c) => (values[c * count + i] = value / 127.5 - 1));
  }
  return values;
}

/** Draws a picture on a canvas; its values are divided by `scale` first. */
export function draw(canvas, { values, shape: [channels, height, width] }, scale = 1) {
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  const count = width * height;
  for (let i = 0; i < count; i += 1) {
    for (let c = 0; c < 3; c += 1)
      image.data[4 * i + c] = 127.5 * (values[(c % channels) * count + i] / scale + 1); // rounds, clips
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** a times one plus b times other. */
export const combined = (a, one, b, other) => one.map((value, i) => a * value + b * other[i]);

/** The mean squared difference of two pictures. */
export function meanSquare(one, other) {
  return one.reduce((sum, value, i) => sum + (value - other[i]) ** 2, 0) / one.length;
}

/** The mean squared error of the best single colour: the variance around each channel's mean. */
export function flatError({ values, shape: [channels, height, width] }) {
  const count = height * width;
  let sum = 0;
  for (let c = 0; c < channels; c += 1) {
    const plane = values.subarray(c * count, (c + 1) * count);
    const mean = plane.reduce((total, value) => total + value, 0) / count;
    sum += plane.reduce((total, value) => total + (value - mean) ** 2, 0);
  }
  return sum / values.length;
}
