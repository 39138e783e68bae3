// The console: a shell around pages, each with its own address behind the #.

import { html, render } from "./vendor/htm-preact.js";
import { connection, remove } from "./lib/api.js";
import { useAnswer, useConnection, useRoute, useTheme } from "./lib/hooks.js";
import { Notices, report, reportFailures } from "./lib/notices.js";
import { Page } from "./lib/parts.js";
import { Datasets } from "./pages/datasets.js";
import { Job } from "./pages/job.js";
import { Models } from "./pages/models.js";
import { Noise } from "./pages/noise.js";
import { Runs } from "./pages/runs.js";
import { Sample } from "./pages/sample.js";
import { SignIn } from "./pages/sign_in.js";
import { Start } from "./pages/start.js";
import { Training } from "./pages/training.js";
import { Trash } from "./pages/trash.js";

const SECTIONS = [
  ["noise", "Noise"],
  ["datasets", "Datasets"],
  ["training", "Training"],
  ["models", "Models"],
  ["sample", "Sample"],
];

const PART_OF = { runs: "training" };

function Console() {
  const { parts, query } = useRoute();
  const { lost, signedOut } = useConnection();
  const { data: session } = useAnswer("session");
  const [theme, toggleTheme] = useTheme();
  const [section, name] = parts;
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="shell">
      <a class="brand" href="#/"><img
        src="console/icon.svg"
        alt=""
        width="24"
        height="24"
      />Diffusion</a>
      <nav aria-label="Sections">
        ${SECTIONS.map(
          ([to, text]) =>
            html`<a
              href=${`#/${to}`}
              aria-current=${(PART_OF[section] ?? section) === to ? "page" : undefined}
            >${text}</a>`,
        )}
      </nav>
      <div class="tools">
        ${session?.owner &&
        !signedOut &&
        html`<button class="small" title=${`This is ${session.owner}`} onClick=${signOut}>
          Sign out
        </button>`}
        <a href="#/trash" aria-current=${section === "trash" ? "page" : undefined}>Trash</a>
        <a href="docs">API</a>
        <button class="small" onClick=${toggleTheme}>${theme === "dark" ? "Light" : "Dark"}</button>
      </div>
    </header>
    <div class="lost" role="status">
      ${lost && "The service does not answer. This page continues as soon as it is back."}
    </div>
    <main id="main" tabindex="-1">
      ${signedOut ? html`<${SignIn} />` : page(section, name, query)}
    </main>
    <${Notices} />
  `;
}

function page(section, name, query) {
  switch (section) {
    case undefined:
      return html`<${Start} />`;
    case "noise":
      return html`<${Noise} />`;
    case "datasets":
      return html`<${Datasets} key=${name} name=${name} query=${query} />`;
    case "training":
      return name
        ? html`<${Job} key=${name} id=${name} />`
        : html`<${Training} key=${JSON.stringify(query)} query=${query} />`;
    case "models":
      return html`<${Models} />`;
    case "sample":
      return html`<${Sample} query=${query} />`;
    case "runs":
      return html`<${Runs} query=${query} />`;
    case "trash":
      return html`<${Trash} />`;
    default:
      return html`<${Page} title="Nothing here"><p><a href="#/">Go to the start page</a></p><//>`;
  }
}

async function signOut() {
  try {
    await remove("session");
    connection.signOut();
  } catch (problem) {
    report(problem);
  }
}

function skip(event) {
  event.preventDefault(); // the # holds the pages' addresses
  document.getElementById("main").focus();
}

reportFailures();
connection.watch();
render(html`<${Console} />`, document.body);
