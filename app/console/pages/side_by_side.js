// Two models side by side, each pair of images from the same noise.

import { html, useState } from "../vendor/htm-preact.js";
import { base64, pngOf, save } from "../lib/files.js";
import { Bar, Input, ProblemText, Select, countOf, given } from "../lib/parts.js";
import { MAX_CELLS, randomSeed, useGridRun } from "./grid_run.js";

const PAIRS = "6";

export function SideBySide({ models, query, keep }) {
  const [fields, setFields] = useState(() => pairFields(models, query));
  const { run, stop, state } = useGridRun();
  const set = (name) => (value) => setFields((old) => ({ ...old, [name]: value }));
  const [a, b] = [fields.model, fields.other].map((name) => models.find((each) => each.name === name));
  const difference = sizesDiffer(a, b);
  const classes = sharedClasses(a, b);
  const label = classes.includes(fields.class_label) ? fields.class_label : "";
  const pairs = given(fields.pairs);
  const error = (field) => state.problem?.of?.(field);
  const places = ["class_label", "num_inference_steps", "guidance_scale", "y/values"];
  const isPlaced = places.some(error);
  keep({ ...fields, class_label: label });

  const submit = (event) => {
    event.preventDefault();
    const seed = given(fields.seed) ?? randomSeed();
    set("seed")(`${seed}`);
    run({
      class_label: label || undefined,
      num_inference_steps: given(fields.num_inference_steps),
      guidance_scale: label ? given(fields.guidance_scale) : undefined,
      x: { setting: "model", values: [a.name, b.name] },
      y: { setting: "seed", values: Array.from({ length: pairs }, (_, i) => (seed + i) % 2 ** 32) },
    });
  };

  return html`
    <form class="card" aria-label="What to compare" onSubmit=${submit}>
      <div class="fields">
        <${ModelSelects} ...${{ models, fields, set }} />
        <${ClassSelect} ...${{ classes, label, error: error("class_label"), onChange: set("class_label") }} />
        ${
          label &&
          html`<${Input}
            label="Guidance"
            type="number"
            min="0"
            step="any"
            placeholder="chosen"
            value=${fields.guidance_scale ?? ""}
            error=${error("guidance_scale")}
            onChange=${set("guidance_scale")}
          />`
        }
        <${Input}
          label="Steps"
          type="number"
          min="1"
          placeholder="chosen"
          value=${fields.num_inference_steps ?? ""}
          error=${error("num_inference_steps")}
          onChange=${set("num_inference_steps")}
        />
        <${Input}
          label="How many pairs"
          type="number"
          min="1"
          max=${MAX_CELLS / 2}
          required
          value=${fields.pairs}
          onChange=${set("pairs")}
        />
        <${Input}
          label="First seed"
          type="number"
          min="0"
          placeholder="random"
          hint="each pair has the next one"
          value=${fields.seed ?? ""}
          error=${error("y/values")}
          onChange=${set("seed")}
        />
      </div>
      ${difference && html`<p class="warning" role="status">${difference}</p>`}
      <div class="actions">
        <button class="primary" disabled=${state.busy || difference}>Make pairs</button>
        ${state.busy && html`<button type="button" onClick=${stop}>Stop</button>`}
      </div>
      ${!isPlaced && html`<${ProblemText} problem=${state.problem} />`}
    </form>
    ${state.request && !isPlaced && html`<${Pairs} state=${state} />`}
  `;
}

/** The fields of a form about two models. */
export function pairFields(models, query) {
  const known = (name) => models.some((model) => model.name === name);
  const model = known(query.model) ? query.model : models[0].name;
  const other = known(query.other) ? query.other : (models.find(({ name }) => name !== model)?.name ?? model);
  return { pairs: PAIRS, ...query, model, other };
}

/** Selects for both models. */
export function ModelSelects({ models, fields, set }) {
  const options = models.map(({ name, details }) => [name, `${name} (${sizeText(details)})`]);
  return html`
    <${Select} label="One model" value=${fields.model} options=${options} onChange=${set("model")} />
    <${Select} label="The other" value=${fields.other} options=${options} onChange=${set("other")} />
  `;
}

/** A select of the classes that both models have. */
export function ClassSelect({ classes, label, error, onChange }) {
  if (!classes.length) return null;
  return html`<${Select}
    label="Class"
    value=${label}
    options=${[["", "any"], ...classes]}
    error=${error}
    onChange=${onChange}
  />`;
}

export const sharedClasses = (a, b) =>
  a.details.class_names.filter((name) => b.details.class_names.includes(name));

const sizeText = ({ image_size: [height, width], channels }) =>
  `${width} × ${height}, ${channels === 1 ? "grey" : "colour"}`;

/** A sentence for models whose noise has different shapes; undefined for others. */
function sizesDiffer(a, b) {
  const [one, other] = [a, b].map(({ details }) => sizeText(details));
  if (one === other) return undefined;
  return `${a.name} makes images of ${one}, ${b.name} of ${other}. Their noise has different shapes, so the two cannot begin with the same. Choose two models of one size; a grid and a blind test take any.`;
}

function Pairs({ state: { request, cells, progress, busy, stopped, picture } }) {
  const [one, other] = request.x.values;
  const seeds = request.y.values;
  const done = Object.keys(cells).length;
  const image = (x, y, name) => {
    const cell = cells[`${x},${y}`];
    return cell
      ? html`<img src=${base64(cell.image)} alt=${`${name}, seed ${seeds[y]}`} />`
      : html`<div class="blank"></div>`;
  };
  return html`
    <section class="card" aria-label="Pairs" aria-busy=${busy}>
      ${busy && html`<${Bar} label="Progress of the pairs" value=${progress} />`}
      <p role="status">
        ${stopped && "Stopped. "}
        ${done < 2 * seeds.length ? `${done} of ${countOf(2 * seeds.length, "image")}. ` : ""}
        Left: <strong>${one}</strong>. Right: <strong>${other}</strong>.
      </p>
      <ul class="pairs">
        ${seeds.map(
          (seed, y) => html`
            <li key=${seed}>
              <figure>
                <div class="pair">${image(0, y, one)}${image(1, y, other)}</div>
                <figcaption>seed ${seed}</figcaption>
              </figure>
            </li>
          `,
        )}
      </ul>
      ${
        picture &&
        html`<div class="actions">
          <button onClick=${() => save(pngOf(picture), `${one}-${other}.png`)}>Download the picture</button>
        </div>`
      }
    </section>
  `;
}
