// The models: a card for each, which leads to its page.

import { html } from "../vendor/htm-preact.js";
import { all, at } from "../lib/api.js";
import { keyed, useAnswer } from "../lib/hooks.js";
import { Page, ProblemText } from "../lib/parts.js";
import { Upload } from "../lib/upload.js";
import { Pictures, sentenceAbout } from "./pictures_of.js";
import { verdictOf } from "./scores.js";

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
  return html`
    <${Page}
      title="Models"
      intro="Trained here or uploaded. A model's page lets you try it, shows how good it is, and has its downloads and the code to use it."
    >
      <${ProblemText} problem=${models.problem} />
      ${models.data && !models.data.length && html`<p class="empty">There are no models yet. <a href="#/training">Train one</a>, or upload one below.</p>`}
      <ul class="cards">
        ${models.data?.map(
          (model) => html`<${Card} key=${model.name} model=${model} />`,
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

function Card({ model }) {
  const { name } = model;
  const verdict = verdictOf(model);
  return html`
    <li class="card model">
      <${Pictures} model=${model} />
      <h2><a href=${at`#/models/${name}`}>${name}</a></h2>
      <p>${sentenceAbout(model)}</p>
      ${verdict && html`<p class="verdict">${verdict}</p>`}
      ${model.damage && html`<p class="problem">Damaged: ${model.damage}</p>`}
      <div class="actions">
        <a class="button primary" href=${`#/sample?${new URLSearchParams({ model: name })}`}>Make images</a>
        <a class="button" href=${at`#/models/${name}`}>Open<span class="hidden"> the page of ${name}</span></a>
      </div>
    </li>
  `;
}
