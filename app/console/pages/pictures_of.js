// A model's images, and a sentence on what it makes.

import { html, useState } from "../vendor/htm-preact.js";
import { at, get, post } from "../lib/api.js";
import { base64 } from "../lib/files.js";
import { keyed, useAction, useAnswer } from "../lib/hooks.js";
import { ProblemText, countOf } from "../lib/parts.js";

const MANY = 12; // classes, which a sentence no longer lists

/** What a model makes: "Makes 32 × 32 colour images of 3 classes: cats, dogs, owls." */
export function sentenceAbout({ details }) {
  const [height, width] = details.image_size;
  const kind = details.channels === 1 ? "greyscale" : "colour";
  const names = details.class_names ?? [];
  const listed = names.length && names.length <= MANY ? `: ${names.join(", ")}` : "";
  const classes = names.length ? ` of ${countOf(names.length, "class", "classes")}${listed}` : "";
  return `Makes ${width} × ${height} ${kind} images${classes}.`;
}

/** The last grid of the model's training, or images that are made on request. */
export function Pictures({ model }) {
  const grids = useAnswer(
    model.job_id && keyed(model.job_id, (signal) => grid(model.job_id, signal)),
  );
  const [made, setMade] = useState();
  const make = useAction(async () => {
    const order = { model: model.name, num_images: 16, seed: 0 };
    setMade((await post("sample", order)).images);
  });
  if (grids.data)
    return html`<img
      class="sheet"
      src=${grids.data}
      alt=${`Images by ${model.name}`}
      loading="lazy"
    />`;
  if (made)
    return html`<div class="sheet tiles">${made.map((image) => html`<img src=${base64(image)} alt="" />`)}</div>`;
  if (model.job_id && grids.data === undefined && !grids.problem)
    return html`<div class="sheet" aria-busy="true"></div>`;
  return html`
    <div class="sheet">
      <button
        disabled=${make.busy}
        onClick=${make.run}
      >Show some images<span class="hidden"> by ${model.name}</span></button>
      <${ProblemText} problem=${make.problem} />
    </div>
  `;
}

/** The address of the last grid of a training; null if it has none. */
export async function grid(job, signal) {
  const { steps } = await get(at`train-jobs/${job}/samples`, signal);
  return steps.length ? at`train-jobs/${job}/samples/${Math.max(...steps)}` : null;
}
