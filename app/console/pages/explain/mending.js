// Step 4: an error in the middle of the way, and what later steps make of it.

import { html } from "../../vendor/htm-preact.js";
import { Chart } from "../../lib/chart.js";
import { base64 } from "../../lib/files.js";
import { Range, number } from "../../lib/parts.js";
import { levelAt } from "./levels.js";
import { Formula, Step, Waiting, sampled, useSeenAnswer } from "./parts.js";
import { meanSquare, valuesOf } from "./pixels.js";

const STEPS = 20;
const DISTILLED_STEPS = 4;
const MENDED = 0.5; // the share of the largest difference below which an error counts as mended

export function Mending(props) {
  return html`
    <${Step} number="4" title="Later steps mend an error" id="mending">
      ${(seen) => html`<${Both} seen=${seen} ...${props} />`}
    <//>
  `;
}

function Both({ seen, model, tables, labels, sampler, takesEta, settings, set }) {
  const steps = Math.min(takesEta ? STEPS : DISTILLED_STEPS, tables?.num_train_timesteps);
  const at = Math.min(steps, Math.max(1, settings.at));
  const { share, eta } = settings;
  const request = {
    model: model.name,
    seed: settings.seed,
    sampler,
    num_inference_steps: steps,
    trajectory: true,
    eta: takesEta ? eta : undefined,
    ...labels,
  };
  const ready = tables && sampler;
  const shape = [model.details.channels, ...model.details.image_size];
  const plain = useSeenAnswer(seen, ready && `plain ${JSON.stringify(request)}`, async (signal) => {
    const { trajectories } = await sampled(request, signal);
    return trajectories[0];
  });
  const level = plain.data && levelAt(tables, plain.data[at - 1].t);
  const strength = level && Math.min(100, share * level.sigma);
  const disturbed = useSeenAnswer(
    plain.data,
    `disturbed ${JSON.stringify({ ...request, at, strength })}`,
    async (signal) => {
      const disturb = { at: at - 1, strength };
      const { trajectories } = await sampled({ ...request, disturb }, signal);
      return differences(plain.data, trajectories[0], shape);
    },
  );
  const problem = plain.problem || disturbed.problem;
  return html`
    <div>
      <p>
        Because every step looks anew, an error on the way need not stay. We make the same picture twice, and in the second run
        we add an error to x before one step.
      </p>
      <div class="fields">
        <${Range} label="Error before step" min="1" max=${steps} value=${at} shown=${`${at} of ${steps}`} onChange=${(value) => set({ at: value })} />
        <${Range} label="Size of the error, in units of σ there" min="0.1" max="2" step="0.1" value=${share} onChange=${(value) => set({ share: value })} />
        ${
          takesEta &&
          html`<${Range}
            label="η: the share of fresh noise at every step"
            min="0"
            max="1"
            step="0.25"
            value=${eta}
            hint="0 keeps the noise of step 3; 1 replaces as much of it as a step allows"
            onChange=${(value) => set({ eta: value })}
          />`
        }
      </div>
      ${level && html`<${Formula} says="The error" symbols=${html`x<sub>t</sub> ← x<sub>t</sub> + e, e random with standard deviation ${number(share)} σ`}>= ${number(share)} · ${number(level.sigma)} = ${number(strength)}<//>`}
      <${Waiting} answer=${{ problem, data: disturbed.data }} text="The model makes the picture twice." />
      ${disturbed.data && html`<${Rows} runs=${disturbed.data} at=${at} isFresh=${!takesEta || eta > 0} />`}
    </div>
  `;
}

async function differences(plain, disturbed, shape) {
  return Promise.all(
    plain.map(async ({ t, x0_hat }, i) => {
      const other = disturbed[i].x0_hat;
      const [one, two] = await Promise.all([valuesOf(x0_hat, shape), valuesOf(other, shape)]);
      return { t, x0_hat, other, rmse: Math.sqrt(meanSquare(one, two)) };
    }),
  );
}

function Rows({ runs, at, isFresh }) {
  const columns = runs.map((run, i) => ({ ...run, step: i + 1 }));
  const rmse = runs.map((run) => run.rmse);
  const largest = Math.max(...rmse);
  const peak = rmse.indexOf(largest) + 1;
  const last = rmse.at(-1);
  const row = (name, cell) => html`<tr><th scope="row">${name}</th>${columns.map((each) => html`<td>${cell(each)}</td>`)}</tr>`;
  const image = (source, says) => html`<img src=${base64(source)} alt=${says} />`;
  return html`
    <div class="scroll tall" tabindex="0" role="region" aria-label="Both runs">
      <table class="comparison levels">
        <thead><tr><th scope="col">step</th>${columns.map(({ step }) => html`<th scope="col" class=${step === at ? "here" : ""}>${step}${step === at && " ⚡"}</th>`)}</tr></thead>
        <tbody>
          ${row("x̂₀ undisturbed", ({ step, x0_hat }) => image(x0_hat, `undisturbed, step ${step}`))}
          ${row("x̂₀ disturbed", ({ step, other }) => image(other, `disturbed, step ${step}`))}
          ${row("difference", (each) => number(each.rmse))}
        </tbody>
      </table>
    </div>
    <${Formula} says="The difference" symbols=${html`difference = √ mean of (x̂<sub>0</sub> disturbed − x̂<sub>0</sub> undisturbed)²`}>
      = ${number(largest)} at step ${peak}, ${number(last)} at the end
    <//>
    <p role="status" class="verdict">${verdictOf(largest, last, isFresh)}</p>
    <${Chart}
      x=${columns.map(({ step }) => step)}
      mark=${at}
      xLabel="step"
      height=${180}
      lines=${[{ label: "difference of the two guesses", y: rmse, points: true }]}
      says=${`The difference is 0 before step ${at}, largest at step ${peak} with ${number(largest)}, and ${number(last)} at the end.`}
    />
  `;
}

function verdictOf(largest, last, isFresh) {
  if (largest === 0) return "The error is too small to change anything here.";
  const share = `${Math.round((100 * last) / largest)}%`;
  if (last <= MENDED * largest)
    return `Mended: at the end ${share} of the largest difference is left.`;
  return `Not mended: at the end ${share} of the largest difference is left. ${isFresh ? "The error has led to another picture, which may be as good. Early errors are mended best: the later one comes, the fewer steps are left." : "Without fresh noise nothing replaces the error: it leads to another picture, which may be as good. Raise η."}`;
}
