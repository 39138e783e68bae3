// A grid of images over two settings.

import { html, useState } from "../vendor/htm-preact.js";
import { at } from "../lib/api.js";
import { base64, pngOf, save } from "../lib/files.js";
import { useAnswer } from "../lib/hooks.js";
import { Bar, Dialog, Input, ProblemText, Properties, Select, countOf, given } from "../lib/parts.js";
import { sampleAddress } from "../lib/pictures.js";
import { MAX_CELLS, fromList, randomSeed, requestOf, toList, useGridRun } from "./grid_run.js";

const ANY = ""; // the class of an image that may be of any
const FIRST_OF_MANY = 4; // options that are ticked at first

/** The settings by their field of the request: a name, and proposed values unless they are options. */
const SETTINGS = {
  num_inference_steps: { name: "Steps", proposed: ["5", "10", "20", "50"] },
  sampler: { name: "Sampler" },
  guidance_scale: { name: "Guidance", proposed: ["1", "1.5", "2", "4"] },
  class_label: { name: "Class" },
  seed: { name: "Seed", proposed: ["1", "2", "3", "4"] },
  model: { name: "Model" },
  checkpoint: { name: "Checkpoint of a training" },
  eta: { name: "Fresh noise (eta)", proposed: ["0", "0.5", "1"] },
  spacing: { name: "Spacing of the steps" },
};
const FIXED = ["model", "class_label", "sampler", "num_inference_steps", "guidance_scale", "seed"];

export function CompareGrid({ models, query, keep }) {
  const samplers = useAnswer("samplers");
  if (!samplers.data) return html`<${ProblemText} problem=${samplers.problem} />`;
  return html`<${Form} ...${{ models, query, keep, catalogue: samplers.data }} />`;
}

function Form({ models, query, keep, catalogue }) {
  const [fields, setFields] = useState(() => firstFields(models, query));
  const { run, stop, state } = useGridRun();
  const isOfTraining = [fields.x, fields.y].includes("checkpoint");
  const training = useTraining(isOfTraining, fields.job);
  const model = isOfTraining
    ? training.model
    : (models.find(({ name }) => name === fields.model) ?? models[0]);
  const options = (setting) => optionsOf(setting, { model, models, catalogue, steps: training.steps });
  const set = (name) => (value) => setFields((old) => ({ ...old, [name]: value }));
  const axes = ["x", "y"].filter((axis) => fields[axis]);
  const chosen = (axis) => valuesOf(fields[axis], fields[`${axis}s`], options(fields[axis]));
  const onAxis = axes.map((axis) => fields[axis]);
  const fixed = FIXED.filter((name) => !onAxis.includes(name) && !(isOfTraining && name === "model"));
  const count = axes.reduce((n, axis) => n * chosen(axis).length, 1);
  const error = (field) => state.problem?.of?.(field);
  const places = [...axes.map((axis) => `${axis}/values`), "x/setting", "y/setting", "job", ...fixed];
  const isPlaced = places.some(error);
  keep({ ...(isOfTraining && { job: training.id }), ...addressFields(fields, axes, chosen, fixed) });

  const submit = (event) => {
    event.preventDefault();
    const seed = onAxis.includes("seed") ? undefined : (given(fields.seed) ?? randomSeed());
    if (seed !== undefined) set("seed")(`${seed}`);
    const settings = fixed.map((name) => [name, given(fields[name])]);
    run({
      ...Object.fromEntries(settings),
      class_label: fixed.includes("class_label") ? fields.class_label || undefined : undefined,
      seed,
      job: isOfTraining ? training.id : undefined,
      ...Object.fromEntries(
        axes.map((axis) => [axis, { setting: fields[axis], values: typed(fields[axis], chosen(axis)) }]),
      ),
    });
  };

  return html`
    <form class="card" aria-label="What to compare" onSubmit=${submit}>
      <div class="columns plain">
        ${["x", "y"].map(
          (axis) => html`<${Axis}
            key=${axis}
            axis=${axis}
            setting=${fields[axis]}
            values=${fields[axis] ? chosen(axis) : []}
            options=${options(fields[axis])}
            error=${error(`${axis}/values`) ?? error(`${axis}/setting`)}
            others=${fields[axis === "x" ? "y" : "x"]}
            onSetting=${(setting) => setFields((old) => ({ ...old, [axis]: setting, [`${axis}s`]: undefined }))}
            onValues=${set(`${axis}s`)}
          />`,
        )}
      </div>
      <${ProblemText} problem=${isOfTraining && training.problem} />
      <div class="fields">
        ${
          isOfTraining &&
          html`<${Select}
            label="Training"
            value=${training.id ?? ""}
            options=${training.jobs.map((job) => [job.id, `${job.model_name} (${job.status})`])}
            hint=${!training.steps.length && "no checkpoint of it is kept"}
            error=${error("job")}
            onChange=${(job) => setFields((old) => ({ ...old, job, [old.x === "checkpoint" ? "xs" : "ys"]: undefined }))}
          />`
        }
        ${fixed.map(
          (name) => html`<${Setting}
            key=${name}
            name=${name}
            value=${fields[name] ?? ""}
            options=${options(name)}
            error=${error(name)}
            onChange=${set(name)}
          />`,
        )}
      </div>
      <div class="actions">
        <button class="primary" disabled=${state.busy || !count || count > MAX_CELLS}>Make the grid</button>
        ${state.busy && html`<button type="button" onClick=${stop}>Stop</button>`}
        <span role="status">${sizeOf(count)}</span>
      </div>
      ${!isPlaced && html`<${ProblemText} problem=${state.problem} />`}
    </form>
    ${state.request && !isPlaced && html`<${Result} state=${state} models=${models} />`}
  `;
}

const NOTHING = { name: "", details: { class_names: [], schedule: {} } };

/** {jobs, id, model, steps, problem}: the trainings, the chosen one as a model, and its checkpoints. */
function useTraining(wanted, chosen) {
  const jobs = useAnswer(wanted && "train-jobs?limit=100");
  const items = jobs.data?.items ?? [];
  const job = items.find(({ id }) => id === chosen) ?? items[0];
  const checkpoints = useAnswer(job && at`train-jobs/${job.id}/checkpoints`);
  const steps = checkpoints.data?.items.map(({ step }) => `${step}`) ?? [];
  const model = job
    ? {
        name: job.model_name,
        details: { ...job.config, consistency: job.config.objective === "consistency" },
      }
    : NOTHING;
  return { jobs: items, id: job?.id, model, steps, problem: jobs.problem || checkpoints.problem };
}

function sizeOf(count) {
  if (!count) return "Choose a value for each direction.";
  const text = countOf(count, "image");
  return count > MAX_CELLS ? `${text}; a grid has at most ${MAX_CELLS}` : text;
}

function firstFields(models, query) {
  const known = ({ name }) => name === query.model;
  return {
    x: "num_inference_steps",
    y: "sampler",
    ...query,
    ...("x" in query && !("y" in query) && { y: "" }),
    model: models.find(known)?.name ?? models[0].name,
    xs: query.xs && toList(query.xs),
    ys: query.ys && toList(query.ys),
  };
}

function addressFields(fields, axes, chosen, fixed) {
  const lists = axes.flatMap((axis) => [
    [axis, fields[axis]],
    [`${axis}s`, fromList(chosen(axis))],
  ]);
  return Object.fromEntries([...fixed.map((name) => [name, fields[name]]), ...lists]);
}

/** The options of a setting as [value, text]; undefined if it is a number. */
function optionsOf(setting, { model, models, catalogue, steps }) {
  const { details } = model;
  switch (setting) {
    case "model":
      return models.map(({ name }) => [name, name]);
    case "checkpoint":
      return steps.map((step) => [step, `after ${Number(step).toLocaleString("en")} steps`]);
    case "class_label": {
      const names = details.class_names.map((name) => [name, name]);
      return details.has_null_class === false ? names : [...names, [ANY, "any"]];
    }
    case "sampler":
      return catalogue.samplers
        .filter((sampler) => sampler.for_distilled === Boolean(details.consistency))
        .map(({ name }) => [name, name]);
    case "spacing":
      return catalogue.spacings
        .filter(({ schedules }) => schedules.includes(details.schedule.name))
        .map(({ name }) => [name, name]);
    default:
      return undefined;
  }
}

/** The values of an axis: those chosen, without options that the model does not have; else a proposal. */
function valuesOf(setting, values, options) {
  if (!options) return values ?? SETTINGS[setting]?.proposed ?? [];
  const known = options.map(([value]) => value);
  return values?.filter((value) => known.includes(value)) ?? known.slice(0, FIRST_OF_MANY);
}

/** The values as the service takes them. */
function typed(setting, values) {
  if (SETTINGS[setting].proposed || setting === "checkpoint") return values.map(given);
  return values.map((value) => (setting === "class_label" && value === ANY ? null : value));
}

function Axis({ axis, setting, values, options, error, others, onSetting, onValues }) {
  const sources = ["model", "checkpoint"]; // a grid has either
  const excluded = sources.includes(others) ? sources : [others];
  const settings = Object.entries(SETTINGS).filter(([name]) => !excluded.includes(name));
  const label = axis === "x" ? "From left to right" : "From top to bottom";
  const toggle = (value, on) =>
    onValues(options.map(([each]) => each).filter((each) => (each === value ? on : values.includes(each))));
  return html`
    <div class="axis">
      <${Select}
        label=${label}
        value=${setting}
        options=${[...(axis === "y" ? [["", "nothing: one row"]] : []), ...settings.map(([name, { name: text }]) => [name, text])]}
        onChange=${onSetting}
      />
      ${
        setting &&
        !options &&
        html`<${Numbers}
          key=${setting}
          label=${`${SETTINGS[setting].name}: the values`}
          values=${values}
          error=${error}
          onChange=${onValues}
        />`
      }
      ${
        options &&
        html`
        <fieldset class="ticks">
          <legend>${SETTINGS[setting].name}: the values</legend>
          ${options.map(
            ([value, text]) => html`<label>
              <input
                type="checkbox"
                checked=${values.includes(value)}
                onChange=${(event) => toggle(value, event.target.checked)}
              />${text}
            </label>`,
          )}
          ${!options.length && html`<small>This model has none.</small>`}
        </fieldset>
        ${error && html`<small class="error" role="alert">${error}</small>`}
      `
      }
    </div>
  `;
}

/** A list of numbers as text; what is typed stays as it is typed. */
function Numbers({ label, values, error, onChange }) {
  const [text, setText] = useState(values.join(", "));
  const change = (now) => {
    setText(now);
    onChange(now.split(/[\s,;]+/).filter(Boolean));
  };
  return html`<${Input}
    label=${label}
    value=${text}
    error=${error}
    hint="numbers, separated by commas"
    onChange=${change}
  />`;
}

const HINTS = { seed: "the same noise for all images", guidance_scale: "strengthens the effect of the class; 1 is off" };
const PLACEHOLDERS = { seed: "random", guidance_scale: "chosen", num_inference_steps: "chosen" };

/** A setting that all images share. */
function Setting({ name, value, options, error, onChange }) {
  const label = SETTINGS[name].name;
  if (name === "class_label" && options.length < 2) return null;
  if (!options)
    return html`<${Input}
      label=${label}
      type="number"
      min="0"
      step="any"
      hint=${HINTS[name]}
      placeholder=${PLACEHOLDERS[name]}
      ...${{ value, error, onChange }}
    />`;
  const choices = name === "sampler" ? [["", "chosen"], ...options] : options;
  return html`<${Select} label=${label} options=${choices} ...${{ value, error, onChange }} />`;
}

/** The table of images, as they are made. */
function Result({ state, models }) {
  const { request, cells, progress, busy, stopped, picture } = state;
  const [opened, setOpened] = useState();
  const columns = request.x.values;
  const rows = request.y?.values ?? [undefined];
  const count = columns.length * rows.length;
  const done = Object.keys(cells).length;
  const x = SETTINGS[request.x.setting].name;
  const y = request.y && SETTINGS[request.y.setting].name;
  const text = (value) => (value === null ? "any" : `${value}`);
  const nameOf = (i, j) =>
    [`${x} ${text(columns[i])}`, y && `${y} ${text(rows[j])}`].filter(Boolean).join(", ");
  return html`
    <section class="card" aria-label="The grid" aria-busy=${busy}>
      ${busy && html`<${Bar} label="Progress of the grid" value=${progress} />`}
      <p class="note" role="status">
        ${stopped && "Stopped. "}${done < count ? `${done} of ${countOf(count, "image")}` : sharedText(request)}
      </p>
      <div class="scroll tall" tabindex="0" role="region" aria-label="Images by their settings">
        <table class="grid">
          <thead>
            <tr>
              <td><span>${x} →</span>${y && ` ${y} ↓`}</td>
              ${columns.map((value) => html`<th scope="col">${text(value)}</th>`)}
            </tr>
          </thead>
          <tbody>
            ${rows.map(
              (value, j) => html`
                <tr>
                  <th scope="row">${y && text(value)}</th>
                  ${columns.map(
                    (_, i) =>
                      html`<td><${Cell}
                        cell=${cells[`${i},${j}`]}
                        name=${nameOf(i, j)}
                        onOpen=${() => setOpened([i, j])}
                      /></td>`,
                  )}
                </tr>
              `,
            )}
          </tbody>
        </table>
      </div>
      ${
        picture &&
        html`<div class="actions">
          <button onClick=${() => save(pngOf(picture), fileName(request))}>Download the picture</button>
        </div>`
      }
      ${
        opened &&
        html`<${Opened}
          cell=${cells[`${opened}`]}
          name=${nameOf(...opened)}
          models=${models}
          onClose=${() => setOpened(undefined)}
        />`
      }
    </section>
  `;
}

const sharedText = (request) =>
  Object.entries(request)
    .filter(([name, value]) => name in SETTINGS && value !== undefined)
    .map(([name, value]) => `${SETTINGS[name].name.toLowerCase()} ${value}`)
    .join(", ");

const fileName = ({ model, x, y }) => [model ?? "training", x.setting, y?.setting].filter(Boolean).join("-") + ".png";

function Cell({ cell, name, onOpen }) {
  if (!cell) return html`<div class="blank"></div>`;
  return html`<button class="tile" onClick=${onOpen} aria-haspopup="dialog">
    <img src=${base64(cell.image)} alt=${name} />
  </button>`;
}

function Opened({ cell: { image, used }, name, models, onClose }) {
  const model = models.find((each) => each.name === used.model); // none of a checkpoint
  const [label] = used.class_label ?? [];
  return html`
    <${Dialog} title=${name} onClose=${onClose}>
      <div class="columns">
        <img class="large" src=${base64(image)} alt=${name} />
        <div>
          <${Properties}
            of=${[
              ["model", used.model],
              ["class", label === undefined ? undefined : (model?.details.class_names[label] ?? label)],
              ["sampler", used.sampler],
              ["steps", used.num_inference_steps],
              ["guidance", label === undefined ? undefined : used.guidance_scale],
              ["seed", used.seed],
            ]}
          />
          <div class="actions">
            ${model && html`<a class="button primary" href=${sampleAddress(requestOf(used, model.details.class_names))}>Use its settings</a>`}
            <button onClick=${() => save(pngOf(image), `${used.model}-${used.seed}.png`)}>Download</button>
          </div>
        </div>
      </div>
    <//>
  `;
}
