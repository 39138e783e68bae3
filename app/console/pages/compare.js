// Comparisons: a grid over two settings, two models from the same noise, and a blind test of both.

import { html, useLayoutEffect } from "../vendor/htm-preact.js";
import { all } from "../lib/api.js";
import { keyed, useAnswer } from "../lib/hooks.js";
import { Page, ProblemText } from "../lib/parts.js";
import { BlindTest } from "./blind_test.js";
import { CompareGrid } from "./compare_grid.js";
import { SideBySide } from "./side_by_side.js";

const VIEWS = {
  "": {
    text: "A grid",
    title: "Compare settings",
    intro: "One image for each pair of settings, all from the same noise, so that only the settings differ.",
    View: CompareGrid,
  },
  "side-by-side": {
    text: "Side by side",
    title: "Two models side by side",
    intro: "Each pair begins with the same noise. What differs is what the models have learned.",
    View: SideBySide,
  },
  "blind-test": {
    text: "A blind test",
    title: "Blind test",
    intro: "Two images, without names and in random order. Choose one; the tally shows whether your choices could be chance.",
    View: BlindTest,
  },
};

export const Compare = ({ name, query }) =>
  html`<${Comparison} key=${JSON.stringify([name, query])} view=${name} query=${query} />`;

function Comparison({ view = "", query }) {
  const models = useAnswer(keyed("models", (signal) => all("models", "name", signal)));
  const { title, intro, View } = VIEWS[view] ?? VIEWS[""];
  const shared = new URLSearchParams(query.model ? { model: query.model } : {});
  return html`
    <${Page} title=${title} intro=${intro}>
      <nav class="views" aria-label="Kinds of comparison">
        ${Object.entries(VIEWS).map(
          ([name, { text }]) =>
            html`<a
              href=${`${addressOf(name)}?${shared}`}
              aria-current=${name === view ? "page" : undefined}
            >${text}</a>`,
        )}
      </nav>
      <${ProblemText} problem=${models.problem} />
      ${
        models.data &&
        !models.data.length &&
        html`<p class="card">There is no model yet. <a href="#/training">Train one</a>, or <a href="#/models">upload one</a>.</p>`
      }
      ${
        models.data?.length > 0 &&
        html`<${View}
          models=${models.data}
          query=${query}
          keep=${(fields) => keepAddress(view, fields)}
        />`
      }
    <//>
  `;
}

const addressOf = (view) => (view ? `#/compare/${view}` : "#/compare");

/** Writes the settings of a form to the address, so that a link to it shows them again. */
function keepAddress(view, fields) {
  const query = new URLSearchParams(Object.entries(fields).filter(([, value]) => value));
  useLayoutEffect(() => history.replaceState(null, "", `${addressOf(view)}?${query}`), [`${query}`]);
}
