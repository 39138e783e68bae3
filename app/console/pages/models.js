// The models: a card for each with its images, its scores, its origin and its license.

import { html, useState } from "../vendor/htm-preact.js";
import { all, at, get, patch, post } from "../lib/api.js";
import { base64 } from "../lib/files.js";
import { keyed, useAction, useAnswer } from "../lib/hooks.js";
import { discard } from "../lib/notices.js";
import {
  Bar,
  ConfirmButton,
  Input,
  Properties,
  Page,
  ProblemText,
  bytes,
  duration,
  number,
  when,
} from "../lib/parts.js";
import { Upload } from "../lib/upload.js";

const A_MODEL = "a diffusers folder, which has the config.json of a UNet2DModel with its weights as safetensors";

/** Throws an Error unless one of the files may be a model's; the service explains what is missing. */
function checkModel(paths) {
  if (paths.some((path) => /(\.(safetensors|bin|ckpt|pth?|pkl)|config\.json)$/i.test(path))) return;
  throw new Error(
    `These files are not a model: a model is ${A_MODEL}. Images to learn from are uploaded on the page Datasets.`,
  );
}

const allModels = keyed("models", (signal) => all("models", "name", signal));

export function Models() {
  const models = useAnswer(allModels, 5000);
  const evaluations = useAnswer("evaluations?limit=50", 3000);
  return html`
    <${Page}
      title="Models"
      intro="Trained here or uploaded. A download is a folder that diffusers can load, or ONNX with all that other programs need."
    >
      <${ProblemText} problem=${models.problem || evaluations.problem} />
      ${models.data && !models.data.length && html`<p class="empty">There are no models yet. <a href="#/training">Train one</a>, or upload one below.</p>`}
      <ul class="cards">
        ${models.data?.map(
          (model) => html`<${Card}
            key=${model.name}
            model=${model}
            evaluations=${evaluations}
            refresh=${models.refresh}
          />`,
        )}
      </ul>
      <${Upload}
        what="model"
        title="Upload a model"
        label="Choose a zip"
        hint=${`or drop one here, or its folder: ${A_MODEL}`}
        accept=".zip"
        folders
        check=${checkModel}
        address=${(name) => at`models/${name}`}
        onDone=${models.refresh}
      />
    <//>
  `;
}

function Card({ model, evaluations, refresh }) {
  const { name, details, network } = model;
  const query = (how) => new URLSearchParams({ [how]: name });
  return html`
    <li class="card model">
      <${Pictures} model=${model} />
      <h2>${name}</h2>
      <${Properties}
        of=${[
          [
            "images",
            `${details.image_size[1]} × ${details.image_size[0]}, ${details.channels === 1 ? "greyscale" : "colour"}`,
          ],
          ["classes", details.class_names?.length ? list(details.class_names) : "none"],
          [
            "trained on",
            model.dataset && html`<a href=${at`#/datasets/${model.dataset}`}>${model.dataset}</a>`,
          ],
          ["made by", origin(model)],
          ["damaged", model.damage],
          [
            "trained",
            details.seconds &&
              `${duration(details.seconds)}, ${details.steps.toLocaleString("en")} steps`,
          ],
          [
            "recipe",
            [
              details.preset,
              `predicts ${details.prediction_type}`,
              details.consistency && "distilled",
            ]
              .filter(Boolean)
              .join(", "),
          ],
          [
            "network",
            [
              `${(network.num_parameters / 1e6).toFixed(1)} million parameters`,
              `${bytes(network.float32_bytes)} in float32`,
              network.flops && `${operations(network.flops)} for an image in one call`,
            ]
              .filter(Boolean)
              .join(", "),
          ],
          ["precision", model.precisions && precisionText(model.precisions)],
          ["not in int8", details.scores?.int8 && model.int8_refusal],
          ["made", when(model.created_at)],
          ["license", html`<${License} model=${model} refresh=${refresh} />`],
        ]}
      />
      <${Scores} model=${model} evaluations=${evaluations} />
      <div class="actions">
        <a class="button primary" href=${`#/sample?${query("model")}`}>Make images</a>
        <a
          class="button"
          href=${at`models/${name}/download`}
          download
        >Download<span class="hidden"> ${name}</span></a>
        <a
          class="button"
          href=${`${at`models/${name}/download`}?format=onnx`}
          download
        >Download<span class="hidden"> ${name}</span> as ONNX</a>
        <a
          class="button"
          href=${`#/training?${query("fine_tune")}`}
        >Fine-tune<span class="hidden"> ${name}</span></a>
        ${
          !details.consistency &&
          html`<a
            class="button"
            href=${`#/training?${query("distill")}`}
          >Distil<span class="hidden"> ${name}</span></a>`
        }
        <${ConfirmButton}
          question=${`Delete the model ${name}? Its training, if it was made here, stays.`}
          yes="Delete"
          onConfirm=${async () => {
            await discard("models", name, `The model ${name} is deleted.`);
            refresh();
          }}
        >
          Delete<span class="hidden"> ${name}</span>
        <//>
      </div>
    </li>
  `;
}

function origin({ job_id: job, origin: { kind, base_model: base } }) {
  if (!job) return "an upload";
  const training = html`<a href=${at`#/training/${job}`}>its training</a>`;
  if (kind === "trained") return training;
  const verb = kind === "distilled" ? "distilled" : "fine-tuned";
  return html`${training}, ${verb}${base && ` from ${base}`}`;
}

const operations = (flops) =>
  flops < 1e9 ? `${(flops / 1e6).toPrecision(3)} MFLOPs` : `${(flops / 1e9).toPrecision(3)} GFLOPs`;

/** The precisions that the service computes in: the choices that come to themselves. */
const ownPrecisions = (precisions) =>
  Object.keys(precisions ?? {}).filter((name) => precisions[name] === name);

const precisionText = (precisions) =>
  ownPrecisions(precisions)
    .map((name) => (name === precisions.auto ? `${name} (auto)` : name))
    .join(", ");

/** The license of the weights, and a field to change it. */
function License({ model, refresh }) {
  const [text, setText] = useState();
  const save = useAction(async (event) => {
    event.preventDefault();
    await patch(at`models/${model.name}`, { license: text.trim() || null });
    setText(undefined);
    refresh();
  });
  if (text === undefined)
    return html`${model.license ?? "unknown"} <button
        class="small"
        onClick=${() => setText(model.license ?? "")}
      >Change<span class="hidden"> the license of ${model.name}</span></button>`;
  return html`
    <form onSubmit=${save.run}>
      <${Input}
        label="License of the weights"
        hint="an SPDX id such as Apache-2.0, or other text; empty if unknown"
        error=${save.problem?.message}
        value=${text}
        onChange=${setText}
        maxlength="200"
      />
      <div class="actions">
        <button class="small" disabled=${save.busy}>Save</button>
        <button class="small" type="button" onClick=${() => setText(undefined)}>Cancel</button>
      </div>
    </form>
  `;
}

const list = (names) => (names.length > 12 ? `${names.length}` : names.join(", "));

/** The last grid of the model's training, or images that are made on request. */
function Pictures({ model }) {
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

async function grid(job, signal) {
  const { steps } = await get(at`train-jobs/${job}/samples`, signal);
  return steps.length ? at`train-jobs/${job}/samples/${Math.max(...steps)}` : undefined;
}

function Scores({ model, evaluations }) {
  const scores = Object.entries(model.details.scores ?? {});
  const job = evaluations.data?.items.find((each) => each.model === model.name && !each.done);
  const measure = useAction(async (precision) => {
    await post("evaluations", { model: model.name, precision });
    evaluations.refresh();
  });
  if (job)
    return html`<p role="status">Measuring: ${job.waiting ?? job.progress.stage}</p><${Bar}
      label="Evaluation"
      value=${job.progress.progress}
    />`;
  return html`
    ${scores.map(([precision, score]) => html`<${Score} key=${precision} ...${{ model, precision, score }} />`)}
    ${
      model.dataset &&
      html`<button
        class="small"
        disabled=${measure.busy}
        onClick=${() => measure.run()}
      >Measure how good it is<span class="hidden">: ${model.name}</span></button>`
    }
    ${
      model.dataset &&
      [...ownPrecisions(model.precisions), ...(model.int8_refusal ? ["int8"] : [])]
        .filter((precision) => precision !== model.precisions.auto)
        .map(
          (precision) => html` <button
            class="small"
            disabled=${measure.busy}
            onClick=${() => measure.run(precision)}
          >in ${precision}<span class="hidden">: ${model.name}</span></button>`,
        )
    }
    <${ProblemText} problem=${measure.problem} />
  `;
}

/** What an evaluation says of a model, with the images that are nearest to training images. */
function Score({ model, precision, score }) {
  const [lost, setLost] = useState(false); // the evaluation may be deleted
  return html`
    <p class="verdict">${sentenceOf(score)}</p>
    <${Properties} of=${scoreRows(precision, score)} />
    ${
      score.evaluation &&
      !lost &&
      html`<details>
        <summary>The nearest training images<span class="hidden"> to those of ${model.name}, ${precision}</span></summary>
        <img
          class="sheet"
          src=${at`evaluations/${score.evaluation}/neighbours`}
          alt=${`Images by ${model.name}, each followed by its three nearest training images`}
          loading="lazy"
          onError=${() => setLost(true)}
        />
      </details>`
    }
  `;
}

const ALIKE = 1.5; // a ratio of Frechet distances that hardly tells images apart

/** The Frechet distance in words: beside that of real images set apart, and that of noise. */
function sentenceOf({ made, real, noise }) {
  const times = made.frechet / real.frechet;
  const beside =
    times < ALIKE
      ? "Its images are as near to the real ones as other real images are"
      : `Its images are ${number(times, 2)} times as far from the real ones as other real images are`;
  if (!noise) return `${beside}.`;
  const share = made.frechet / noise.frechet;
  if (share > 1 / ALIKE)
    return `Its images are about as far from the real ones as pure noise is: the model has not learned them yet.`;
  return `${beside}; pure noise is ${number(noise.frechet / real.frechet, 2)} times as far.`;
}

/** The distances of a model's images to real ones, beside those of held-out real images. */
function scoreRows(precision, { made, real, noise, memorisation, class_agreement: agreement }) {
  const among = (which) =>
    [
      ["real images", real],
      ["noise", noise],
    ]
      .filter(([, distances]) => distances)
      .map(([name, distances]) => `${name} ${number(distances[which])}`)
      .join(", ");
  const beside = (value, reference) =>
    reference === null ? number(value) : `${number(value)} (real images ${number(reference)})`;
  return [
    ["measured in", precision],
    ["Frechet distance", `${number(made.frechet)} (${among("frechet")})`],
    ["precision", `${number(made.precision)} (${among("precision")})`],
    ["recall", `${number(made.recall)} (${among("recall")})`],
    ["nearest training image", memorisation && beside(memorisation.made, memorisation.unseen)],
    ["class seen", agreement && `${(100 * agreement).toFixed(1)}%`],
  ];
}
