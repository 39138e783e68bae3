// A batch of images, and the actions on it.

import { html, useState } from "../vendor/htm-preact.js";
import { base64, download, pngOf, save } from "../lib/files.js";
import { useAction } from "../lib/hooks.js";
import { Code, Dialog, Input, Range, ProblemText, given } from "../lib/parts.js";
import { curl, python } from "../lib/request_code.js";
import { KeptNote, inWords } from "../lib/pictures.js";
import { Paint } from "./paint.js";

const VARIATIONS = 8;

export function Batch({ batch, kept, run, stop, remove }) {
  const { request, steps, previews, images } = batch;
  const [chosenStep, setChosenStep] = useState();
  const [opened, setOpened] = useState();
  const isDone = images.length > 0;
  const step = chosenStep ?? (isDone ? steps : batch.step);
  const shown = (image) => (step === steps && images[image]) || lastOf(previews[image], step);
  const again = (changes, title) => run({ ...request, ...changes }, { title });
  const interpolate = () => again(between(request), `${request.model}: from one noise to another`);
  const zip = useAction(() =>
    download("sample", `${request.model}-${request.seed}.zip`, {
      json: request,
      accept: "application/zip",
    }),
  );
  return html`
    <section class="card batch" aria-label=${batch.title} aria-busy=${!isDone && !batch.problem}>
      <header class="dialog-head">
        <h2>${batch.title}</h2>
        ${
          isDone || batch.problem
            ? html`<button class="small" onClick=${() => remove(batch.id)}>Remove</button>`
            : html`<button class="small" onClick=${() => stop(batch.id)}>Stop</button>`
        }
      </header>
      <${ProblemText} problem=${batch.problem} />
      ${batch.problem && html`<button onClick=${() => again({}, batch.title)}>Try again</button>`}
      ${
        !batch.problem &&
        html`
        <p class="note" role="status">
          ${stateOf(batch)}
        </p>
        <${KeptNote} kept=${kept} />
        <div class="tiles">
          ${Array.from(
            { length: batch.count },
            (_, i) => html`<${Tile}
              image=${shown(i)}
              label=${`Image ${i + 1}`}
              onOpen=${isDone && (() => setOpened(i))}
            />`,
          )}
        </div>
        ${
          isDone &&
          steps > 1 &&
          html`<${Range}
            label="The clean image, as predicted at step"
            min="1"
            max=${steps}
            value=${step}
            shown=${`${step} of ${steps}`}
            onChange=${setChosenStep}
          />`
        }
        ${batch.origin && isDone && html`<${Comparison} batch=${batch} />`}
      `
      }
      ${
        isDone &&
        html`
        <div class="actions">
          <button onClick=${() => again({}, `${batch.title}, again`)}>Make again</button>
          <button onClick=${() => again({ seed: undefined }, batch.title)}>Make others</button>
          ${!request.init_image && html`<button onClick=${interpolate}>Interpolate</button>`}
          <button disabled=${zip.busy} onClick=${() => zip.run()}>Download all</button>
        </div>
        <${ProblemText} problem=${zip.problem} />
        <${Disturb} batch=${batch} run=${run} />
        <details>
          <summary>Copy the request</summary>
          <${Code} label="curl" text=${curl(request)} />
          <${Code} label="Python" text=${python(request)} />
        </details>
      `
      }
      ${
        opened !== undefined &&
        html`<${Opened}
          batch=${batch}
          index=${opened}
          run=${run}
          onClose=${() => setOpened(undefined)}
        />`
      }
    </section>
  `;
}

function stateOf({ images, used, step, steps }) {
  if (!steps) return "waiting for its turn";
  if (!images.length) return `step ${step} of ${steps}`;
  return inWords(used);
}

const lastOf = (list, step) => list.slice(0, step || undefined).findLast(Boolean);

function Tile({ image, label, onOpen }) {
  const picture = image
    ? html`<img src=${base64(image)} alt=${label} />`
    : html`<div class="blank"></div>`;
  return onOpen
    ? html`<button class="tile" onClick=${onOpen} aria-haspopup="dialog">${picture}</button>`
    : html`<div class="tile">${picture}</div>`;
}

/** Changes that interpolate between the noises of two seeds, with enough images to see it. */
const between = (request) => ({
  num_images: Math.max(request.num_images ?? 1, VARIATIONS),
  seed_to: (request.seed + 1) % 2 ** 32,
  class_label: Array.isArray(request.class_label) ? undefined : request.class_label,
});

/** One enlarged image, and the actions on it. */
function Opened({ batch, index, run, onClose }) {
  const [strength, setStrength] = useState(0.5);
  const { request, images } = batch;
  const { seed_to, disturb, mask, invert, ...plain } = request;
  const image = images[index];
  const go = (changes, title) => {
    onClose();
    run({ ...plain, seed: undefined, init_image: image, ...changes }, { title });
  };
  const keep = () => save(pngOf(image), `${request.model}-${request.seed}-${index}.png`);
  return html`
    <${Dialog} title=${`Image ${index + 1} of ${batch.title}`} onClose=${onClose}>
      <div class="columns">
        <section aria-label="Variations">
          <img class="large" src=${base64(image)} alt=${`Image ${index + 1}`} />
          <${Range}
            label="Strength of the variation"
            min="0.1"
            max="1"
            step="0.05"
            value=${strength}
            hint="the share of the steps that is repeated; 1 keeps nothing of the image"
            onChange=${setStrength}
          />
          <div class="actions">
            <button
              class="primary"
              onClick=${() => go({ num_images: VARIATIONS, strength }, `Variations, ${strength}`)}
            >Variations</button>
            <button onClick=${keep}>Download</button>
          </div>
        </section>
        <${Paint}
          image=${image}
          onPaint=${(mask) => go({ num_images: VARIATIONS, mask, strength: undefined }, "Repainted")}
        />
      </div>
    <//>
  `;
}

/** A form to add an error at one step, which later steps correct. */
function Disturb({ batch, run }) {
  const { request, used, steps } = batch;
  const [at, setAt] = useState(`${Math.floor(steps / 2)}`);
  const [strength, setStrength] = useState("1");
  if (request.disturb || used.sampler === "consistency") return null;
  const submit = (event) => {
    event.preventDefault();
    const disturb = { at: given(at), strength: given(strength) };
    run(
      { ...request, disturb },
      { title: `Disturbed before step ${disturb.at + 1}`, origin: batch },
    );
  };
  return html`
    <details>
      <summary>Disturb a step, and see it corrected</summary>
      <form class="line" onSubmit=${submit}>
        <${Input}
          label="Before step (the first is 0)"
          type="number"
          min="0"
          max=${used.num_inference_steps - 1}
          required
          value=${at}
          onChange=${setAt}
        />
        <${Input}
          label="Strength"
          type="number"
          min="0.01"
          max="100"
          step="any"
          required
          hint="in units of the noise"
          value=${strength}
          onChange=${setStrength}
        />
        <button>Disturb</button>
      </form>
    </details>
  `;
}

const COLUMNS = 10;

/** The predicted clean image step by step, undisturbed and disturbed. */
function Comparison({ batch }) {
  const [image, setImage] = useState(0);
  const count = Math.min(COLUMNS, batch.steps);
  const places = Array.from({ length: count }, (_, i) =>
    Math.round(((i + 1) * batch.steps) / count),
  );
  const row = (name, { previews }) => html`
    <tr>
      <th scope="row">${name}</th>
      ${places.map(
        (step) => html`<td><img
        src=${base64(lastOf(previews[image], step))}
        alt=${`${name}, step ${step}`}
      /></td>`,
      )}
    </tr>
  `;
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Undisturbed and disturbed">
      <table class="comparison">
        <thead><tr><td></td>${places.map((step) => html`<th scope="col">${step}</th>`)}</tr></thead>
        <tbody>${row("undisturbed", batch.origin)}${row("disturbed", batch)}</tbody>
      </table>
    </div>
    ${
      batch.count > 1 &&
      html`<${Range}
        label="Image"
        min="1"
        max=${batch.count}
        value=${image + 1}
        onChange=${(value) => setImage(value - 1)}
      />`
    }
  `;
}
