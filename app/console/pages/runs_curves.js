// The curves of several trainings over each other, and their export.

import { html, useRef } from "../vendor/htm-preact.js";
import { Chart, DASHES, Swatch } from "../lib/chart.js";
import { save } from "../lib/files.js";
import { useAction } from "../lib/hooks.js";
import { ProblemText, Range, Select, number } from "../lib/parts.js";
import { posterOf } from "../lib/poster.js";
import { AXES, curveOf, lastAt, smoothed, toCsv } from "../lib/series.js";

const SMOOTH = 0.6;
const HEIGHT = 240;

export function Curves({ runs, query, show }) {
  const plots = useRef(new Map()).current;
  const axis = AXES.some(([name]) => name === query.x) ? query.x : "step";
  const weight = query.smooth === undefined ? SMOOTH : Math.min(0.99, Number(query.smooth) || 0);
  const isLinear = query.scale === "linear";
  const steps = stepsOf(runs);
  const step = query.step === undefined ? undefined : Number(query.step);
  const put = (heading) => (plot) => (plot ? plots.set(heading, plot) : plots.delete(heading));
  const common = { runs, axis, isLinear, put };
  return html`
    <section class="card controls" aria-label="How it is shown">
      <div class="fields">
        <${Select}
          label="Against"
          value=${axis}
          options=${AXES}
          onChange=${(x) => show({ x: x === "step" ? undefined : x })}
        />
        <${Select}
          label="Scale of errors"
          value=${isLinear ? "linear" : "log"}
          options=${[
            ["log", "logarithmic"],
            ["linear", "linear"],
          ]}
          onChange=${(scale) => show({ scale: scale === "log" ? undefined : scale })}
        />
        <${Range}
          label="Smoothing of the loss"
          min="0"
          max="0.99"
          step="0.01"
          value=${weight}
          shown=${weight.toFixed(2)}
          onChange=${(smooth) => show({ smooth: smooth === SMOOTH ? undefined : `${smooth}` })}
        />
        ${steps.length > 0 && html`<${StepSlider} steps=${steps} step=${step} show=${show} />`}
      </div>
      <div class="line legend">
        ${runs.map(
          (run) =>
            html`<span class="key" key=${run.id}><${Swatch} colour=${run.colour} dashed />${run.name}</span>`,
        )}
        <${Exports} runs=${runs} plots=${plots} />
      </div>
      ${
        axis === "minutes" &&
        runs
          .filter((run) => run.metrics.steps.some((line) => typeof line.seconds !== "number"))
          .map((run) => html`<p class="note" role="status">The time of ${run.name} is not known.</p>`)
      }
    </section>
    <div class="columns">
      <section class="card" aria-label="Loss">
        <h2>Loss</h2>
        <${Loss} ...${common} weight=${weight} />
      </section>
      <section class="card" aria-label="Held-out error">
        <h2>Held-out error</h2>
        <${HeldOut} ...${common} />
      </section>
      <section class="card wide" aria-label="Held-out error by noise level">
        <h2>Held-out error by noise level</h2>
        <${Levels} ...${common} step=${step} />
      </section>
    </div>
  `;
}

/** The steps at which one of the runs made samples or was measured. */
function stepsOf(runs) {
  const all = runs.flatMap((run) => [
    ...run.samples,
    ...run.metrics.evaluations.map((each) => each.step),
  ]);
  return [...new Set(all)].sort((a, b) => a - b);
}

/** Which step the samples and the error by noise level are of; the last one is each run's own. */
function StepSlider({ steps, step, show }) {
  const after = steps.findIndex((each) => each > (step ?? Infinity));
  const place = after < 0 ? steps.length : Math.max(0, after - 1);
  return html`<${Range}
    label="Samples and noise levels at step"
    min="0"
    max=${steps.length}
    value=${step === undefined ? steps.length : Math.min(place, steps.length - 1)}
    shown=${step === undefined ? "last" : step.toLocaleString("en")}
    onChange=${(value) => show({ step: value < steps.length ? `${steps[value]}` : undefined })}
  />`;
}

function Loss({ runs, axis, isLinear, weight, put }) {
  const curves = runs.map((run) => ({ run, ...curveOf(run.metrics.steps, axis, (line) => line.loss) }));
  const shown = curves.filter(({ x }) => x.length);
  if (!shown.length) return html`<p class="empty">No step yet.</p>`;
  const raw = shown.map(({ run, x, y }) => ({ ...lineOf(run), x, y, faint: true }));
  const smooth = shown.map(({ run, x, y }) => ({ ...lineOf(run), x, y: smoothed(y, weight) }));
  return html`<${Chart}
    lines=${weight > 0 ? [...raw, ...smooth] : smooth}
    xLabel=${labelOf(axis)}
    logY=${!isLinear}
    height=${HEIGHT}
    hasLegend=${false}
    reads
    onPlot=${put("Loss")}
    says=${`The training loss of ${namesOf(shown)} against ${labelOf(axis)}. ${lastOf(smooth)}`}
  />`;
}

function HeldOut({ runs, axis, isLinear, put }) {
  const curves = runs.map((run) => ({
    ...lineOf(run),
    run,
    points: true,
    ...curveOf(run.metrics.evaluations, axis, (line) => line.score),
  }));
  const shown = curves.filter(({ x }) => x.length);
  if (!shown.length)
    return html`<p class="empty">Measured at each checkpoint, on images that are held out.</p>`;
  return html`
    <${Chart}
      lines=${shown}
      xLabel=${labelOf(axis)}
      logY=${!isLinear}
      height=${HEIGHT}
      hasLegend=${false}
      reads
      onPlot=${put("Held-out error")}
      says=${`The error on held-out images of ${namesOf(shown)} against ${labelOf(axis)}. ${lastOf(shown)}`}
    />
    <p class="note">The geometric mean over all noise levels; less is better. Compare it only between trainings on the same dataset and with the same noise schedule.</p>
  `;
}

function Levels({ runs, isLinear, step, put }) {
  const measured = runs
    .map((run) => ({ run, found: lastAt(run.metrics.evaluations, step) }))
    .filter(({ found }) => found?.levels?.length);
  if (!measured.length) return html`<p class="empty">Nothing is measured by then.</p>`;
  const lines = measured.map(({ run, found }) => {
    const levels = found.levels.map(({ alpha, sigma, mse }) => [sigma / Math.max(alpha, 1e-4), mse]);
    levels.sort(([a], [b]) => a - b);
    return { ...lineOf(run), points: true, x: levels.map(([x]) => x), y: levels.map(([, y]) => y) };
  });
  return html`
    <${Chart}
      lines=${lines}
      xLabel="noise: sigma / alpha"
      logX
      logY=${!isLinear}
      height=${HEIGHT}
      hasLegend=${false}
      reads
      onPlot=${put("Held-out error by noise level")}
      says=${`The squared error of the denoised image at each noise level, of ${namesOf(measured)}.`}
    />
    <p class="note">${measured.map(({ run, found }) => `${run.name}: step ${found.step.toLocaleString("en")}`).join(" · ")}</p>
  `;
}

const lineOf = (run) => ({ label: run.name, colour: run.colour, dashed: true });
const labelOf = (axis) => AXES.find(([name]) => name === axis)[1];
const namesOf = (curves) => curves.map(({ run }) => run.name).join(", ");
const lastOf = (lines) =>
  `It is now ${lines.map(({ label, y }) => `${number(y.at(-1))} for ${label}`).join(", ")}.`;

// Export -------------------------------------------------------------------------------------------

function Exports({ runs, plots }) {
  const poster = useAction(async () => {
    const legend = runs.map(({ name, colour }) => ({ text: name, colour, dash: DASHES[colour] }));
    const order = ["Loss", "Held-out error", "Held-out error by noise level"];
    const charts = order
      .filter((heading) => plots.has(heading))
      .map((heading) => ({ heading, plot: plots.get(heading) }));
    save(await posterOf("Trainings side by side", legend, charts), "trainings.png");
  });
  return html`
    <div class="actions end">
      <button
        onClick=${() => save(new Blob([toCsv(runs)], { type: "text/csv" }), "trainings.csv")}
      >Export as CSV</button>
      <button disabled=${poster.busy} onClick=${poster.run}>Export as PNG</button>
    </div>
    <${ProblemText} problem=${poster.problem} />
  `;
}

// Scores of the models -----------------------------------------------------------------------------

const SCORES = [
  ["Frechet distance", (score) => score.made?.frechet],
  ["kernel distance", (score) => score.made?.kernel],
  ["Frechet distance of pixels", (score) => score.made?.pixel_frechet],
  ["precision", (score) => score.made?.precision],
  ["recall", (score) => score.made?.recall],
  ["class seen", (score) => score.class_agreement],
  ["to the nearest training image", (score) => score.memorisation?.made],
];

/** What evaluations say of the models that the runs have made, a column for each and precision. */
export function Scores({ runs }) {
  const columns = runs.flatMap((run) =>
    Object.entries(run.model?.details.scores ?? {}).map(([precision, score]) => ({
      run,
      precision,
      score,
    })),
  );
  return html`
    <section class="card" aria-label="Scores">
      <h2>Scores of their models</h2>
      ${
        columns.length === 0
          ? html`<p class="empty">None of their models is measured yet. <a href="#/models">Models</a> has a button for it.</p>`
          : html`<div class="scroll" tabindex="0" role="region" aria-label="Table of scores">
            <table>
              <thead>
                <tr>
                  <th scope="col">score</th>
                  ${columns.map(
                    ({ run, precision }) =>
                      html`<th scope="col"><${Swatch} colour=${run.colour} dashed /> ${run.name}<br />${precision}</th>`,
                  )}
                </tr>
              </thead>
              <tbody>
                ${SCORES.filter(([, of]) => columns.some(({ score }) => typeof of(score) === "number")).map(
                  ([title, of]) => html`<tr>
                    <th scope="row">${title}</th>
                    ${columns.map(({ score }) => html`<td>${number(of(score))}</td>`)}
                  </tr>`,
                )}
              </tbody>
            </table>
          </div>`
      }
    </section>
  `;
}
