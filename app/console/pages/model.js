// The page of a model: try it, the same request as code, its facts, scores, downloads and license.

import { html, useState } from "../vendor/htm-preact.js";
import { at, patch } from "../lib/api.js";
import { go, keyed, useAction, useAnswer } from "../lib/hooks.js";
import { discard, say } from "../lib/notices.js";
import {
  ConfirmButton,
  Input,
  Page,
  ProblemText,
  Properties,
  bytes,
  duration,
  when,
} from "../lib/parts.js";
import { TryIt } from "./model_try.js";
import { grid, sentenceAbout } from "./pictures_of.js";
import { Scores, ownPrecisions } from "./scores.js";

export function Model({ name }) {
  const model = useAnswer(at`models/${name}`, 5000);
  const evaluations = useAnswer("evaluations?limit=50", 3000);
  const session = useAnswer("session");
  const { data } = model;
  return html`
    <${Page}
      title=${name}
      intro=${data && sentenceAbout(data)}
      actions=${data && html`<${Uses} model=${data} />`}
    >
      <${ProblemText} problem=${model.problem || evaluations.problem} />
      ${
        data &&
        html`
        ${data.damage && html`<p class="problem" role="alert">Damaged: ${data.damage}</p>`}
        <div class="model-page">
          <div>
            <${TryIt} model=${data} needsKey=${session.data?.key_needed} />
          </div>
          <div class="side">
            <section class="card" aria-label="Facts">
              <h2>About it</h2>
              <${Facts} model=${data} refresh=${model.refresh} />
            </section>
            <section class="card model" aria-label="Scores">
              <h2>How good it is</h2>
              <${Grid} model=${data} />
              ${!data.dataset && !data.details.scores && html`<p class="note">Nobody has measured it yet. An evaluation needs a dataset: <a href="docs">POST /evaluations</a> takes one.</p>`}
              <${Scores} model=${data} evaluations=${evaluations} />
            </section>
            <${Link} model=${data} session=${session.data} />
            <${Remove} name=${name} />
          </div>
        </div>
      `
      }
      <p class="links"><a href="#/models">All models</a></p>
    <//>
  `;
}

/** What one does with a model, as buttons beside its name. */
function Uses({ model: { name, details } }) {
  const download = at`models/${name}/download`;
  const query = (how) => new URLSearchParams({ [how]: name });
  return html`
    <a class="button" href=${download} download>Download<span class="hidden"> ${name}</span></a>
    <a
      class="button"
      href=${`${download}?format=onnx`}
      download
    >Download<span class="hidden"> ${name}</span> as ONNX</a>
    <a class="button" href=${`#/training?${query("fine_tune")}`}>Fine-tune<span class="hidden"> ${name}</span></a>
    ${
      !details.consistency &&
      html`<a class="button" href=${`#/training?${query("distill")}`}>Distil<span class="hidden"> ${name}</span></a>`
    }
  `;
}

function Facts({ model, refresh }) {
  const { details, network } = model;
  const dataset = model.dataset && at`#/datasets/${model.dataset}`;
  return html`<${Properties}
    of=${[
      ["learned from", dataset ? html`<a href=${dataset}>${model.dataset}</a>` : details.dataset],
      ["images seen", details.images_seen?.toLocaleString("en")],
      [
        "trained",
        details.seconds &&
          `${duration(details.seconds)}, ${details.steps.toLocaleString("en")} steps`,
      ],
      ["made by", origin(model)],
      ["made", when(model.created_at)],
      [
        "recipe",
        [
          details.preset,
          `predicts ${details.prediction_type}`,
          `schedule ${details.schedule.name}`,
          details.consistency && "distilled",
        ]
          .filter(Boolean)
          .join(", "),
      ],
      [
        "network",
        [
          network.num_parameters &&
            `${(network.num_parameters / 1e6).toFixed(1)} million parameters`,
          network.float32_bytes && `${bytes(network.float32_bytes)} in float32`,
          network.flops && `${operations(network.flops)} for an image in one call`,
        ]
          .filter(Boolean)
          .join(", "),
      ],
      ["precision", model.precisions && precisionText(model.precisions)],
      ["not in int8", details.scores?.int8 && model.int8_refusal],
      ["stored", bytes(model.num_bytes)],
      ["license", html`<${License} model=${model} refresh=${refresh} />`],
    ]}
  />`;
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

/** The last grid of the training that made the model. */
function Grid({ model: { name, job_id: job } }) {
  const { data } = useAnswer(job && keyed(`grid of ${job}`, (signal) => grid(job, signal)));
  return data && html`<img class="sheet" src=${data} alt=${`Images by ${name}`} loading="lazy" />`;
}

const LOCAL = /^(localhost|127\.|\[::1\])/;

/** The address of this page, to be given away, and what it takes to open it. */
function Link({ model: { name, visibility }, session }) {
  const address = new URL(at`#/models/${name}`, document.baseURI).href;
  const copy = useAction(async () => {
    await navigator.clipboard.writeText(address);
    say("The link is copied.");
  });
  return html`
    <section class="card" aria-label="Link">
      <h2>A link to give away</h2>
      <p class="address"><a href=${address}>${address}</a></p>
      ${navigator.clipboard && html`<button class="small" onClick=${copy.run}>Copy link</button>`}
      <${ProblemText} problem=${copy.problem} />
      ${
        session?.key_needed &&
        html`<p class="note">
          ${
            visibility === "shared"
              ? "It opens for everybody who has a key of this service: the model is shared."
              : html`Only its owner and administrators see the model. <code>diffusion models share ${name}</code> shows it to everybody who has a key of this service.`
          }
        </p>`
      }
      ${
        LOCAL.test(location.host) &&
        html`<p class="note">This address works on this computer only: the service listens to nobody else here.</p>`
      }
    </section>
  `;
}

function Remove({ name }) {
  return html`
    <${ConfirmButton}
      question=${`Delete the model ${name}? Its training, if it was made here, stays.`}
      yes="Delete"
      onConfirm=${async () => {
        await discard("models", name, `The model ${name} is deleted.`);
        go("#/models");
      }}
    >
      Delete<span class="hidden"> ${name}</span>
    <//>
  `;
}
