// The console: a shell around pages, each with its own address behind the #.

import { html, render } from "./vendor/htm-preact.js";
import { connection } from "./lib/api.js";
import { useConnection, useRoute, useTheme } from "./lib/hooks.js";
import { Page } from "./lib/parts.js";
import { Datasets } from "./pages/datasets.js";
import { Job } from "./pages/job.js";
import { Models } from "./pages/models.js";
import { Noise } from "./pages/noise.js";
import { Sample } from "./pages/sample.js";
import { Start } from "./pages/start.js";
import { Training } from "./pages/training.js";

const SECTIONS = [
  ["noise", "Noise"],
  ["datasets", "Datasets"],
  ["training", "Training"],
  ["models", "Models"],
  ["sample", "Sample"],
];

function Console() {
  const { parts, query } = useRoute();
  const { lost } = useConnection();
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
              aria-current=${section === to ? "page" : undefined}
            >${text}</a>`,
        )}
      </nav>
      <div class="tools">
        <a href="docs">API</a>
        <button class="small" onClick=${toggleTheme}>${theme === "dark" ? "Light" : "Dark"}</button>
      </div>
    </header>
    <div class="lost" role="status">
      ${lost && "The service does not answer. This page continues as soon as it is back."}
    </div>
    <main id="main" tabindex="-1">${page(section, name, query)}</main>
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
    default:
      return html`<${Page} title="Nothing here"><p><a href="#/">Go to the start page</a></p><//>`;
  }
}

function skip(event) {
  event.preventDefault(); // the # holds the pages' addresses
  document.getElementById("main").focus();
}

connection.watch();
render(html`<${Console} />`, document.body);
