// The images of a dataset, a page at a time, with what the report finds; ticked ones can be removed
// or brought to another class, also by dragging them onto it.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { useSetting } from "../lib/address.js";
import { at, get, pagesOf, post, upload } from "../lib/api.js";
import { ARCHIVES_AND_IMAGES, archiveOf } from "../lib/files.js";
import { keyed, useAction, useAnswer } from "../lib/hooks.js";
import { Bar, FileDrop, Input, ProblemText, countOf } from "../lib/parts.js";

/** `onEdited` is called when there is a newer version. */
export function Images({ dataset, editable, onEdited }) {
  const { name, version } = dataset;
  const [shown, setShown] = useSetting("class", ""); // or all of them
  const [pages, setPages] = useState(1);
  const [ticked, setTicked] = useState(new Set());
  const images = useAnswer(
    keyed(JSON.stringify([name, version, shown, pages]), (signal) =>
      pagesOf(at`datasets/${name}/images`, "id", pages, signal, {
        version,
        embed: 100, // all of a page
        ...(shown && { class: shown }),
      }),
    ),
  );
  const [last, setLast] = useState(); // answer, kept while the next one is under way
  useEffect(() => images.data && setLast(images.data), [images.data]);
  const { items = [], has_more } = images.data ?? last ?? {};
  const classes = Object.keys(dataset.classes);

  const edit = useAction(async (change) => {
    await post(at`datasets/${name}/versions`, { parent: version, ...change });
    setTicked(new Set());
    if (change.rename) setShown(Object.values(change.rename)[0]);
    onEdited();
  });
  const tick = (ids, on) =>
    setTicked((old) => {
      const now = new Set(old);
      for (const id of ids) if (on) now.add(id);
        else now.delete(id);
      return now;
    });
  const drop = (className) => (event) => {
    event.preventDefault();
    const dragged = event.dataTransfer.getData("text/plain");
    edit.run({ move: { [className]: ticked.has(dragged) ? [...ticked] : [dragged] } });
  };

  return html`
    <section class="card wide" aria-label="Images">
      <h2>Images</h2>
      ${
        classes.length > 0 &&
        html`
        <div class="actions" role="group" aria-label="Classes">
          ${["", ...classes].map(
            (each) => html`
              <button
                class="small chip"
                aria-pressed=${shown === each}
                onClick=${() => {
                  setShown(each);
                  setPages(1);
                }}
                onDragOver=${(event) => editable && each && event.preventDefault()}
                onDrop=${each && drop(each)}
              >
                ${each || "all"} ${(each ? dataset.classes[each] : dataset.num_images).toLocaleString("en")}
              </button>
            `,
          )}
        </div>
      `
      }
      ${editable && html`<${Edits} ...${{ ticked, setTicked, classes, shown, edit }} />`}
      <${ProblemText} problem=${edit.problem || images.problem} />
      <${Report} ...${{ dataset, ticked, tick, editable }} />
      <${Tiles} of=${items} ...${{ ticked, tick, editable, classes }} />
      ${
        has_more &&
        html`<button class="more" onClick=${() => setPages(pages + 1)}>Show more</button>`
      }
      ${editable && html`<${Addition} ...${{ dataset, shown, onEdited }} />`}
    </section>
  `;
}

/** What can be done with the ticked images, or with the class that is shown. */
function Edits({ ticked, setTicked, classes, shown, edit }) {
  const [target, setTarget] = useState("");
  const [renamed, setRenamed] = useState("");
  const ids = [...ticked];
  const submit = (change) => (event) => {
    event.preventDefault();
    edit.run(change());
  };
  return html`
    <datalist id="classes">${classes.map((each) => html`<option value=${each} />`)}</datalist>
    ${
      ids.length > 0
        ? html`
          <form class="line edits" onSubmit=${submit(() => ({ move: { [target]: ids } }))}>
            <p role="status">${countOf(ids.length, "image is", "images are")} ticked.</p>
            <button
              type="button"
              class="danger"
              disabled=${edit.busy}
              onClick=${() => edit.run({ remove: ids })}
            >Remove</button>
            <${Input}
              label="Move to the class"
              value=${target}
              onChange=${setTarget}
              list="classes"
              required
              hint="an existing class or a new one; or drag them onto it"
            />
            <button disabled=${edit.busy}>Move</button>
            <button type="button" onClick=${() => setTicked(new Set())}>Untick</button>
          </form>
        `
        : html`<p class="note">Tick images to remove them or to move them to another class. Every change makes a new version; models keep the one that they learned from.</p>`
    }
    ${
      shown &&
      html`
      <form class="line edits" onSubmit=${submit(() => ({ rename: { [shown]: renamed } }))}>
        <${Input}
          label=${`New name of ${shown}`}
          value=${renamed}
          onChange=${setRenamed}
          list="classes"
          required
          hint="the name of another class merges the two"
        />
        <button disabled=${edit.busy}>Rename</button>
      </form>
    `
    }
  `;
}

/** More images, of the class that is shown, or of the classes that their folders name. */
function Addition({ dataset, shown, onEdited }) {
  const [sent, setSent] = useState(0);
  const add = useAction(async (files) => {
    setSent(0);
    const { blob } = await archiveOf(files);
    const query = new URLSearchParams({ parent: dataset.version, ...(shown && { class: shown }) });
    await upload(at`datasets/${dataset.name}/images` + `?${query}`, blob, setSent, "POST");
    onEdited();
  });
  return html`
    <${FileDrop}
      label="Add images"
      hint=${`or drop an archive, a folder or image files here${shown && `: they become ${shown}`}`}
      accept=${ARCHIVES_AND_IMAGES}
      multiple
      folders
      onFiles=${add.run}
    />
    ${add.busy && html`<${Bar} label="Upload" value=${sent} />`}
    <${ProblemText} problem=${add.problem} />
  `;
}

function Tiles({ of, ticked, tick, editable, classes = [] }) {
  return html`
    <ul class="picks">
      ${of.map((image) => {
        const text = [image.name, classes.length && image.class_name, image.split !== "train" && image.split]
          .filter(Boolean)
          .join(", ");
        const picture = html`<img
          src=${image.links.thumbnail}
          alt=${text}
          title=${`${text}, ${image.width} × ${image.height}`}
          loading="lazy"
          width="64"
          height="64"
          draggable=${editable}
          onDragStart=${(event) => event.dataTransfer.setData("text/plain", image.id)}
        />`;
        return html`
          <li key=${image.id}>
            ${
              editable
                ? html`<label>
                  <input
                    type="checkbox"
                    checked=${ticked.has(image.id)}
                    onChange=${(event) => tick([image.id], event.target.checked)}
                  />${picture}
                </label>`
                : picture
            }
          </li>
        `;
      })}
    </ul>
  `;
}

/** What the report finds: each finding with some of its images, which can be ticked together. */
function Report({ dataset, ticked, tick, editable }) {
  const { name, version } = dataset;
  const [wanted, setWanted] = useState(false);
  const report = useAnswer(
    wanted &&
      keyed(JSON.stringify(["report", name, version]), (signal) =>
        get(at`datasets/${name}/report` + `?version=${version}`, signal),
      ),
  );
  if (!wanted)
    return html`<p><button onClick=${() => setWanted(true)}>Look for duplicates, blurred and odd images</button></p>`;
  return html`
    <div class="report" role="region" aria-label="Report">
      <${ProblemText} problem=${report.problem} />
      ${!report.data && !report.problem && html`<p role="status">Looking…</p>`}
      ${report.data && !report.data.findings.length && html`<p>Nothing was found.</p>`}
      ${report.data?.findings.map((finding) => {
        // Of duplicates all but the best one, of others all that are shown.
        const worst = finding.groups.length
          ? finding.groups.flatMap((group) => group.images.slice(1))
          : finding.images.map((image) => image.id);
        return html`
          <h3>${finding.kind.replace("-", " ")}</h3>
          <p>${finding.sentence}</p>
          <${Tiles} of=${finding.images} ...${{ ticked, tick, editable }} />
          ${finding.num_images > finding.images.length && html`<p class="note">The first ${finding.images.length} of ${finding.num_images.toLocaleString("en")} are shown.</p>`}
          ${
            editable &&
            finding.kind !== "small-class" &&
            html`<button onClick=${() => tick(worst, true)}>Tick ${countOf(worst.length, "image")}</button>`
          }
        `;
      })}
    </div>
  `;
}
