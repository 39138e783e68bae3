// Trainings side by side: a table of them, their curves, their differences and their samples. The
// address holds which trainings they are and how they are shown.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { Problem, at, get } from "../lib/api.js";
import { MAX_CURVES, Swatch } from "../lib/chart.js";
import { keyed, useAnswer } from "../lib/hooks.js";
import { Page, ProblemText, Status, duration, number } from "../lib/parts.js";
import { bestOf } from "../lib/series.js";
import { JobNotes } from "./notes.js";
import { Curves, Scores } from "./runs_curves.js";
import { Differences, Samples } from "./runs_details.js";

const EVERY = 3000;

/** The address of the page for these jobs. */
export const runsAddress = (jobs) => `#/runs?${new URLSearchParams({ jobs: jobs.join() })}`;

export function Runs({ query }) {
  const ids = (query.jobs ?? "").split(",").filter(Boolean);
  const asked = ids.slice(0, MAX_CURVES);
  const [polls, setPolls] = useState(true);
  const answer = useAnswer(
    asked.length > 0 &&
      keyed(`runs ${asked}`, (signal) => Promise.all(asked.map((id) => runOf(id, signal)))),
    polls ? EVERY : 0,
  );
  const found = answer.data?.filter((run) => run.job);
  const made = found?.filter(({ job }) => job.status === "succeeded") ?? [];
  const models = useAnswer(
    made.length > 0 &&
      keyed(`models ${made.map(({ id }) => id)}`, (signal) =>
        Promise.all(made.map(async ({ job }) => [job.id, await modelOf(job, signal)])),
      ),
  );
  const modelBy = new Map(models.data);
  const missing = answer.data?.filter((run) => !run.job) ?? [];
  const isMoving = found?.some((run) => !run.job.done);
  useEffect(() => {
    if (found) setPolls(isMoving);
  }, [isMoving]);
  const show = (changes) => {
    const next = Object.entries({ ...query, ...changes }).filter(([, value]) => value);
    location.replace(`#/runs?${new URLSearchParams(next)}`); // no entry of the history for a setting
  };
  const runs = found?.map((run, i) => ({
    ...run,
    colour: i,
    name: nameIn(run, found),
    model: modelBy.get(run.id),
  }));
  return html`
    <${Page}
      title="Compare trainings"
      intro="Their curves over each other, what differs in how they were set up, and what each makes at the same step. The address of this page is a link to the same comparison."
      actions=${html`<a class="button" href=${`#/training?${new URLSearchParams({ compare: asked.join() })}`}>Choose others</a>`}
    >
      <${ProblemText} problem=${answer.problem || models.problem} />
      ${
        ids.length > MAX_CURVES &&
        html`<p class="note" role="status">The first ${MAX_CURVES} of ${ids.length} are shown.</p>`
      }
      ${missing.map(({ id, problem }) => html`<p class="problem" role="alert">${id}: ${problem.message}</p>`)}
      ${!asked.length && html`<p class="empty">Tick trainings on the page <a href="#/training">Training</a> first.</p>`}
      ${
        runs?.length > 0 &&
        html`
          <section class="card" aria-label="Trainings">
            <${Table}
              runs=${runs}
              refresh=${answer.refresh}
              drop=${(id) => show({ jobs: asked.filter((each) => each !== id).join() })}
            />
          </section>
          <${Curves} runs=${runs} query=${query} show=${show} />
          <${Samples} runs=${runs} step=${stepOf(query)} />
          <${Differences} runs=${runs} showsAll=${Boolean(query.all)} show=${show} />
          ${(models.data || !made.length) && html`<${Scores} runs=${runs} />`}
        `
      }
    <//>
  `;
}

const stepOf = (query) => (query.step === undefined ? undefined : Number(query.step));

async function runOf(id, signal) {
  try {
    const [job, metrics, { steps }] = await Promise.all([
      get(at`train-jobs/${id}`, signal),
      get(at`train-jobs/${id}/metrics`, signal),
      get(at`train-jobs/${id}/samples`, signal),
    ]);
    return { id, job, metrics, samples: [...steps].sort((a, b) => a - b) };
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    return { id, problem };
  }
}

/** The model that a job made; undefined where it was deleted. */
async function modelOf(job, signal) {
  try {
    const model = await get(at`models/${job.model_name}`, signal);
    return model.job_id === job.id ? model : undefined;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    return undefined;
  }
}

/** The name of its model, and the end of its id where several have made models of that name. */
function nameIn({ id, job }, all) {
  const isOnly = all.filter((other) => other.job.model_name === job.model_name).length === 1;
  return isOnly ? job.model_name : `${job.model_name} (${id.slice(-4)})`;
}

// The table ----------------------------------------------------------------------------------------

function Table({ runs, refresh, drop }) {
  return html`
    <table class="stack runs">
      <thead>
        <tr>
          ${["training", "status", "dataset", "steps", "time", "least held-out error", "tags and notes"].map(
            (title) => html`<th scope="col">${title}</th>`,
          )}
          <th scope="col"><span class="hidden">actions</span></th>
        </tr>
      </thead>
      <tbody>
        ${runs.map((run) => html`<${Row} key=${run.id} run=${run} refresh=${refresh} drop=${drop} />`)}
      </tbody>
    </table>
  `;
}

function Row({ run, refresh, drop }) {
  const { job, metrics, name, colour } = run;
  const last = metrics.steps.at(-1);
  const best = bestOf(metrics);
  return html`
    <tr>
      <th scope="row">
        <span class="key"><${Swatch} colour=${colour} dashed /><a href=${at`#/training/${job.id}`}>${name}</a></span>
      </th>
      <td><${Status} of=${job.status} /></td>
      <td><a href=${at`#/datasets/${job.dataset}`}>${job.dataset}</a></td>
      <td data-title="steps">${last?.step.toLocaleString("en")}</td>
      <td data-title="time">${typeof last?.seconds === "number" && duration(last.seconds)}</td>
      <td data-title="least held-out error">
        ${best && `${number(best.score)} at step ${best.step.toLocaleString("en")}`}
      </td>
      <td><${JobNotes} job=${job} name=${name} refresh=${refresh} /></td>
      <td class="end">
        <button class="small" onClick=${() => drop(job.id)}>Leave out<span class="hidden"> ${name}</span></button>
      </td>
    </tr>
  `;
}
