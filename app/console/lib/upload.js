// A form to upload an archive of images or of a model.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { upload } from "./api.js";
import { takeOver } from "./drops.js";
import { archiveOf, nameOf } from "./files.js";
import { useAction } from "./hooks.js";
import { Bar, FileDrop, Input, ProblemText, bytes } from "./parts.js";

/**
 * `what` is the noun in labels, `address` maps a name to its URL, `fields` are more fields of the
 * form, and `check` throws an Error for the paths of files that are not wanted; the rest goes to
 * FileDrop.
 */
export function Upload({ what, title, address, onDone, fields, check, ...drop }) {
  const [archive, setArchive] = useState();
  const [name, setName] = useState("");
  const [sent, setSent] = useState(0);
  const read = useAction(async (files) => {
    setArchive(undefined);
    const found = await archiveOf(files, check);
    setArchive(found);
    setName(nameOf(found.name));
  });
  useEffect(() => {
    const source = takeOver(); // dropped on the page before
    if (source) read.run(source);
  }, []);
  const put = useAction(async () => {
    setSent(0);
    const made = await upload(address(name), archive.blob, setSent);
    setArchive(undefined);
    onDone(made);
  });
  const submit = (event) => {
    event.preventDefault();
    put.run();
  };
  return html`
    <section class="card" aria-label=${`Upload a ${what}`}>
      ${title && html`<h2>${title}</h2>`}
      <${FileDrop} ...${drop} onFiles=${read.run} />
      ${read.busy && html`<p role="status">Reading the files…</p>`}
      <${ProblemText} problem=${read.problem} />
      ${
        archive &&
        html`
        <form class="line" onSubmit=${submit}>
          <${Input}
            label=${`Name of the ${what}`}
            value=${name}
            onChange=${setName}
            required
            hint=${`${bytes(archive.blob.size)} to send`}
          />
          <button class="primary" disabled=${put.busy}>Upload</button>
        </form>
        ${fields}
        ${put.busy && html`<${Bar} label="Upload" value=${sent} />`}
        ${put.busy && sent === 1 && html`<p role="status">Everything is sent; the service is checking it…</p>`}
        <${ProblemText} problem=${put.problem} />
      `
      }
    </section>
  `;
}
