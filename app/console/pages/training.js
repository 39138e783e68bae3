// The form that starts a training, and the list of trainings.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { keep, useSetting } from "../lib/address.js";
import { all, at, pagesOf, post } from "../lib/api.js";
import { MAX_CURVES } from "../lib/chart.js";
import { fieldsOf, leaves, shown, valueIn, valueOf } from "../lib/form.js";
import { go, keyed, useAction, useAnswer } from "../lib/hooks.js";
import { Bar, Input, Page, ProblemText, Select, Status, duration, given, when } from "../lib/parts.js";
import { Tags } from "./notes.js";
import { Queue } from "./queue.js";
import { runsAddress } from "./runs.js";

const described = fieldsOf("TrainRequest");
const AUTO = "chosen from the data";
const YES_NO = [
  ["true", "yes"],
  ["false", "no"],
];
const AT_ONCE = 50; // jobs
const AT_THE_TOP = ["minutes"]; // above the other fields, beside the button

export function Training({ query }) {
  return html`
    <${Page}
      title="Training"
      intro="Say which images, and how long. The learning rate falls to zero at the end of the time, so that more time is a better model, not a longer wait for the same one."
    >
      <${Begin} key=${JSON.stringify({ ...query, compare: "", tag: "" })} query=${query} />
      <${Queue} />
      <section aria-label="Jobs">
        <h2>Jobs</h2>
        <${Jobs} query=${query} />
      </section>
    <//>
  `;
}

/** The newest jobs; a button shows older ones. Those that are ticked can be compared. */
function Jobs({ query }) {
  const [pages, setPages] = useState(1);
  const [ticked, setTicked] = useState((query.compare ?? "").split(",").filter(Boolean));
  const { tag } = query;
  const only = { limit: AT_ONCE, ...(tag !== undefined && { tag }) };
  const jobs = useAnswer(
    keyed(`jobs ${pages} ${tag}`, (signal) => pagesOf("train-jobs", "id", pages, signal, only)),
    2000,
  );
  const { items, has_more } = jobs.data ?? {};
  const tick = (id) =>
    setTicked(ticked.includes(id) ? ticked.filter((each) => each !== id) : [...ticked, id]);
  return html`
    <${ProblemText} problem=${jobs.problem} />
    ${tag !== undefined && html`<p>Those with the tag <strong>${tag}</strong>. <a href="#/training">Show all</a></p>`}
    ${items && !items.length && tag === undefined && html`<p class="empty">Nothing has been trained here yet.</p>`}
    ${(items?.length > 1 || ticked.length > 0) && html`<${Compare} ticked=${ticked} untick=${() => setTicked([])} />`}
    <ul class="rows">
      ${items?.map(
        (job) => html`<${Row}
          key=${job.id}
          job=${job}
          isTicked=${ticked.includes(job.id)}
          onTick=${() => tick(job.id)}
        />`,
      )}
    </ul>
    ${has_more && html`<button class="more" onClick=${() => setPages(pages + 1)}>Older ones</button>`}
  `;
}

/** Leads to the page of the ticked jobs. */
function Compare({ ticked, untick }) {
  const count = ticked.length;
  const isTooMany = count > MAX_CURVES;
  return html`
    <div class="line compare" role="group" aria-label="Compare">
      ${
        count > 1 &&
        !isTooMany &&
        html`<button class="primary" onClick=${() => go(runsAddress(ticked))}>Compare ${count} trainings</button>`
      }
      ${count > 0 && html`<button onClick=${untick}>Untick all</button>`}
      <p class="note">
        ${isTooMany ? `At most ${MAX_CURVES} can be compared.` : count < 2 && "Tick two or more to see them side by side."}
      </p>
    </div>
  `;
}

function Row({ job, isTicked, onTick }) {
  const { progress = 0, eta_seconds: left } = job.progress;
  const isRunning = job.status === "running";
  return html`
    <li class="card row">
      <input
        type="checkbox"
        aria-label=${`Compare ${job.model_name}`}
        checked=${isTicked}
        onChange=${onTick}
      />
      <a href=${at`#/training/${job.id}`}>${job.model_name}</a>
      <${Status} of=${job.status} />
      <span>${job.kind.replace("_", "-")} · ${job.dataset}</span>
      ${
        isRunning
          ? html`<${Bar} label=${`Progress of ${job.model_name}`} value=${progress} />`
          : html`<span>${when(job.created_at)}</span>`
      }
      ${isRunning && left !== null && left !== undefined && html`<span>${duration(left)} left</span>`}
      <${Tags} of=${job.tags} />
    </li>
  `;
}

const everything = keyed("datasets and models", async (signal) => ({
  datasets: (await all("datasets", "name", signal)).map((d) => d.name),
  models: (await all("models", "name", signal)).map((m) => m.name),
}));

function Begin({ query }) {
  const { data: known, problem: unknown } = useAnswer(everything);
  const { data: fields, problem: undescribed } = useAnswer(described);
  const [dataset, setDataset] = useSetting("dataset", undefined);
  const [typed, setMinutes] = useSetting("minutes", undefined);
  const [begins, setBegins] = useState(beginning(query));
  const [texts, setTexts] = useState(textsOf(query));
  const begin = (how) => {
    setBegins(how);
    const [kind, whose] = how.split(" ");
    keep({ ...Object.fromEntries(BEGINNINGS.map((each) => [each])), ...(how && { [kind]: whose }) });
  };
  const write = (path) => (text) => {
    setTexts({ ...texts, [path]: text });
    keep({ [path]: text });
  };
  const chosen = dataset ?? known?.datasets[0];
  const isOpen = Object.values(texts).some(Boolean);
  const usual = useUsualMinutes(chosen, begins);
  const minutes = typed ?? usual;

  const request = requestOf({
    dataset: begins.startsWith("resume_from") ? undefined : chosen,
    minutes,
    begins,
    fields: leaves(fields ?? []),
    texts,
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
  if (!known || !fields) return html`<${ProblemText} problem=${unknown || undescribed} />`;
  if (!known.datasets.length && !begins)
    return html`<p class="card">There is nothing to learn from yet. <a href="#/datasets">Upload images</a> first.</p>`;
  const isNamed = ["dataset", ...leaves(fields).map((field) => field.path)].some(of);
  const minutesField = fields.find((field) => field.path === "minutes");
  const reasons = plan.data?.config.reasons ?? {};
  const choice = (field) => html`
    <${Choice}
      key=${field.path}
      field=${field}
      plan=${plan.data}
      value=${texts[field.path] ?? ""}
      error=${of(field.path)}
      onChange=${write(field.path)}
    />
  `;

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
          label=${minutesField.label}
          type="number"
          min=${minutesField.min}
          max=${minutesField.max}
          step="any"
          value=${minutes}
          error=${of("minutes")}
          onChange=${setMinutes}
        />
        <button class="primary" disabled=${start.busy}>Train</button>
      </div>
      ${!isNamed && html`<${ProblemText} problem=${problem} />`}
      ${plan.data?.warnings.map((warning) => html`<p class="warning" role="status">${warning}</p>`)}
      ${plan.data?.waiting && html`<p class="note" role="status">A job can be started, but ${plan.data.waiting}.</p>`}
      <details open=${isOpen}>
        <summary>Everything else, and why</summary>
        ${
          !begins.startsWith("resume_from") &&
          html`<${Select}
            label="Begins with"
            value=${begins}
            options=${beginnings(known.models)}
            onChange=${begin}
          />`
        }
        <div class="fields">
          ${fields.filter((field) => !field.parts && !AT_THE_TOP.includes(field.path)).map(choice)}
        </div>
        ${fields
          .filter((field) => field.parts)
          .map(
            (group) => html`
              <fieldset class="group" key=${group.path}>
                <legend>${group.label}</legend>
                ${reasons[group.path] && html`<p class="note">${reasons[group.path]}</p>`}
                <div class="fields">${group.parts.map(choice)}</div>
              </fieldset>
            `,
          )}
      </details>
    </form>
  `;
}

/** The text of the least minutes for images like those of the data, as the service estimates them. */
function useUsualMinutes(dataset, begins) {
  const goesOn = begins.startsWith("resume_from"); // the minutes are a new total
  const request = requestOf({ dataset, begins, fields: [], texts: {} });
  const plan = useAnswer(
    !goesOn &&
      isWhole(request) &&
      keyed(`usual ${JSON.stringify(request)}`, () => post("train-jobs/plan", request)),
  );
  if (goesOn || !plan.data) return goesOn ? "2" : "";
  return `${plan.data.good_minutes ?? plan.data.config.minutes}`;
}

/** A field with the value that is chosen where it is left empty, and the reason. */
function Choice({ field, plan, value, error, onChange }) {
  const { path, label, about, type, min, max, fallback } = field;
  const planned = plan && (path === "model_name" ? plan.model_name : valueIn(plan.config, path));
  const chosen = shown(planned ?? fallback);
  const hint = plan?.config.reasons[path];
  const common = { label, hint, error, value, onChange, title: about };
  const options = type === "boolean" ? YES_NO : field.options;
  if (options) {
    const open = chosen ? `${chosen} (${planned === undefined ? "default" : "chosen"})` : AUTO;
    return html`<${Select} ...${common} options=${[["", open], ...options]} />`;
  }
  const isNumber = type === "integer" || type === "number";
  return html`<${Input}
    ...${common}
    type=${isNumber ? "number" : "text"}
    min=${min}
    max=${max}
    step=${type === "integer" ? 1 : "any"}
    placeholder=${chosen}
  />`;
}

// From the fields to a request ---------------------------------------------------------------------

const BEGINNINGS = ["resume_from", "fine_tune", "distill"];
const OTHERS = [...BEGINNINGS, "dataset", "minutes"]; // in the address, beside the fields below

/** The texts of the fields that the address holds. */
const textsOf = (query) =>
  Object.fromEntries(Object.entries(query).filter(([name]) => !OTHERS.includes(name)));

function beginning(query) {
  for (const how of BEGINNINGS)
    if (query[how]) return `${how} ${query[how]}`;
  return "";
}

const beginnings = (models) => [
  ["", "random weights"],
  ...models.map((name) => [`fine_tune ${name}`, `what ${name} knows (fine-tuning)`]),
  ...models.map((name) => [`distill ${name}`, `${name}, to sample in 1 to 4 steps (distilling)`]),
];

function requestOf({ dataset, minutes, begins, fields, texts }) {
  const request = { dataset, minutes: given(minutes) };
  const [how, whose] = begins.split(" ");
  if (how) request[how] = how === "resume_from" ? { job: whose } : whose;
  for (const field of fields) {
    const [name, part] = field.path.split("/");
    const value = valueOf(field, texts[field.path]);
    if (value === undefined) continue;
    if (part) request[name] = { ...request[name], [part]: value };
    else request[name] = value;
  }
  return request;
}

const isWhole = (request) => request.dataset || request.distill || request.resume_from;

/** The value, once it has not changed for so many milliseconds. */
function useSettled(value, milliseconds) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}
