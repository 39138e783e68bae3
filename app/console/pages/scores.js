// How good a model is: the verdict in a sentence, its numbers, and new measurements.

import { html, useState } from "../vendor/htm-preact.js";
import { at, post } from "../lib/api.js";
import { useAction } from "../lib/hooks.js";
import { Bar, ProblemText, Properties, number } from "../lib/parts.js";

/** The precisions that the service computes in: the choices that come to themselves. */
export const ownPrecisions = (precisions) =>
  Object.keys(precisions ?? {}).filter((name) => precisions[name] === name);

/** The verdict on a model in one sentence; undefined before it is measured. */
export function verdictOf({ details, precisions }) {
  const scores = details.scores ?? {};
  const score = scores[precisions?.auto] ?? Object.values(scores)[0];
  return score && sentenceOf(score);
}

export function Scores({ model, evaluations }) {
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
