// Images while they are made: a request, its stream of events, and what has come of it so far.

import { useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Unreachable, events, send } from "./api.js";

const MAX_SEED = 2 ** 32;
const BETWEEN_PREVIEWS = 50; // milliseconds, in which those that come are shown together
const BROKEN = new Error("The connection broke before the images were made.");

/**
 * The batches made on this page, the newest first. A batch has `request`, with the seed used, and
 * `images`, base64; `previews[image][step - 1]` is the clean image as predicted at a step.
 */
export function useBatches() {
  const [batches, setBatches] = useState([]);
  const aborts = useRef(new Map()).current;
  useEffect(() => () => aborts.forEach((abort) => abort.abort()), []);

  const change = (id, how) =>
    setBatches((old) =>
      old.map((batch) => (batch.id === id ? { ...batch, ...how(batch) } : batch)),
    );

  const run = async (request, about) => {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    request = { ...request, seed: request.seed ?? Math.floor(Math.random() * MAX_SEED) };
    const count = request.num_images ?? 1;
    const batch = {
      id,
      ...about,
      request,
      count,
      step: 0,
      images: [],
      previews: Array.from({ length: count }, () => []),
    };
    setBatches((old) => [batch, ...old.filter((each) => !each.problem)]);
    const abort = new AbortController();
    aborts.set(id, abort);
    try {
      const answer = await send("sample", {
        json: request,
        accept: "text/event-stream",
        signal: abort.signal,
      });
      await follow(answer, (how) => change(id, how));
    } catch (problem) {
      if (problem.name === "AbortError") setBatches((old) => old.filter((each) => each.id !== id));
      else change(id, () => ({ problem: problem instanceof Unreachable ? BROKEN : problem }));
    }
    aborts.delete(id);
  };
  const stop = (id) => aborts.get(id)?.abort();
  const remove = (id) => setBatches((old) => old.filter((each) => each.id !== id));
  return { batches, run, stop, remove };
}

async function follow(answer, change) {
  let previews = [];
  let shownAt = 0;
  const show = () => {
    const shown = previews;
    previews = [];
    shownAt = performance.now();
    change((batch) => {
      for (const { image, step, x0_hat } of shown) batch.previews[image][step - 1] = x0_hat; // `change` copies the batch
      const { steps } = shown.at(-1);
      return { step: Math.max(batch.step, ...shown.map(({ step }) => step)), steps };
    });
  };
  for await (const { type, data } of events(answer)) {
    if (type === "started") change(() => ({ steps: data.steps, used: data.used }));
    if (type === "preview") {
      previews.push(data);
      if (performance.now() - shownAt > BETWEEN_PREVIEWS) show();
    } else if (previews.length) show();
    if (type === "completed") return change(() => ({ images: data.images, used: data.used }));
    if (type === "error") return change(() => ({ problem: new Error(data.detail ?? data.title) }));
  }
  throw BROKEN;
}
