// Says when a job has ended: in the page, in the window's title and, if asked to, by the system.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { at, connection, get, sleep } from "./api.js";
import { say } from "./notices.js";
import { entitle } from "./title.js";

const FIRST = 1500; // milliseconds until the first look, which leaves the page the time to load
const EVERY = 5000; // between two looks
const LATELY = 20; // jobs of a kind that a look finds at once
const CHOSEN = "diffusion-notifications";

/** The kinds of jobs: where they are, what one is called, and the page that shows it. */
const KINDS = [
  {
    collection: "train-jobs",
    name: (job) => `The training of ${job.model_name}`,
    page: (job) => at`#/training/${job.id}`,
  },
  {
    collection: "sample-jobs",
    name: (job) => `The order of images by ${job.model}`,
    page: () => "#/sample",
  },
  {
    collection: "evaluations",
    name: (job) => `The evaluation of ${job.model}`,
    page: () => "#/models",
  },
];
const ENDINGS = { succeeded: "is done", failed: "has failed", cancelled: "is cancelled" };

/** Looks at the jobs again and again, and says which of those that ran have ended. */
async function watch(signal) {
  const running = new Map(KINDS.map((kind) => [kind, new Set()]));
  await sleep(FIRST);
  while (!signal.aborted) {
    if (!connection.lost && !connection.signedOut) await look(running, signal).catch(() => {});
    await sleep(EVERY);
  }
}

async function look(running, signal) {
  let ahead; // the training that ends first
  for (const kind of KINDS) {
    const jobs = await newest(kind, running.get(kind), signal);
    for (const job of jobs) {
      if (job.done && running.get(kind).delete(job.id)) announce(kind, job);
      if (!job.done) running.get(kind).add(job.id);
      if (job.status !== "running" || kind !== KINDS[0]) continue;
      if (!ahead || job.progress.progress > ahead.progress.progress) ahead = job;
    }
  }
  if (document.hidden && news) return; // what has ended is said until the visitor is back
  news = false;
  entitle({ news: ahead ? `${Math.floor(100 * ahead.progress.progress)}% · ` : "" });
}

/** The last jobs of a kind, and those that ran at the last look and are no longer among them. */
async function newest({ collection }, running, signal) {
  const { items } = await get(`${collection}?limit=${LATELY}`, signal);
  for (const id of running) {
    if (items.some((job) => job.id === id)) continue;
    const job = await get(at`${collection}/${id}`, signal).catch(() => undefined);
    if (job) items.push(job);
    else running.delete(id); // deleted meanwhile
  }
  return items;
}

let news = false; // the title says which job has ended

function announce(kind, job) {
  const text = `${kind.name(job)} ${ENDINGS[job.status] ?? job.status}.`;
  const page = kind.page(job);
  if (!(location.hash === page && document.hasFocus())) say(text, { page, stays: true });
  if (!document.hidden) return;
  news = true;
  entitle({ news: `${job.status === "succeeded" ? "✓" : "✗"} ${text} ` });
  if (!areChosen()) return;
  const notification = new Notification(text, { tag: job.id });
  notification.onclick = () => {
    focus();
    location.hash = page;
    notification.close();
  };
}

/** Shows nothing, and watches the jobs as long as it is there. */
export function Watching() {
  useEffect(() => {
    const abort = new AbortController();
    watch(abort.signal);
    const back = () => !document.hidden && entitle({ news: "" });
    document.addEventListener("visibilitychange", back);
    return () => {
      abort.abort();
      document.removeEventListener("visibilitychange", back);
    };
  }, []);
  return null;
}

const areChosen = () =>
  "Notification" in window && Notification.permission === "granted" && Boolean(localStorage.getItem(CHOSEN));

/** A switch for notifications by the system; none where the browser has none or was told not to. */
export function NotifyMe() {
  const [chosen, setChosen] = useState(areChosen());
  if (!("Notification" in window) || Notification.permission === "denied") return null;
  const choose = async ({ target: { checked } }) => {
    if (checked && (await Notification.requestPermission()) === "granted") localStorage.setItem(CHOSEN, "1");
    else localStorage.removeItem(CHOSEN);
    setChosen(areChosen());
  };
  return html`
    <label class="check">
      <input type="checkbox" checked=${chosen} onChange=${choose} /> Notify me when a job has ended
    </label>
  `;
}
