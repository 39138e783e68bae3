// Start a training, and those of before.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { all, at, pagesOf, post } from "../lib/api.js";
import { go, keyed, useAction, useAnswer } from "../lib/hooks.js";
import { Bar, Input, Page, Said, Select, Status, duration, given, when } from "../lib/parts.js";

const AUTO = ["", "chosen from the data"];
const YES_NO = [AUTO, ["true", "yes"], ["false", "no"]];

/** [field of POST /train-jobs, label, options of a select or an input's type, hint] */
const FIELDS = [
  ["model_name", "Name of the model", "text"],
  ["steps", "At most so many steps", "number"],
  ["preset", "Preset", [AUTO, "edm", "ddpm"]],
  ["image_size", "Side of the images", "number"],
  ["class_conditional", "Learn the classes", YES_NO],
  ["net/block_out_channels", "Channels of the net", "text"],
  ["net/dropout", "Dropout", "number"],
  ["batch_size", "Batch size", "number"],
  ["learning_rate", "Learning rate", "number"],
  ["augmentation", "Augmented share of the images", "number"],
  ["horizontal_flip", "Learn from mirror images too", YES_NO],
  ["prediction_type", "What the net predicts", [AUTO, "epsilon", "x0", "v", "flow", "edm"]],
  ["loss_weighting", "Weighting of the noise levels", [AUTO, "uniform", "min_snr", "learned"]],
  ["checkpoint_every", "Steps between checkpoints", "number"],
  ["seed", "Seed", "number"],
  [
    "keep",
    "Weights that become the model",
    [
      ["", "the last"],
      ["best", "the best on held-out images"],
    ],
  ],
  ["priority", "Priority, where jobs wait", "number", "0 to 9; 5 where left out"],
];

export function Training({ query }) {
  return html`
    <${Page}
      title="Training"
      intro="Say which images, and how long. The learning rate falls to zero at the end of the time, so that more time is a better model, not a longer wait for the same one."
    >
      <${Begin} query=${query} />
      <section aria-label="Jobs">
        <h2>Jobs</h2>
        <${Jobs} />
      </section>
    <//>
  `;
}

/** The newest, and older ones when asked for. */
function Jobs() {
  const [pages, setPages] = useState(1);
  const jobs = useAnswer(
    keyed(`jobs ${pages}`, (signal) => pagesOf("train-jobs", "id", pages, signal)),
    2000,
  );
  const { items, has_more } = jobs.data ?? {};
  return html`
    <${Said} problem=${jobs.problem} />
    ${items && !items.length && html`<p class="empty">Nothing has been trained here yet.</p>`}
    <ul class="rows">
      ${items?.map((job) => html`<${Row} key=${job.id} job=${job} />`)}
    </ul>
    ${has_more && html`<button class="more" onClick=${() => setPages(pages + 1)}>Older ones</button>`}
  `;
}

function Row({ job }) {
  const { progress = 0, eta_seconds: left } = job.progress;
  const isRunning = job.status === "running";
  return html`
    <li class="card row">
      <a href=${at`#/training/${job.id}`}>${job.model_name}</a>
      <${Status} of=${job.status} />
      <span>${job.kind.replace("_", "-")} · ${job.dataset}</span>
      ${
        isRunning
          ? html`<${Bar} label=${`Progress of ${job.model_name}`} value=${progress} />`
          : html`<span>${when(job.created_at)}</span>`
      }
      ${isRunning && left !== null && left !== undefined && html`<span>${duration(left)} left</span>`}
    </li>
  `;
}

const everything = keyed("datasets and models", async (signal) => ({
  datasets: (await all("datasets", "name", signal)).map((d) => d.name),
  models: (await all("models", "name", signal)).map((m) => m.name),
}));

function Begin({ query }) {
  const { data: known, problem: unknown } = useAnswer(everything);
  const [dataset, setDataset] = useState(query.dataset);
  const [minutes, setMinutes] = useState("2");
  const [begins, setBegins] = useState(beginning(query));
  const [fields, setFields] = useState({});
  const chosen = dataset ?? known?.datasets[0];
  const isOpen = Object.values(fields).some(Boolean);

  const request = requestOf({
    dataset: begins.startsWith("resume_from") ? undefined : chosen,
    minutes,
    begins,
    fields,
  });
  const settled = useSettled(JSON.stringify(request), 300);
  const plan = useAnswer(
    isWhole(JSON.parse(settled)) &&
      keyed(settled, () => post("train-jobs/plan", JSON.parse(settled))),
  );
  const start = useAction(async () => {
    const job = await post("train-jobs", request);
    go(at`#/training/${job.id}`);
  });
  const problem = start.problem ?? plan.problem;
  const of = (field) => problem?.of?.(field);
  if (!known) return html`<${Said} problem=${unknown} />`;
  if (!known.datasets.length && !begins)
    return html`<p class="card">There is nothing to learn from yet. <a href="#/datasets">Upload images</a> first.</p>`;
  const named = ["dataset", "minutes", ...FIELDS.map(([field]) => field)];
  const isNamed = named.some(of);

  return html`
    <form
      class="card"
      aria-label="New training"
      onSubmit=${(event) => {
        event.preventDefault();
        start.run();
      }}
    >
      <div class="line">
        ${
          begins.startsWith("resume_from")
            ? html`<p>Goes on from <a href=${at`#/training/${query.resume_from}`}>an earlier job</a>; the minutes are the new total.</p>`
            : html`<${Select}
              label="Dataset"
              value=${chosen}
              options=${known.datasets}
              error=${of("dataset")}
              onChange=${setDataset}
            />`
        }
        <${Input}
          label="Minutes"
          type="number"
          min="0.05"
          step="any"
          value=${minutes}
          error=${of("minutes")}
          onChange=${setMinutes}
        />
        <button class="primary" disabled=${start.busy}>Train</button>
      </div>
      ${!isNamed && html`<${Said} problem=${problem} />`}
      <details open=${isOpen}>
        <summary>Everything else, and why</summary>
        ${
          !begins.startsWith("resume_from") &&
          html`<${Select}
            label="Begins with"
            value=${begins}
            options=${beginnings(known.models)}
            onChange=${setBegins}
          />`
        }
        <div class="fields">
          ${FIELDS.map(
            ([field, label, kind, hint]) => html`
              <${Choice}
                key=${field}
                field=${field}
                label=${label}
                kind=${kind}
                hint=${hint}
                plan=${plan.data}
                value=${fields[field] ?? ""}
                error=${of(field)}
                onChange=${(value) => setFields({ ...fields, [field]: value })}
              />
            `,
          )}
        </div>
      </details>
    </form>
  `;
}

/** A field with what is chosen where it is left alone, and the reason. */
function Choice({ field, label, kind, hint, plan, value, error, onChange }) {
  const reason = plan?.config.reasons[field.split("/")[0]];
  const chosen =
    plan && shown(field === "model_name" ? plan.model_name : valueIn(plan.config, field));
  const parts = { label, hint: [hint, reason].filter(Boolean).join("; "), error, value, onChange };
  if (Array.isArray(kind)) {
    const options = kind.map((option) =>
      option === AUTO && chosen ? ["", `${chosen} (chosen)`] : option,
    );
    return html`<${Select} ...${parts} options=${options} />`;
  }
  return html`<${Input} ...${parts} type=${kind} step="any" placeholder=${chosen} />`;
}

function valueIn(config, field) {
  if (field === "class_conditional") return config.class_names.length > 0;
  if (field === "image_size") return config.image_size.join(" × ");
  return field.split("/").reduce((part, name) => part?.[name], config);
}

function shown(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ");
  return value === null || value === undefined ? "" : `${value}`;
}

// From the fields to a request ---------------------------------------------------------------------

function beginning(query) {
  for (const how of ["resume_from", "fine_tune", "distill"])
    if (query[how]) return `${how} ${query[how]}`;
  return "";
}

const beginnings = (models) => [
  ["", "random weights"],
  ...models.map((name) => [`fine_tune ${name}`, `what ${name} knows (fine-tuning)`]),
  ...models.map((name) => [`distill ${name}`, `${name}, to sample in 1 to 4 steps (distilling)`]),
];

function requestOf({ dataset, minutes, begins, fields }) {
  const request = { dataset, minutes: given(minutes) };
  const [how, whose] = begins.split(" ");
  if (how) request[how] = how === "resume_from" ? { job: whose } : whose;
  for (const [field, text] of Object.entries(fields)) {
    const [name, part] = field.split("/");
    const value = valueOf(field, text);
    if (value === undefined) continue;
    if (part) request[name] = { ...request[name], [part]: value };
    else request[name] = value;
  }
  return request;
}

const isWhole = (request) => request.dataset || request.distill || request.resume_from;

function valueOf(field, text) {
  if (text === "true" || text === "false") return text === "true";
  if (field === "model_name") return text || undefined;
  if (field === "net/block_out_channels" && text)
    return text.split(/[ ,]+/).filter(Boolean).map(given);
  return given(text);
}

/** The value once it has stopped to change. */
function useSettled(value, milliseconds) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}
