// The images of a blind test, made or fetched ahead, so that no round has to wait.

import { useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { at, get, send } from "../lib/api.js";
import { base64 } from "../lib/files.js";
import { randomSeed } from "./grid_run.js";

const AT_ONCE = 8; // images of one request
const AHEAD = 4; // rounds that wait; with fewer, the next are asked for
const MOST_REAL = 1000; // images of a dataset that are drawn from
const THUMBNAIL = 64; // pixels a side

/** The name of the real images among the votes. */
export const REAL = "the real images";

/**
 * {round, next, problem, retry}. A round is {left, right}, each {name, src}; undefined while the first
 * is under way. `second` is a model, or undefined for the real images of the first one's dataset.
 */
export function useRounds(first, second, label) {
  const queue = useRef([]).current;
  const [state, setState] = useState({});
  const abort = useRef();
  const busy = useRef(false);

  const show = () => setState((old) => ({ ...old, round: queue[0] }));
  const fill = async () => {
    if (busy.current || queue.length >= AHEAD) return;
    busy.current = true;
    try {
      const signal = abort.current.signal;
      const seed = randomSeed(); // two models begin with the same noise
      const [ours, theirs] = await Promise.all([
        newImages(first, label, seed, signal),
        second ? newImages(second, label, seed, signal) : realImages(first, label, signal),
      ]);
      theirs.forEach((src, i) => {
        const pair = [
          { name: first.name, src: ours[i] },
          { name: second?.name ?? REAL, src },
        ];
        const [left, right] = Math.random() < 0.5 ? pair : pair.reverse();
        queue.push({ left, right });
      });
      setState({ round: queue[0] });
    } catch (problem) {
      if (problem.name !== "AbortError") setState((old) => ({ ...old, problem }));
    } finally {
      busy.current = false;
    }
  };
  useEffect(() => {
    abort.current = new AbortController();
    fill();
    return () => abort.current.abort();
  }, []);
  const next = () => {
    queue.shift();
    show();
    fill();
  };
  const retry = () => {
    setState({ round: queue[0] });
    fill();
  };
  return { ...state, next, retry };
}

async function newImages(model, label, seed, signal) {
  const request = { model: model.name, num_images: AT_ONCE, seed, class_label: label || undefined };
  const answer = await send("sample", { json: request, accept: "application/json", signal });
  return (await answer.json()).images.map(base64);
}

/** Images of the dataset that a model learned from, as large and as grey as those of the model. */
async function realImages(model, label, signal) {
  const all = await listed(model, label, signal);
  if (!all.length) throw new Error(`${model.dataset} has no images of this class.`);
  const drawn = Array.from({ length: AT_ONCE }, () => all[Math.floor(Math.random() * all.length)]);
  return Promise.all(drawn.map((image) => asOfModel(image, model.details, signal)));
}

const lists = new Map();

/** Lists images of all classes alike, or of one. */
async function listed(model, label, signal) {
  const key = JSON.stringify([model.dataset, model.dataset_version, label]);
  if (!lists.has(key)) {
    const classes = label ? [label] : model.details.class_names;
    const address = at`datasets/${model.dataset}/images`;
    const limit = Math.ceil(MOST_REAL / Math.max(1, classes.length));
    const version = model.dataset_version ? { version: model.dataset_version } : {};
    const pages = (classes.length ? classes : [undefined]).map((name) => {
      const query = new URLSearchParams({ limit, ...version, ...(name && { class: name }) });
      return get(`${address}?${query}`, signal);
    });
    lists.set(key, (await Promise.all(pages)).flatMap(({ items }) => items));
  }
  return lists.get(key);
}

async function asOfModel({ links }, { image_size: [height, width], channels }, signal) {
  const isSmall = Math.max(height, width) <= THUMBNAIL;
  const answer = await send(isSmall ? links.thumbnail : links.file, { signal });
  const bitmap = await createImageBitmap(await answer.blob());
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // behind transparent pixels, as in the service
  context.fillRect(0, 0, width, height);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [scale * bitmap.width, scale * bitmap.height];
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  if (channels === 1) makeGrey(context, width, height);
  return canvas.toDataURL("image/png");
}

function makeGrey(context, width, height) {
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const [r, g, b] = pixels.data.subarray(i, i + 3);
    pixels.data.fill(Math.round(0.299 * r + 0.587 * g + 0.114 * b), i, i + 3); // ITU-R 601, as in the service
  }
  context.putImageData(pixels, 0, 0);
}
