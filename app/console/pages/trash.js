// What was deleted, until it is restored or removed for good.

import { html, useState } from "../vendor/htm-preact.js";
import { at, pagesOf, remove } from "../lib/api.js";
import { keyed, useAction, useAnswer } from "../lib/hooks.js";
import { restore, say } from "../lib/notices.js";
import { ConfirmButton, Page, ProblemText, bytes, countOf, when } from "../lib/parts.js";

const KINDS = {
  datasets: "dataset",
  models: "model",
  "train-jobs": "training",
  "sample-jobs": "order of images",
  evaluations: "evaluation",
  "dataset-imports": "import of a dataset",
  pictures: "picture",
};

export function Trash() {
  const [pages, setPages] = useState(1);
  const trash = useAnswer(
    keyed(`trash ${pages}`, (signal) => pagesOf("trash", "id", pages, signal)),
  );
  const { items, has_more } = trash.data ?? {};
  return html`
    <${Page}
      title="Trash"
      intro="Deleted datasets, models, jobs and pictures can be restored as they were until they are removed for good: by the service after some days, or here at once."
    >
      <${ProblemText} problem=${trash.problem} />
      ${items && !items.length && html`<p class="empty">The trash is empty.</p>`}
      <ul class="rows">
        ${items?.map((entry) => html`<${Entry} key=${entry.id} entry=${entry} refresh=${trash.refresh} />`)}
      </ul>
      ${has_more && html`<button class="more" onClick=${() => setPages(pages + 1)}>Older ones</button>`}
    <//>
  `;
}

function Entry({ entry, refresh }) {
  const { id, collection, name } = entry;
  const count = entry.num_records;
  const kind = count > 1 ? countOf(count, "picture") : (KINDS[collection] ?? collection);
  const isOne = count === 1;
  const back = useAction(async () => {
    await restore(entry);
    say(isOne ? `The ${kind} ${name} is back.` : `${kind} are back.`);
  });
  return html`
    <li class="card row">
      <strong class="name">${name}</strong>
      <span>${kind}</span>
      ${entry.num_bytes > 0 && html`<span>${bytes(entry.num_bytes)}</span>`}
      <span class="note">deleted ${when(entry.deleted_at)}, kept until ${when(entry.removed_at)}</span>
      <div class="actions end">
        <button disabled=${back.busy} onClick=${back.run}>Restore<span class="hidden"> ${name}</span></button>
        <${ConfirmButton}
          question=${isOne ? `Remove the ${kind} ${name} for good? It cannot be brought back.` : `Remove ${kind} for good? They cannot be brought back.`}
          yes="Remove for good"
          onConfirm=${async () => {
            await remove(at`trash/${collection}/${id}`);
            refresh();
          }}
        >
          Remove for good<span class="hidden">: ${name}</span>
        <//>
      </div>
      <${ProblemText} problem=${back.problem} />
    </li>
  `;
}
