// One dataset: its numbers, its images and versions, and edits of them.

import { html, useState } from "../vendor/htm-preact.js";
import { at, get } from "../lib/api.js";
import { go, keyed, useAnswer } from "../lib/hooks.js";
import { discard } from "../lib/notices.js";
import { ConfirmButton, Page, ProblemText, Properties, bytes, countOf, when } from "../lib/parts.js";
import { Images } from "./images.js";

/** `query.version` is the number of one, or undefined for the newest, which can be edited. */
export function Dataset({ name, query: { version } }) {
  const query = version ? `?version=${encodeURIComponent(version)}` : "";
  const { data: dataset, problem, refresh } = useAnswer(at`datasets/${name}` + query);
  const versions = useAnswer(
    dataset &&
      keyed(JSON.stringify(["versions", name, dataset.version]), (signal) =>
        get(at`datasets/${name}/versions` + "?limit=100", signal),
      ),
  );
  if (!dataset) return html`<${Page} title=${name}><${ProblemText} problem=${problem} /><//>`;
  const classes = Object.entries(dataset.classes);
  const actions = html`
    <a
      class="button primary"
      href=${`#/training?${new URLSearchParams({ dataset: name })}`}
    >Train on it</a>
    <${ConfirmButton}
      question=${`Delete ${name} with its ${countOf(dataset.num_images, "image")}? Models trained on it stay.`}
      yes="Delete"
      onConfirm=${async () => {
        await discard("datasets", dataset.name, `The dataset ${name} is deleted.`);
        go("#/datasets");
      }}
    >
      Delete
    <//>
  `;
  return html`
    <${Page} title=${name} intro=${summary(dataset)} actions=${actions}>
      ${
        version &&
        html`<p>This is version ${version}. <a href=${at`#/datasets/${name}`}>Go to the newest</a>, which can be edited.</p>`
      }
      <div class="columns">
        <section class="card" aria-label="Contact sheet">
          <img class="sheet" src=${at`datasets/${name}/preview` + `?version=${dataset.version}`} alt=${`Some images of ${name}`} />
        </section>
        <section class="card" aria-label="Numbers">
          <${Properties}
            of=${[
              ["images", dataset.num_images.toLocaleString("en")],
              ["kind", dataset.channels === 1 ? "greyscale" : "colour"],
              [
                "most common sizes",
                dataset.sizes
                  .slice(0, 4)
                  .map((s) => `${s.width} × ${s.height} (${s.count.toLocaleString("en")})`)
                  .join(", "),
              ],
              ["classes from", dataset.labels],
              ...splitsOf(dataset),
              dataset.reading.frames !== "refuse" && ["of animations", `${dataset.reading.frames} frames`],
              dataset.reading.levels && ["black and white", dataset.reading.levels.join(" and ")],
              ["archive", bytes(dataset.num_bytes)],
              ["version", `${dataset.version} of ${when(dataset.created_at)}`],
            ].filter(Boolean)}
          />
          ${
            classes.length > 0 &&
            html`
            <h2>${countOf(classes.length, "class", "classes")}</h2>
            <${Table}
              head=${["class", "images"]}
              rows=${classes.map(([name, n]) => [name, n.toLocaleString("en")])}
            />
          `
          }
        </section>
        ${
          dataset.warnings.length > 0 &&
          html`
          <section class="card wide" aria-label="Warnings">
            <h2>What looks odd</h2>
            <ul>${dataset.warnings.map((warning) => html`<li>${warning}</li>`)}</ul>
          </section>
        `
        }
        ${
          dataset.num_rejected > 0 &&
          html`
          <section class="card wide" aria-label="Rejected files">
            <h2>${countOf(dataset.num_rejected, "file was", "files were")} rejected</h2>
            <${Table}
              head=${["file", "reason"]}
              rows=${dataset.rejected.map((file) => [file.name, file.reason])}
            />
            ${
              dataset.num_rejected > dataset.rejected.length &&
              html`<p class="note">The first ${dataset.rejected.length} are shown.</p>`
            }
          </section>
        `
        }
        <${Images} dataset=${dataset} editable=${!version} onEdited=${refresh} />
        ${
          versions.data?.items.length > 1 &&
          html`
          <section class="card wide" aria-label="Versions">
            <h2>Versions</h2>
            <${Table}
              head=${["version", "what changed", "images", "made"]}
              rows=${versions.data.items.map((v) => [
                html`<a href=${at`#/datasets/${name}` + `?version=${v.number}`}>${v.number}</a>`,
                v.change,
                v.num_images.toLocaleString("en"),
                when(v.created_at),
              ])}
            />
            ${versions.data.has_more && html`<p class="note">The newest 100 are shown.</p>`}
          </section>
        `
        }
      </div>
    <//>
  `;
}

function splitsOf({ splits }) {
  const parts = Object.entries(splits).map(([name, n]) => `${name} ${n.toLocaleString("en")}`);
  return parts.length ? [["splits", parts.join(", ")]] : [];
}

function Table({ head, rows }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${head.join(" and ")}>
      <table>
        <thead>
          <tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr>
        </thead>
        <tbody>
          ${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}
        </tbody>
      </table>
    </div>
  `;
}

export function summary(dataset) {
  const { height, width } = dataset.sizes[0];
  const classes = Object.keys(dataset.classes).length;
  const parts = [countOf(dataset.num_images, "image"), `${width} × ${height}`];
  if (classes) parts.push(countOf(classes, "class", "classes"));
  if (dataset.num_rejected) parts.push(`${dataset.num_rejected.toLocaleString("en")} rejected`);
  return parts.join(" · ");
}
