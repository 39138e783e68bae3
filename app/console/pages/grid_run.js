// A request for a grid of images under way, and its settings in forms and addresses.

import { useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Unreachable, events, send } from "../lib/api.js";

export const MAX_CELLS = 64; // as the service has it by default
const MAX_SEED = 2 ** 32;
const BROKEN = new Error("The connection broke before all images were made.");

export const randomSeed = () => Math.floor(Math.random() * MAX_SEED);

/**
 * {run, stop, state}. `state` has the `request` that was run, its `cells` by "column,row" as they are
 * done, `progress` 0..1, `busy`, `stopped`, the labelled `picture` at the end, and `problem`.
 */
export function useGridRun() {
  const [state, setState] = useState({ cells: {} });
  const abort = useRef();
  useEffect(() => () => abort.current?.abort(), []);

  const run = async (request) => {
    abort.current?.abort();
    const mine = (abort.current = new AbortController());
    const change = (how) => abort.current === mine && setState((old) => ({ ...old, ...how(old) }));
    setState({ request, cells: {}, progress: 0, busy: true });
    try {
      const answer = await send("sample/grid", {
        json: request,
        accept: "text/event-stream",
        signal: mine.signal,
      });
      await follow(answer, change);
    } catch (problem) {
      const isStopped = problem.name === "AbortError";
      change(() => ({
        stopped: isStopped,
        problem: isStopped ? undefined : problem instanceof Unreachable ? BROKEN : problem,
      }));
    }
    change(() => ({ busy: false }));
  };
  return { run, stop: () => abort.current?.abort(), state };
}

async function follow(answer, change) {
  for await (const { type, data } of events(answer)) {
    if (type === "progress") change(() => ({ progress: data.steps_done / data.steps }));
    if (type === "cell") change(({ cells }) => ({ cells: { ...cells, [`${data.x},${data.y}`]: data } }));
    if (type === "completed") return change(() => ({ progress: 1, picture: data.picture }));
    if (type === "error") throw new Error(data.detail ?? data.title);
  }
  throw BROKEN;
}

/** The request for one image of a grid, from the settings that were `used`. */
export function requestOf(used, classNames) {
  const [label] = used.class_label ?? [];
  const { model, sampler, num_inference_steps, seed } = used;
  return {
    model,
    sampler,
    num_inference_steps,
    seed,
    num_images: 1,
    ...(label !== undefined && {
      class_label: classNames[label] ?? label,
      guidance_scale: used.guidance_scale,
    }),
  };
}

// Lists of values in an address: each is escaped, since names may hold commas.
export const toList = (text) => (text ? text.split(",").map(decodeURIComponent) : []);
export const fromList = (values) => values.map(encodeURIComponent).join(",");
