// The start page: the first steps, and the state of each.

import { html } from "../vendor/htm-preact.js";
import { at, send } from "../lib/api.js";
import { handOver, useDrops } from "../lib/drops.js";
import { filesOf } from "../lib/files.js";
import { go, keyed, useAction, useAnswer } from "../lib/hooks.js";
import { Page, ProblemText } from "../lib/parts.js";

const EXAMPLE = "emoji"; // the model that an empty service begins with

export function Start() {
  const bring = useAction(async (source) => {
    handOver(await filesOf(source));
    go("#/datasets");
  });
  useDrops(bring.run);
  const datasets = useAnswer("datasets?limit=1");
  const jobs = useAnswer("train-jobs?limit=1", 3000);
  const models = useAnswer("models?limit=1", 3000);
  const newest = (answer) => answer.data?.items[0];
  const [dataset, job, model] = [datasets, jobs, models].map(newest);
  const made = useAnswer(model?.job_id && at`train-jobs/${model.job_id}`);
  const isPoor = made.data?.warnings.length > 0;
  const loaded = datasets.data && jobs.data && models.data;
  const isRunning = job && !job.done;
  const steps = [
    {
      title: "See what noise does",
      text: html`Take any picture and dissolve it step by step. This is what a model learns to undo. <a href="#/explain">Noise, explained</a> shows how.`,
      link: ["#/noise", "Dissolve a picture"],
    },
    {
      title: "Bring your images",
      text: "A zip or a folder, which may also be dropped here; folders in it are classes. Images may be of any size from 8 pixels a side: a training scales and crops them to the size of its model, 8 to 256 pixels a side. To try it without your own images, use examples/emoji/emoji.zip or examples/digits/digits.zip, which come with the service.",
      done: dataset && html`<a href=${`#/datasets/${dataset.name}`}>${dataset.name}</a> is uploaded.`,
      link: ["#/datasets", "Upload images"],
    },
    {
      title: "Train a model",
      text: "Choose the images and the number of minutes. Everything else is chosen from the data, with its reason.",
      done:
        job &&
        html`The latest: <a href=${`#/training/${job.id}`}>${job.model_name}</a>, ${job.status}.`,
      link: isRunning ? [`#/training/${job.id}`, "Watch it"] : ["#/training", "Train"],
    },
    {
      title: "Make new images",
      text: "Watch them appear from noise, ask for a class, repaint a part, and copy the request into your own program.",
      done:
        model &&
        html`<a href=${`#/sample?model=${model.name}`}>${model.name}</a> ${
          isPoor
            ? html`was trained too briefly to make good images: <a href=${at`#/training/${model.job_id}`}>see why</a>.`
            : "is ready."
        }`,
      isPoor,
      link: ["#/sample", "Make images"],
    },
  ];
  const next = loaded ? (!dataset ? 1 : isRunning || !model ? 2 : 3) : -1;
  const isFresh = loaded && !dataset && model?.name === EXAMPLE;
  return html`
    <${Page}
      title="Train a diffusion model on your own images"
      intro="A diffusion model turns noise into an image, a small step at a time. Four steps lead from a folder of images to new ones."
    >
      <${ProblemText} problem=${datasets.problem || jobs.problem || models.problem || bring.problem} />
      ${isFresh && html`<${Fresh} model=${model} />`}
      <ol class="loop">
        ${steps.map(
          (step, i) => html`
            <li class=${`card ${i === next ? "next" : ""}`}>
              <h2>${step.title}</h2>
              <p>${step.text}</p>
              ${step.done && html`<p class=${step.isPoor ? "" : "done"}>${step.done}</p>`}
              <a
                class=${`button ${i === next || (i === 3 && model) ? "primary" : ""}`}
                href=${step.link[0]}
              >${step.link[1]}</a>
            </li>
          `,
        )}
      </ol>
    <//>
  `;
}

/** Pictures that nobody has seen before, while there is nothing of the visitor's own. */
function Fresh({ model }) {
  const { data: picture } = useAnswer(oneOfEach(model));
  return html`
    <section class="card fresh">
      <div>
        <h2>New emoji, made just now</h2>
        <p>
          The service comes with a model that learned from 1,906 emoji: one of each of its classes, and others every
          time. <a href=${`#/sample?model=${model.name}`}>Make your own</a>.
        </p>
      </div>
      ${picture && html`<img src=${picture} alt="Nine new emoji" />`}
    </section>
  `;
}

const oneOfEach = ({ name, details }) =>
  keyed(`one of each of ${name}`, async (signal) => {
    const labels = details.class_names;
    const order = { model: name, num_images: labels.length, class_label: labels, guidance_scale: 2 };
    const answer = await send("sample", { json: order, accept: "image/png", signal });
    return URL.createObjectURL(await answer.blob());
  });
