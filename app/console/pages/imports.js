// Datasets that the service fetches from elsewhere: a form, and the jobs that are under way.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { at, post } from "../lib/api.js";
import { nameOf, stem } from "../lib/files.js";
import { useAction, useAnswer } from "../lib/hooks.js";
import { discard } from "../lib/notices.js";
import { Bar, Input, ProblemText, bytes, countOf } from "../lib/parts.js";

/** `how` the images are read is chosen in `fields`; `onDone` is called when a dataset has come. */
export function Imports({ how, fields, onDone }) {
  const jobs = useAnswer("dataset-imports?limit=20", 2000);
  const [url, setUrl] = useState("");
  const [name, setName] = useState("");
  const start = useAction(async () => {
    await post("datasets", { name, url, ...how });
    setUrl("");
    setName("");
    jobs.refresh();
  });
  const items = jobs.data?.items ?? [];
  const made = items.filter((job) => job.status === "succeeded").map((job) => job.id);
  useEffect(onDone, [made.join()]);
  return html`
    <section class="card" aria-label="Fetch a dataset">
      <form
        class="line"
        onSubmit=${(event) => {
          event.preventDefault();
          start.run();
        }}
      >
        <${Input}
          label="Or the URL of an archive"
          hint="https://…, or s3://bucket/prefix/ if the service may read the bucket"
          value=${url}
          onChange=${(text) => {
            setUrl(text);
            setName(nameOf(stem(text.split("?")[0].replace(/\/+$/, ""))));
          }}
          required
        />
        <${Input} label="Name of its dataset" value=${name} onChange=${setName} required />
        <button class="primary" disabled=${start.busy}>Fetch</button>
      </form>
      ${url && fields}
      <${ProblemText} problem=${start.problem} />
      ${items
        .filter((job) => !job.done || job.status === "failed")
        .map((job) => html`<${Import} key=${job.id} job=${job} refresh=${jobs.refresh} />`)}
    </section>
  `;
}

function Import({ job, refresh }) {
  const { stage, num_bytes: here, total_bytes: total, num_images: images, progress } = job.progress;
  const end = useAction(async () => {
    await (job.done
      ? discard("dataset-imports", job.id, `The failed import of ${job.dataset} is dismissed.`)
      : post(at`dataset-imports/${job.id}/cancel`));
    refresh();
  });
  const done = images ? countOf(images, "image") : bytes(here) + (total ? ` of ${bytes(total)}` : "");
  const state = job.cancel_requested ? "being cancelled" : (job.waiting ?? `${stage}, ${done}`);
  return html`
    <div class="row">
      ${
        job.done
          ? html`<p class="problem" role="alert">${job.dataset}: ${job.error.message}</p>`
          : html`<p role="status">${job.dataset}: ${state}</p>
            <${Bar} label=${`Fetching ${job.dataset}`} value=${progress} />`
      }
      <button class="small" disabled=${end.busy || job.cancel_requested} onClick=${end.run}>
        ${job.done ? "Dismiss" : "Cancel"}<span class="hidden"> ${job.dataset}</span>
      </button>
      <${ProblemText} problem=${end.problem} />
    </div>
  `;
}
