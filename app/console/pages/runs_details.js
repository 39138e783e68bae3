// What differs between trainings, and what each makes at the same step.

import { html } from "../vendor/htm-preact.js";
import { at } from "../lib/api.js";
import { Swatch } from "../lib/chart.js";
import { fieldsOf, leaves, shown, valueIn } from "../lib/form.js";
import { useAnswer } from "../lib/hooks.js";
import { ProblemText } from "../lib/parts.js";

const described = fieldsOf("TrainRequest");

// Beside the fields of the config.
const OF_THE_JOB = [
  ["Dataset", (job) => job.dataset],
  ["Version of the dataset", (job) => job.dataset_version],
  ["Kind", (job) => job.kind.replace("_", "-")],
  ["Begins with", (job) => job.begins_with ?? job.resumed_from?.job],
  ["Weights that become the model", (job) => job.keep],
];

/** The settings in which the runs differ, or all of them. */
export function Differences({ runs, showsAll, show }) {
  const { data: fields, problem } = useAnswer(described);
  const rows = [
    ...OF_THE_JOB.map(([label, of]) => rowOf(label, runs, ({ job }) => of(job))),
    ...(fields ?? []).flatMap((field) =>
      leaves([field]).map((leaf) =>
        rowOf(
          leaf === field ? field.label : `${field.label}: ${leaf.label}`,
          runs,
          ({ job }) => valueIn(job.config, leaf.path),
        ),
      ),
    ),
  ].filter(({ texts }) => texts.some(Boolean));
  const differing = rows.filter(({ differs }) => differs);
  const listed = showsAll ? rows : differing;
  return html`
    <section class="card" aria-label="What differs">
      <h2>What differs</h2>
      <${ProblemText} problem=${problem} />
      <label class="check"><input
        type="checkbox"
        checked=${showsAll}
        onChange=${(event) => show({ all: event.target.checked ? "1" : undefined })}
      />Show all settings, the equal ones, too</label>
      ${fields && !listed.length && html`<p class="empty">They were set up in the same way.</p>`}
      ${
        listed.length > 0 &&
        html`<div class="scroll" tabindex="0" role="region" aria-label="Table of settings">
          <table>
            <thead>
              <tr>
                <th scope="col">setting</th>
                ${runs.map(
                  (run) => html`<th scope="col"><${Swatch} colour=${run.colour} dashed /> ${run.name}</th>`,
                )}
              </tr>
            </thead>
            <tbody>
              ${listed.map(
                ({ label, texts, differs }) => html`
                  <tr key=${label} class=${showsAll && differs ? "differs" : ""}>
                    <th scope="row">${label}</th>
                    ${texts.map((text) => html`<td>${text || "–"}</td>`)}
                  </tr>
                `,
              )}
            </tbody>
          </table>
        </div>`
      }
    </section>
  `;
}

function rowOf(label, runs, of) {
  const texts = runs.map((run) => shown(of(run)));
  return { label, texts, differs: new Set(texts).size > 1 };
}

/** The grid of each run at a step, or at the last one before it that has one. */
export function Samples({ runs, step }) {
  const isAny = runs.some((run) => run.samples.length);
  return html`
    <section class="card" aria-label="Samples">
      <h2>What they make${step !== undefined && ` at step ${step.toLocaleString("en")}`}</h2>
      ${!isAny && html`<p class="empty">A grid is made at each checkpoint.</p>`}
      ${isAny && html`<div class="side-by-side">${runs.map((run) => html`<${Grid} key=${run.id} run=${run} step=${step} />`)}</div>`}
      ${isAny && html`<p class="note">Each training has the same noise and classes at every step.</p>`}
    </section>
  `;
}

function Grid({ run, step }) {
  const found = run.samples.filter((each) => step === undefined || each <= step).at(-1);
  const isEarlier = step !== undefined && found !== step;
  return html`
    <figure>
      ${
        found === undefined
          ? html`<div class="sheet"><p class="empty">no samples by then</p></div>`
          : html`<img
              class="sheet"
              src=${at`train-jobs/${run.id}/samples/${found}`}
              alt=${`Samples of ${run.name} after ${found} steps`}
            />`
      }
      <figcaption>
        <span class="key"><${Swatch} colour=${run.colour} dashed />${run.name}</span>
        ${found !== undefined && `after step ${found.toLocaleString("en")}${isEarlier ? ", its last one before" : ""}`}
      </figcaption>
    </figure>
  `;
}
