// Step 3: from pure noise back to a picture, a step at a time.

import { html } from "../../vendor/htm-preact.js";
import { normal } from "../../lib/normal.js";
import { Range, number } from "../../lib/parts.js";
import { displayScale, levelAt } from "./levels.js";
import { Formula, Shown, Step, Waiting, minus, sampled, signed, useSeenAnswer } from "./parts.js";
import { combined, valuesOf } from "./pixels.js";

const STEPS = 12;
const DISTILLED_STEPS = 4;

export function Back(props) {
  return html`
    <${Step} number="3" title="Back again, step by step" id="back">
      ${(seen) => html`<${Steps} seen=${seen} ...${props} />`}
    <//>
  `;
}

function Steps({ seen, model, tables, labels, sampler, settings, set }) {
  const isDistilled = Boolean(model.details.consistency);
  const steps = Math.min(isDistilled ? DISTILLED_STEPS : STEPS, tables?.num_train_timesteps);
  const request = {
    model: model.name,
    seed: settings.seed,
    sampler,
    num_inference_steps: steps,
    trajectory: true,
    ...labels,
  };
  const answer = useSeenAnswer(seen, tables && sampler && `back ${JSON.stringify(request)}`, (signal) =>
    pathOf(request, model, tables, isDistilled, signal),
  );
  return html`
    <div>
      <p>
        To make a new picture we begin with pure noise. At each step the model guesses the clean picture, and we go a part of the way:
        to the next lower noise level t′, with the guess in place of the picture. Then it may guess again, and sees a little more.
      </p>
      <${Waiting} answer=${answer} text="The model makes a picture." />
      ${answer.data && html`<${One} path=${answer.data} ...${{ isDistilled, settings, set }} />`}
    </div>
  `;
}

/** Each step with the levels it leads between, x_t, the guess and the noise that the guess implies. */
async function pathOf(request, { details }, tables, isDistilled, signal) {
  const { trajectories, images } = await sampled(request, signal);
  const shape = [details.channels, ...details.image_size];
  const size = shape.reduce((a, b) => a * b);
  const seed = BigInt(request.seed);
  const levels = [...trajectories[0].map(({ t }) => levelAt(tables, t)), { alpha: 1, sigma: 0 }];
  let x = normal(seed, 1, 0, size).map((value) => value * Math.hypot(levels[0].alpha, levels[0].sigma));
  const steps = [];
  for (const [i, { t, x0_hat }] of trajectories[0].entries()) {
    const [from, to] = [levels[i], levels[i + 1]];
    const guess = await valuesOf(x0_hat, shape);
    const eps = isDistilled
      ? normal(seed, 1, i + 1, size)
      : combined(1 / from.sigma, x, -from.alpha / from.sigma, guess);
    const next = combined(to.alpha, guess, to.sigma, eps);
    const to_t = trajectories[0][i + 1]?.t ?? 0;
    steps.push({ t, to_t, from, to, x, guess, eps, next });
    x = next;
  }
  return { steps, shape, image: images[0] };
}

function One({ path: { steps, shape }, isDistilled, settings, set }) {
  const at = Math.min(steps.length, Math.max(1, settings.step));
  const { t, to_t, from, to, x, guess, eps, next } = steps[at - 1];
  const place = Math.floor(shape[1] / 2) * shape[2] + Math.floor(shape[2] / 2);
  const of = (values) => ({ values, shape });
  const value = (values) => signed(number(values[place]));
  const result = (values) => minus(number(values[place]));
  const n = signedOf(from, to);
  return html`
    <${Range} label="Step" min="1" max=${steps.length} value=${at} shown=${`${at} of ${steps.length}`} onChange=${(step) => set({ step })} />
    <div class="pictures four">
      <${Shown} picture=${of(x)} scale=${displayScale(from)} says=${`x at step ${at}`}>x<sub>t</sub>, t = ${number(t, 4)}<//>
      <${Shown} picture=${of(guess)} says=${`The guess at step ${at}`}>x̂<sub>0</sub>, the guess<//>
      <${Shown} picture=${of(eps)} scale=${2} says=${`The noise at step ${at}`}>${isDistilled ? "ε, fresh noise" : html`ε̂, the noise that is left`}<//>
      <${Shown} picture=${of(next)} scale=${displayScale(to)} says=${`x after step ${at}`}>x<sub>t′</sub>, t′ = ${number(to_t, 4)}<//>
    </div>
    ${
      isDistilled
        ? html`<p>This model is distilled: it jumps to the clean picture at once, and is noised again for the next, better jump.</p>`
        : html`
          <p>If the guess is right, the rest of x<sub>t</sub> must be noise:</p>
          <${Formula} says="The noise that is left" symbols=${html`ε̂ = (x<sub>t</sub> − α x̂<sub>0</sub>) / σ`}>= (x<sub>t</sub> − ${n.alpha} x̂<sub>0</sub>) / ${n.sigma}<//>
          <p>We mix it anew with the guess, with the α′ and σ′ of the next level:</p>
        `
    }
    <${Formula} says="The step" symbols=${html`x<sub>t′</sub> = α′ x̂<sub>0</sub> + σ′ ${isDistilled ? "ε" : "ε̂"}`}>= ${n.nextAlpha} x̂<sub>0</sub> + ${n.nextSigma} ${isDistilled ? "ε" : "ε̂"}<//>
    <${Formula} says="The step in the middle pixel" symbols="in the middle pixel:">${
      !isDistilled &&
      html`ε̂ = (${result(x)} − ${n.alpha} · ${value(guess)}) / ${n.sigma} = ${result(eps)}, so `
    }${n.nextAlpha} · ${value(guess)} + ${n.nextSigma} · ${value(eps)} = ${result(next)}<//>
    ${at === steps.length && html`<p>This was the last step: α′ = 1 and σ′ = 0, so that the guess itself is the picture.</p>`}
  `;
}

const signedOf = (from, to) => ({
  alpha: number(from.alpha),
  sigma: number(from.sigma),
  nextAlpha: number(to.alpha),
  nextSigma: number(to.sigma),
});
