// Step 2: the model's guess of the clean picture at every noise level.

import { html } from "../../vendor/htm-preact.js";
import { Chart } from "../../lib/chart.js";
import { base64 } from "../../lib/files.js";
import { number } from "../../lib/parts.js";
import { levelAt } from "./levels.js";
import { Formula, Step, Waiting, sampled, useSeenAnswer } from "./parts.js";
import { flatError, meanSquare, valuesOf } from "./pixels.js";

const LEVELS = 8; // as many as a distilled model may take steps

export function Guesses({ model, picture, tables, labels, settings, onLevel }) {
  return html`
    <${Step} number="2" title="The model's guess at every level" id="guesses">
      ${(seen) => html`<${Guessed} ...${{ seen, model, picture, tables, labels, settings, onLevel }} />`}
    <//>
  `;
}

function Guessed({ seen, model, picture, tables, labels, settings, onLevel }) {
  const ready = picture && tables;
  const key = ready && `guesses ${[model.name, picture.key, labels.class_label, settings.seed]}`;
  const answer = useSeenAnswer(seen, key, (signal) =>
    guessesOf({ model, picture, labels, seed: settings.seed, tables }, signal),
  );
  return html`
    <div>
      <p>
        The model sees x<sub>t</sub> and t, and guesses the clean picture: x̂<sub>0</sub>. Its guess is the average of all pictures that
        could have become this x<sub>t</sub>. With little noise that is one picture; with much noise it is a blur of many. Each guess
        below is one call of the network.
      </p>
      <${Waiting} answer=${answer} text="The model looks at eight noise levels." />
      ${answer.data && html`<${Table} levels=${answer.data} picture=${picture} onLevel=${onLevel} />`}
    </div>
  `;
}

/** The first step of a run that begins with the picture at a noise level is the guess there. */
async function guessesOf({ model, picture, labels, seed, tables }, signal) {
  const count = Math.min(LEVELS, tables.num_train_timesteps);
  const request = {
    model: model.name,
    init_image: picture.base64,
    num_inference_steps: count,
    trajectory: true,
    seed,
    ...labels,
  };
  const runs = Array.from({ length: count }, (_, i) =>
    sampled({ ...request, strength: (i + 1) / count }, signal),
  );
  return Promise.all(
    (await Promise.all(runs)).map(async ({ trajectories: [[{ t, x_t, x0_hat }]] }) => {
      const level = levelAt(tables, t);
      const error = meanSquare(await valuesOf(x0_hat, picture.shape), picture.values);
      return { t, x_t, x0_hat, error, noisy: (level.sigma / level.alpha) ** 2, ...level };
    }),
  );
}

function verdictOf(levels, flat) {
  const better = levels.filter(({ error, noisy }) => error < Math.min(flat, noisy)).length;
  if (!better) return "The model is better than both at no level: it has not learned such pictures.";
  const where = better === levels.length ? `all ${better}` : `${better} of ${levels.length}`;
  return `The model is better than both at ${where} levels.`;
}

function Table({ levels, picture, onLevel }) {
  const flat = flatError(picture);
  const last = levels.at(-1);
  const row = (name, cell) => html`<tr><th scope="row">${name}</th>${levels.map((level) => html`<td>${cell(level)}</td>`)}</tr>`;
  const image = (source, says) => html`<img src=${base64(source)} alt=${says} />`;
  const [worst] = levels.toSorted((a, b) => b.error - a.error);
  return html`
    <div class="scroll tall" tabindex="0" role="region" aria-label="Guesses at every level">
      <table class="comparison levels">
        <tbody>
          ${row("t", ({ t }) => html`<button class="small" onClick=${() => onLevel(Math.round(t))}><span class="hidden">Show t = </span>${number(t, 4)}</button>`)}
          ${row("α", ({ alpha }) => number(alpha))}
          ${row("σ", ({ sigma }) => number(sigma))}
          ${row(html`x<sub>t</sub>`, ({ t, x_t }) => image(x_t, `The picture at t = ${number(t, 4)}`))}
          ${row(html`x̂<sub>0</sub>`, ({ t, x0_hat }) => image(x0_hat, `The guess at t = ${number(t, 4)}`))}
          ${row("error of the guess", ({ error }) => number(error))}
          ${row("error of one flat colour", () => number(flat))}
          ${row("error of no guess: σ² / α²", ({ noisy }) => (Number.isFinite(noisy) ? number(noisy) : "∞"))}
        </tbody>
      </table>
    </div>
    <${Formula} says="The error of a guess" symbols=${html`error = mean of (x̂<sub>0</sub> − x<sub>0</sub>)²`}>
      = ${number(worst.error)} at t = ${number(worst.t, 4)}, where it is largest
    <//>
    <p>
      Two rows show how good it would be to know nothing. One flat colour, the mean of the picture, has the error ${number(flat)} at every
      level. Without a guess the noise stays: the mean of (x<sub>t</sub> / α − x<sub>0</sub>)² is close to σ² / α². ${verdictOf(levels, flat)} At
      t = ${number(last.t, 4)} hardly anything of the picture is left: the best guess there is the mean of all images that the model has learned.
    </p>
    <${Chart}
      x=${levels.map(({ t }) => t)}
      xLabel="t"
      height=${220}
      logY
      lines=${[
        { label: "the model's guess", y: levels.map(({ error }) => error || null) },
        { label: "one flat colour", y: levels.map(() => flat || null) },
        { label: "no guess: the noise stays", y: levels.map(({ noisy }) => (Number.isFinite(noisy) ? noisy : null)) },
      ]}
      says=${`The error of the guess grows with t from ${number(levels[0].error)} to ${number(last.error)}; one flat colour has ${number(flat)}.`}
    />
  `;
}
