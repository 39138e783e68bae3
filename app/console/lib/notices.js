// Notices at the foot of the window: what was done and can be undone, and failures of actions that
// are shown nowhere else.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { at, connection, get, post, remove } from "./api.js";

const STAYS = 10_000; // milliseconds; the page of the trash restores what was deleted later, too

/** The notices that are shown, each as {id, text, isProblem, undo, page, act}. */
const notices = {
  items: [],
  listeners: new Set(),

  set(items) {
    this.items = items;
    for (const listener of this.listeners) listener(items);
  },

  drop(id) {
    this.set(this.items.filter((notice) => notice.id !== id));
  },
};

let count = 0;

/**
 * Shows a notice for some seconds, or until it is dismissed if it `stays`. `undo` becomes a button,
 * `page` a link, and `act` is {text, run}, a button of another name.
 */
export function say(text, { undo, page, act, stays = false } = {}) {
  if (stays && notices.items.some((notice) => notice.text === text)) return;
  const id = (count += 1);
  notices.set([...notices.items, { id, text, undo, page, act }]);
  if (!stays) setTimeout(() => notices.drop(id), STAYS);
}

/** Shows the failure of an action until it is dismissed. */
export function report(problem) {
  if (problem?.name === "AbortError") return;
  const text = problem?.message ?? `${problem}`;
  if (notices.items.some((notice) => notice.isProblem && notice.text === text)) return;
  notices.set([...notices.items, { id: (count += 1), text, isProblem: true }]);
}

/** Reports every failure that no component handles, so that no action fails in silence. */
export function reportFailures() {
  addEventListener("unhandledrejection", (event) => report(event.reason));
  addEventListener("error", (event) => event.error && report(event.error));
}

/**
 * Deletes a record at `collection`/`name`, or several by an `address` of their own, of which `name`
 * is the first; a notice offers to undo it. `text` says what was deleted.
 */
export async function discard(collection, name, text, address = `${collection}/${encodeURIComponent(name)}`) {
  await remove(address);
  const trash = await get("trash?limit=20").catch(() => ({ items: [] })); // the last deleted first
  const entry = trash.items.find((each) => each.collection === collection && each.name === name);
  say(text, { undo: entry && (() => restore(entry)) }); // no entry: the service keeps no trash
}

/** Brings back an entry of the trash. */
export async function restore({ collection, id }) {
  await post(at`trash/${collection}/${id}/restore`);
  connection.renew();
}

export function Notices() {
  const [items, setItems] = useState(notices.items);
  useEffect(() => {
    notices.listeners.add(setItems);
    return () => notices.listeners.delete(setItems);
  }, []);
  return html`
    <aside class="notices" aria-label="Notices">
      ${items.map((notice) => html`<${Notice} key=${notice.id} notice=${notice} />`)}
    </aside>
  `;
}

function Notice({ notice: { id, text, undo, page, act, isProblem } }) {
  const runUndo = () => {
    notices.drop(id);
    undo().catch(report);
  };
  return html`
    <div class=${isProblem ? "notice bad" : "notice"} role=${isProblem ? "alert" : "status"}>
      <span>${text}</span>
      ${page && html`<a class="button small" href=${page} onClick=${() => notices.drop(id)}>Show it</a>`}
      ${undo && html`<button class="small" onClick=${runUndo}>Undo</button>`}
      ${act && html`<button class="small" onClick=${act.run}>${act.text}</button>`}
      <button class="small" onClick=${() => notices.drop(id)}>Dismiss<span class="hidden"> this notice</span></button>
    </div>
  `;
}
