// Images to train on: the list of datasets, and uploads.

import { html, useState } from "../vendor/htm-preact.js";
import { all, at } from "../lib/api.js";
import { ARCHIVES_AND_IMAGES } from "../lib/files.js";
import { go, keyed, useAnswer } from "../lib/hooks.js";
import { Input, Page, ProblemText, Select } from "../lib/parts.js";
import { Upload } from "../lib/upload.js";
import { summary } from "./dataset.js";
import { Imports } from "./imports.js";

const allDatasets = keyed("datasets", (signal) => all("datasets", "name", signal));

export function Datasets() {
  const datasets = useAnswer(allDatasets);
  const [how, setHow] = useState({ labels: "auto", frames: "refuse", range: "full" });
  const set = (name) => (value) => setHow((old) => ({ ...old, [name]: value }));
  const fields = html`
    <details>
      <summary>How its classes and images are read</summary>
      <div class="fields">
        <${Input}
          label="Classes from"
          value=${how.labels}
          onChange=${set("labels")}
          list="label-sources"
          hint="or a file of labels in the archive, as labels.csv:breed"
        />
        <datalist id="label-sources">
          ${["auto", "folders", "deepest-folder", "none"].map((each) => html`<option value=${each} />`)}
        </datalist>
        <${Select}
          label="Animations"
          value=${how.frames}
          onChange=${set("frames")}
          options=${[["refuse", "refuse"], ["first", "their first frame"], ["all", "all frames"]]}
        />
        <${Select}
          label="Values of more than 8 bits"
          value=${how.range}
          onChange=${set("range")}
          options=${[
            ["full", "white is the largest value of the file's format"],
            ["bits", "white is the largest value of the bits in use"],
            ["data", "black and white are the least and the largest value"],
          ]}
        />
      </div>
    </details>
  `;
  return html`
    <${Page}
      title="Datasets"
      intro="Archives of images to train on. The folders of an archive are its classes, unless a file of labels tells them. Images may be of any size from 8 pixels a side; smaller ones are rejected, and listed. A training scales and crops all of them to the size of its model: 8 to 256 pixels a side, and at most 64 unless you choose more."
    >
      <${Upload}
        what="dataset"
        label="Choose an archive or images"
        hint="or drop a zip, a tar, a folder or image files here"
        accept=${ARCHIVES_AND_IMAGES}
        multiple
        folders
        fields=${fields}
        address=${(name) => at`datasets/${name}` + `?${new URLSearchParams(how)}`}
        onDone=${(dataset) => go(at`#/datasets/${dataset.name}`)}
      />
      <${Imports} how=${how} fields=${fields} onDone=${datasets.refresh} />
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
