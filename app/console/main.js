// The console: a shell around pages, each with its own address behind the #.

import { html, render, useState } from "./vendor/htm-preact.js";
import { connection, remove } from "./lib/api.js";
import { go, keyed, useAnswer, useConnection, useRoute, useTheme } from "./lib/hooks.js";
import { PAGES, addressOf, load } from "./lib/loading.js";
import { Notices, report, reportFailures, say } from "./lib/notices.js";
import { Page, ProblemText } from "./lib/parts.js";
import { Shortcuts, useShortcuts } from "./lib/shortcuts.js";
import { Watching } from "./lib/watching.js";
import { SignIn } from "./pages/sign_in.js";

/** The sections by their address: text, and the key that follows "g". */
const SECTIONS = [
  ["noise", "Noise", "n"],
  ["datasets", "Datasets", "d"],
  ["training", "Training", "t"],
  ["models", "Models", "m"],
  ["sample", "Sample", "s"],
  ["compare", "Compare", "c"],
  ["gallery", "Gallery", "y"],
];

/** The section of a page that is none itself. */
const PART_OF = { explain: "noise", runs: "training" };

function Console() {
  const { parts, query } = useRoute();
  const { lost, signedOut } = useConnection();
  const { data: session } = useAnswer("session");
  const [theme, toggleTheme] = useTheme();
  const [listed, setListed] = useState(false);
  const [section, name] = parts;
  useShortcuts("Everywhere", [
    ...SECTIONS.map(([to, text, key]) => [`g ${key}`, `goes to ${text}`, () => go(`#/${to}`)]),
    ["g g", "goes to the start page", () => go("#/")],
    ["?", "shows this list", () => setListed(true)],
  ]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="shell">
      <a class="brand" href="#/"><img
        src=${new URL("icon.svg", import.meta.url).href}
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
        <button
          class="small"
          title="Keyboard shortcuts"
          aria-label="Keyboard shortcuts"
          onClick=${() => setListed(true)}
        >?</button>
        <button class="small" onClick=${toggleTheme}>${theme === "dark" ? "Light" : "Dark"}</button>
      </div>
    </header>
    <div class="lost" role="status">
      ${lost && "The service does not answer. This page continues as soon as it is back."}
    </div>
    <main id="main" tabindex="-1">
      ${signedOut ? html`<${SignIn} />` : html`<${Located} section=${section} name=${name} query=${query} />`}
    </main>
    <${Notices} />
    ${listed && html`<${Shortcuts} onClose=${() => setListed(false)} />`}
    ${!signedOut && html`<${Watching} />`}
  `;
}

/** The page at an address, as soon as its modules are there. */
function Located({ section = "", name, query }) {
  const address = addressOf(section, name);
  const { data, problem } = useAnswer(
    PAGES[address] && keyed(address, async () => ({ Component: await load(address) })),
  );
  if (problem) return html`<${Page} title="Not loaded"><${ProblemText} problem=${problem} /><//>`;
  if (!PAGES[address])
    return html`<${Page} title="Nothing here"><p><a href="#/">Go to the start page</a></p><//>`;
  return data && html`<${data.Component} key=${name} name=${name} query=${query} />`;
}

async function signOut() {
  try {
    await remove("session");
    connection.signOut();
  } catch (problem) {
    report(problem);
  }
}

/** Offers to load the page again once the service has other files than this page began with. */
function followUpdates() {
  const first = new URL(import.meta.url).pathname;
  let { epoch } = connection;
  connection.listeners.add(async () => {
    if (connection.epoch === epoch) return;
    epoch = connection.epoch;
    const page = await fetch("./").then((answer) => answer.text(), () => "");
    const now = /"([^"]+\/main\.js)"/.exec(page)?.[1];
    if (now && !first.endsWith(now))
      say("The service was updated.", { act: { text: "Load the page again", run: () => location.reload() }, stays: true });
  });
}

function skip(event) {
  event.preventDefault(); // the # holds the pages' addresses
  document.getElementById("main").focus();
}

reportFailures();
connection.watch();
followUpdates();
render(html`<${Console} />`, document.body);
