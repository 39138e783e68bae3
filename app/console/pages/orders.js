// Orders of more images than one answer holds: jobs of the workers, with their images and archives.

import { html, useState } from "../vendor/htm-preact.js";
import { at, pagesOf, post } from "../lib/api.js";
import { keyed, useAction, useAnswer } from "../lib/hooks.js";
import { discard } from "../lib/notices.js";
import { Bar, ConfirmButton, ProblemText, Status, countOf, duration, when } from "../lib/parts.js";
import { inWords } from "../lib/pictures.js";

const FEW = 24; // images shown at first
const MORE = 240;

/** The newest orders: an answer for Orders, and to refresh after a new one. */
export function useOrders() {
  const [pages, setPages] = useState(1);
  const answer = useAnswer(
    keyed(`orders ${pages}`, (signal) => pagesOf("sample-jobs", "id", pages, signal, { limit: 10 })),
    2000,
  );
  return { ...answer, showMore: () => setPages(pages + 1) };
}

export function Orders({ orders: { data, problem, refresh, showMore } }) {
  if (!data?.items.length) return html`<${ProblemText} problem=${problem} />`;
  return html`
    <section aria-label="Orders">
      <h2>Orders</h2>
      <${ProblemText} problem=${problem} />
      ${data.items.map((job) => html`<${Order} key=${job.id} job=${job} refresh=${refresh} />`)}
      ${data.has_more && html`<button class="more" onClick=${showMore}>Older ones</button>`}
    </section>
  `;
}

function Order({ job, refresh }) {
  const { images: made, num_images: count, progress, eta_seconds: left } = job.progress;
  const [shown, setShown] = useState(FEW);
  const images = useAnswer(
    made > 0 && at`sample-jobs/${job.id}/images` + `?limit=${shown}`,
    job.done ? 0 : 2000,
  );
  const cancel = useAction(async () => {
    await post(at`sample-jobs/${job.id}/cancel`);
    refresh();
  });
  const title = `${countOf(count, "image")} by ${job.model}`;
  const isRunning = job.status === "running";
  return html`
    <section class="card order" aria-label=${title}>
      <h3>${title}</h3>
      <p class="state" role="status">
        <${Status} of=${job.status} />
        ${job.cancel_requested && !job.done && " is being cancelled"}
        ${job.status === "queued" && ` ${job.waiting ?? "waits for a worker"}`}
        ${isRunning && ` ${made.toLocaleString("en")} of ${count.toLocaleString("en")} made`}
        ${isRunning && left !== null && html`<strong class="left">${duration(left)} left</strong>`}
      </p>
      ${!job.done && html`<${Bar} label=${`Progress of ${title}`} value=${progress} />`}
      <p class="note">
        ${when(job.created_at)}: ${inWords(job.used)}
      </p>
      ${job.error && html`<${ProblemText} problem=${job.error.message ?? job.error.code} />`}
      <${ProblemText} problem=${images.problem} />
      <div class="tiles">
        ${images.data?.items.map(
          ({ index, href }) => html`
            <a class="tile" key=${index} href=${href} target="_blank"><img
              src=${href}
              alt=${`Image ${index + 1}`}
              loading="lazy"
            /></a>
          `,
        )}
      </div>
      <div class="actions">
        ${
          images.data?.has_more &&
          shown < MORE &&
          html`<button onClick=${() => setShown(MORE)}>Show more<span class="hidden"> of ${title}</span></button>`
        }
        ${
          job.status === "succeeded" &&
          html`<a class="button" href=${at`sample-jobs/${job.id}/archive`} download>Download all<span class="hidden"> ${title}</span></a>`
        }
        ${
          !job.done &&
          html`<button disabled=${cancel.busy || job.cancel_requested} onClick=${cancel.run}>Cancel<span class="hidden"> ${title}</span></button>`
        }
        ${
          job.done &&
          html`<${ConfirmButton}
            question=${`Delete this order with its ${countOf(made, "image")}?`}
            yes="Delete"
            onConfirm=${async () => {
              await discard("sample-jobs", job.id, `The order of ${title} is deleted.`);
              refresh();
            }}
          >
            Delete<span class="hidden"> ${title}</span>
          <//>`
        }
      </div>
      <${ProblemText} problem=${cancel.problem} />
    </section>
  `;
}
