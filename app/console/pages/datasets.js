// Images to train on: upload, view, delete.

import { html } from "../vendor/htm-preact.js";
import { all, at, remove } from "../lib/api.js";
import { ARCHIVES_AND_IMAGES } from "../lib/files.js";
import { go, keyed, useAnswer } from "../lib/hooks.js";
import { ConfirmButton, Properties, Page, ProblemText, bytes, countOf, when } from "../lib/parts.js";
import { Upload } from "../lib/upload.js";
import { Imports } from "./imports.js";

export const Datasets = ({ name }) =>
  name ? html`<${Dataset} name=${name} />` : html`<${List} />`;

const allDatasets = keyed("datasets", (signal) => all("datasets", "name", signal));

function List() {
  const datasets = useAnswer(allDatasets);
  return html`
    <${Page}
      title="Datasets"
      intro="Archives of images to train on. The top folders of an archive are its classes, unless a file of labels tells them."
    >
      <${Upload}
        what="dataset"
        label="Choose an archive or images"
        hint="or drop a zip, a tar, a folder or image files here"
        accept=${ARCHIVES_AND_IMAGES}
        multiple
        folders
        address=${(name) => at`datasets/${name}`}
        onDone=${(dataset) => go(at`#/datasets/${dataset.name}`)}
      />
      <${Imports} onDone=${datasets.refresh} />
      <${ProblemText} problem=${datasets.problem} />
      ${datasets.data && !datasets.data.length && html`<p class="empty">There are no datasets yet.</p>`}
      <ul class="cards">
        ${datasets.data?.map(
          (dataset) => html`
            <li class="card" key=${dataset.name}>
              <img
                class="sheet"
                src=${at`datasets/${dataset.name}/preview`}
                alt=""
                loading="lazy"
              />
              <h2><a href=${at`#/datasets/${dataset.name}`}>${dataset.name}</a></h2>
              <p>${summary(dataset)}</p>
            </li>
          `,
        )}
      </ul>
    <//>
  `;
}

function Dataset({ name }) {
  const { data: dataset, problem } = useAnswer(at`datasets/${name}`);
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
        await remove(at`datasets/${name}`);
        go("#/datasets");
      }}
    >
      Delete
    <//>
  `;
  return html`
    <${Page} title=${name} intro=${summary(dataset)} actions=${actions}>
      <div class="columns">
        <section class="card" aria-label="Contact sheet">
          <img class="sheet" src=${at`datasets/${name}/preview`} alt=${`Some images of ${name}`} />
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
              ["uploaded", when(dataset.created_at)],
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

function summary(dataset) {
  const { height, width } = dataset.sizes[0];
  const classes = Object.keys(dataset.classes).length;
  const parts = [countOf(dataset.num_images, "image"), `${width} × ${height}`];
  if (classes) parts.push(countOf(classes, "class", "classes"));
  if (dataset.num_rejected) parts.push(`${dataset.num_rejected.toLocaleString("en")} rejected`);
  return parts.join(" · ");
}
