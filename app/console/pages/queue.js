// What runs and what waits for a worker, of all kinds of jobs, with places and times.

import { html } from "../vendor/htm-preact.js";
import { useAnswer } from "../lib/hooks.js";
import { Bar, ProblemText, countOf, duration } from "../lib/parts.js";

const EVERY = 3000;
const FEW = 10; // shown at first
const KINDS = {
  "train-jobs": "training",
  "sample-jobs": "order of images",
  evaluations: "evaluation",
  "dataset-imports": "fetches a dataset",
};
const PAGES = { "sample-jobs": "#/sample", evaluations: "#/models", "dataset-imports": "#/datasets" };

/** Nothing while nothing runs or waits. */
export function Queue() {
  const { data, problem } = useAnswer("queue", EVERY);
  if (!data) return html`<${ProblemText} problem=${problem} />`;
  const others = data.other_running + data.other_waiting;
  if (!data.items.length && !others) return null;
  return html`
    <section aria-label="Queue">
      <h2>Queue</h2>
      ${
        data.items.length > 0 &&
        html`<ol class="rows queue">
          ${data.items.slice(0, FEW).map((job) => html`<${Item} key=${job.id} job=${job} />`)}
        </ol>`
      }
      ${
        data.items.length > FEW &&
        html`<details>
          <summary>${data.items.length - FEW} more</summary>
          <ol class="rows queue">
            ${data.items.slice(FEW).map((job) => html`<${Item} key=${job.id} job=${job} />`)}
          </ol>
        </details>`
      }
      ${
        others > 0 &&
        html`<p class="note">${countOf(data.other_running, "job")} of others ${data.other_running === 1 ? "runs" : "run"}, ${data.other_waiting} ${data.other_waiting === 1 ? "waits" : "wait"}. Owners take turns.</p>`
      }
    </section>
  `;
}

function Item({ job }) {
  const page = PAGES[job.collection] ?? `#/training/${job.id}`;
  const left = job.seconds_left;
  return html`
    <li class="card row">
      <span class="place">${job.waits ? ordinal(job.position) : "now"}</span>
      <a href=${page}>${job.name}</a>
      <span>${KINDS[job.collection]}</span>
      ${
        job.waits
          ? html`<span>${whenItBegins(job)}</span>`
          : html`<${Bar} label=${`Progress of the ${KINDS[job.collection]} ${job.name}`} value=${job.progress} />`
      }
      ${left !== null && html`<span class="end">${job.waits ? `takes about ${rough(left)}` : `about ${rough(left)} left`}</span>`}
    </li>
  `;
}

function whenItBegins({ waiting, starts_in_seconds: seconds, position }) {
  if (waiting) return `waits: ${waiting}`;
  if (seconds === null)
    return position === 1 ? "begins when a worker is free" : "begins after those before it";
  return seconds < 5 ? "begins at any moment" : `begins in about ${rough(seconds)}`;
}

/** A duration as exact as an estimate can be. */
function rough(seconds) {
  if (seconds < 60) return duration(Math.max(5, 5 * Math.round(seconds / 5)));
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return duration(600 * Math.round(seconds / 600));
}

function ordinal(n) {
  const tens = n % 100;
  const ending = tens > 10 && tens < 14 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return `${n}${ending}`;
}
