// One training: its progress, its error, its samples, its set-up and its history.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { useSetting } from "../lib/address.js";
import { at, post } from "../lib/api.js";
import { Chart } from "../lib/chart.js";
import { fieldsOf, shown, valueIn } from "../lib/form.js";
import { go, useAction, useAnswer, useConnection } from "../lib/hooks.js";
import { discard } from "../lib/notices.js";
import {
  Bar,
  ConfirmButton,
  Properties,
  Page,
  Range,
  ProblemText,
  Status,
  bytes,
  duration,
  number,
  when,
} from "../lib/parts.js";
import { NotifyMe } from "../lib/watching.js";
import { JobNotes } from "./notes.js";

const EVENTS = [
  ["queued", "waits for a worker"],
  ["started", "has begun"],
  ["resumed", "goes on"],
  ["preview", "made samples"],
  ["evaluation", "was measured"],
  ["checkpoint", "wrote a checkpoint"],
  ["paused", "is paused"],
  ["requeued", "was given back by its worker"],
  ["lost", "lost its worker"],
  ["completed", "is done"],
  ["error", "has failed"],
  ["cancelled", "is cancelled"],
];
const CURVE_EVERY = 1500;
const SETTLED = 100; // milliseconds; events that arrive together cause one refresh

export function Job({ name: id }) {
  const job = useAnswer(at`train-jobs/${id}`);
  const metrics = useAnswer(at`train-jobs/${id}/metrics`);
  const samples = useAnswer(at`train-jobs/${id}/samples`);
  const checkpoints = useAnswer(at`train-jobs/${id}/checkpoints`);
  const [progress, setProgress] = useState();
  const [events, setEvents] = useState([]);
  useEvents(id, {
    progress: (now) => {
      setProgress(now);
      metrics.refresh();
    },
    event: (event) =>
      setEvents((before) => [...before.filter((e) => e.number !== event.number), event]),
  });
  useEffect(() => {
    if (!events.length) return undefined;
    const timer = setTimeout(() => {
      for (const answer of [job, metrics, samples, checkpoints]) answer.refresh();
    }, SETTLED);
    return () => clearTimeout(timer);
  }, [events.length]);
  if (!job.data) return html`<${Page} title="Training"><${ProblemText} problem=${job.problem} /><//>`;
  const now = { ...job.data.progress, ...(job.data.done ? {} : progress) };
  return html`
    <${Page}
      title=${job.data.model_name}
      intro=${html`<${Origin} job=${job.data} />`}
      actions=${html`<${Actions} job=${job.data} refresh=${job.refresh} />`}
    >
      <${ProblemText} problem=${metrics.problem || samples.problem || checkpoints.problem} />
      <div class="columns">
        <section class="card wide" aria-label="Progress">
          <${Progress} job=${job.data} now=${now} />
          <h2>Tags and notes</h2>
          <${JobNotes} job=${job.data} name=${job.data.model_name} refresh=${job.refresh} />
        </section>
        <section class="card" aria-label="Loss">
          <h2>Loss</h2>
          <${Loss} steps=${metrics.data?.steps ?? []} />
        </section>
        <section class="card" aria-label="Error at each noise level">
          <h2>How well it denoises</h2>
          <${Levels} evaluations=${metrics.data?.evaluations ?? []} />
        </section>
        <section class="card" aria-label="Samples">
          <h2>What it makes</h2>
          <${Samples} id=${id} steps=${samples.data?.steps ?? []} />
        </section>
        <section class="card" aria-label="Choices">
          <h2>How it was set up</h2>
          <${Setup} config=${job.data.config} />
        </section>
        <section class="card wide" aria-label="History">
          <h2>What happened</h2>
          <${History} job=${job.data} events=${events} checkpoints=${checkpoints.data?.items ?? []} />
        </section>
      </div>
    <//>
  `;
}

function Origin({ job }) {
  const dataset = html`<a href=${at`#/datasets/${job.dataset}`}>${job.dataset}</a>`;
  const kind = job.kind.replace("_", "-");
  return html`${kind} on ${dataset}${job.begins_with && `, begun with ${job.begins_with}`}`;
}

/** Follows the job's server-sent events, from the first; the browser reconnects by itself. */
function useEvents(id, { progress, event }) {
  const { epoch } = useConnection();
  const react = useRef({}).current;
  Object.assign(react, { progress, event });
  useEffect(() => {
    const source = new EventSource(at`train-jobs/${id}/events`);
    let last = 0;
    source.addEventListener("progress", ({ data }) => {
      if (Date.now() - last < CURVE_EVERY) return;
      last = Date.now();
      react.progress(JSON.parse(data));
    });
    for (const [type] of EVENTS)
      source.addEventListener(type, ({ data }) => {
        if (data) react.event(JSON.parse(data)); // a broken connection is an `error` without data
        if (["completed", "error", "cancelled"].includes(type) && data) source.close();
      });
    return () => source.close();
  }, [id, epoch]);
}

function Actions({ job, refresh }) {
  const act = useAction(async (what) => {
    await post(at`train-jobs/${job.id}/${what}`);
    refresh();
  });
  const button = (what, text) =>
    html`<button disabled=${act.busy} onClick=${() => act.run(what)}>${text}</button>`;
  const isPaused = job.status === "paused" || job.pause_requested;
  return html`
    <${ProblemText} problem=${act.problem} />
    ${!job.done && (isPaused ? button("resume", "Resume") : button("pause", "Pause"))}
    ${
      !job.done &&
      html`<${ConfirmButton}
        question="Cancel this training? Its checkpoints stay; no model is made."
        yes="Cancel the training"
        disabled=${job.cancel_requested}
        onConfirm=${() => act.run("cancel")}
      >
        Cancel
      <//>`
    }
    ${
      job.status === "succeeded" &&
      html`<a
        class="button primary"
        href=${`#/sample?${new URLSearchParams({ model: job.model_name })}`}
      >Make images</a>`
    }
    ${
      job.done &&
      job.checkpoint_step !== null &&
      html`<a
        class="button"
        href=${`#/training?${new URLSearchParams({ resume_from: job.id })}`}
      >Go on with more time</a>`
    }
    ${
      job.done &&
      html`<${ConfirmButton}
        question="Delete this job with its checkpoints, samples and logs? The model that it made stays."
        yes="Delete"
        onConfirm=${async () => {
          await discard("train-jobs", job.id, `The training of ${job.model_name} is deleted.`);
          go("#/training");
        }}
      >
        Delete
      <//>`
    }
  `;
}

function Progress({ job, now }) {
  const left = job.status === "running" ? now.eta_seconds : null;
  return html`
    <p class="state" role="status">
      <${Status} of=${job.status} />
      ${job.cancel_requested && !job.done && " is being cancelled"}
      ${job.pause_requested && job.status === "running" && " pauses after the next checkpoint"}
      ${job.status === "queued" && ` ${job.waiting ?? "waits for a worker"}`}
      ${left !== null && left !== undefined && html`<strong class="left">${duration(left)} left</strong>`}
    </p>
    ${!job.done && html`<${NotifyMe} />`}
    ${job.warnings.map(
      (warning) => html`<p class="warning">${job.done && "Expected when it began: "}${warning}</p>`,
    )}
    <${Bar} label="Progress" value=${now.progress ?? 0} />
    <${Properties}
      of=${[
        [
          "step",
          now.step &&
            (now.steps
              ? `${now.step.toLocaleString("en")} of ${now.steps.toLocaleString("en")}`
              : now.step.toLocaleString("en")),
        ],
        ["images seen", now.images_seen?.toLocaleString("en")],
        ["loss", number(now.loss)],
        ["images per second", number(now.images_per_second)],
        ["attempts", job.attempts > 1 ? job.attempts : undefined],
      ]}
    />
    ${job.error && html`<p class="problem" role="alert">${job.error.message ?? job.error.code}</p>`}
  `;
}

function Loss({ steps }) {
  if (!steps.length) return html`<p class="empty">No step yet.</p>`;
  const last = steps.at(-1);
  return html`
    <${Chart}
      x=${steps.map((line) => line.step)}
      lines=${[{ label: "loss", y: steps.map((line) => line.loss) }]}
      xLabel="step"
      logY
      height=${220}
      says=${`The training loss over ${last.step} steps, on a logarithmic scale. It began at ${number(steps[0].loss)} and is ${number(last.loss)} now.`}
    />
  `;
}

/** The error over noise levels, at the first evaluation, one halfway and the last. */
function Levels({ evaluations }) {
  const measured = evaluations.filter((evaluation) => evaluation.levels?.length);
  if (!measured.length)
    return html`<p class="empty">Measured at each checkpoint, on images that are held out.</p>`;
  const places = new Set([0, Math.floor((measured.length - 1) / 2), measured.length - 1]);
  const chosen = [...places].map((i) => measured[i]);
  const last = chosen.at(-1);
  const order = last.levels
    .map((_, i) => i)
    .sort((a, b) => noise(last.levels[a]) - noise(last.levels[b]));
  return html`
    <${Chart}
      x=${order.map((i) => noise(last.levels[i]))}
      lines=${chosen.map((evaluation) => ({
        label: `step ${evaluation.step.toLocaleString("en")}`,
        y: order.map((i) => evaluation.levels[i].mse),
        points: true,
      }))}
      xLabel="noise: sigma / alpha"
      logX
      logY
      height=${220}
      says=${`The squared error of the denoised image at ${order.length} noise levels, at ${chosen.length} steps of the training. Its geometric mean at step ${last.step} is ${number(last.score)}.`}
    />
    <p class="note">Squared error on held-out images at each noise level; geometric mean ${number(last.score)}${chosen.length > 1 && `, at first ${number(chosen[0].score)}`}.</p>
  `;
}

const noise = (level) => level.sigma / Math.max(level.alpha, 1e-4);

function Samples({ id, steps }) {
  const [wanted, setWanted] = useSetting("step", 0); // 0: the last
  if (!steps.length) return html`<p class="empty">A grid is made at each checkpoint.</p>`;
  const sorted = [...steps].sort((a, b) => a - b);
  const place = sorted.includes(wanted) ? sorted.indexOf(wanted) : sorted.length - 1;
  const step = sorted[place];
  return html`
    <img
      class="sheet"
      src=${at`train-jobs/${id}/samples/${step}`}
      alt=${`Samples after ${step} steps`}
    />
    <${Range}
      label="After step"
      min="0"
      max=${sorted.length - 1}
      value=${place}
      shown=${step.toLocaleString("en")}
      onChange=${(value) => setWanted(value === sorted.length - 1 ? 0 : sorted[value])}
    />
    <p class="note">Always the same noise and classes, so that only the model changes.</p>
  `;
}

const described = fieldsOf("TrainRequest");

/** The hyperparameters under their labels, first the ones that were chosen, with the reason. */
function Setup({ config }) {
  const { data: fields, problem } = useAnswer(described);
  const rows = (fields ?? []).filter((field) => shown(valueIn(config, field.path)) !== "");
  const isChosen = (field) => field.path in config.reasons;
  rows.sort((a, b) => isChosen(b) - isChosen(a)); // stable: else as the service has them
  return html`
    <${ProblemText} problem=${problem} />
    <div class="scroll" tabindex="0" role="region" aria-label="Choices and reasons">
      <table class="stack">
        <thead><tr><th scope="col">what</th><th scope="col">value</th><th scope="col">why</th></tr></thead>
        <tbody>
          ${rows.map(
            (field) => html`
              <tr key=${field.path}>
                <th scope="row" title=${field.path}>${field.label}</th>
                <td>
                  ${
                    field.parts
                      ? field.parts.map((part) => html`<div>${part.label}: ${text(config, part)}</div>`)
                      : text(config, field)
                  }
                </td>
                <td>${config.reasons[field.path] ?? ""}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

const text = (config, field) => shown(valueIn(config, field.path));

function History({ job, events, checkpoints }) {
  const newest = [...events].sort((a, b) => a.number - b.number).slice(-200);
  return html`
    <div class="columns plain">
      <ol class="history" tabindex="0" aria-label="Events">
        ${newest.map(
          (event) => html`
            <li key=${event.number}>
              <time datetime=${event.at}>${new Date(event.at).toLocaleTimeString("en-GB")}</time>
              ${Object.fromEntries(EVENTS)[event.type]}${event.data.step > 0 && ` at step ${event.data.step.toLocaleString("en")}`}
            </li>
          `,
        )}
      </ol>
      <div>
        <${Properties}
          of=${[
            ["job", html`<code>${job.id}</code>`],
            ["begun", job.started_at && when(job.started_at)],
            ["ended", job.finished_at && when(job.finished_at)],
            [
              "checkpoints",
              checkpoints
                .map((c) => `${c.step.toLocaleString("en")}${c.best ? " (best)" : ""}`)
                .join(", "),
            ],
            [
              "their size",
              checkpoints.length
                ? bytes(checkpoints.reduce((sum, c) => sum + c.num_bytes, 0))
                : undefined,
            ],
          ]}
        />
        <p class="links">
          <a href=${at`train-jobs/${job.id}/log`}>Log</a>
          ${
            job.checkpoint_step !== null &&
            html`<a
              href=${at`train-jobs/${job.id}/tensorboard`}
              download
            >File for TensorBoard</a>`
          }
        </p>
      </div>
    </div>
  `;
}
