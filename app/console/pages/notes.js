// The tags and notes of a training, and the form that changes them.

import { html, useState } from "../vendor/htm-preact.js";
import { at, patch } from "../lib/api.js";
import { useAction } from "../lib/hooks.js";
import { Field, Input, ProblemText } from "../lib/parts.js";

/** The tags and notes of a job, with a button to change them. */
export function JobNotes({ job, name, refresh }) {
  const [edits, setEdits] = useState(false);
  const close = (isChanged) => {
    setEdits(false);
    if (isChanged) refresh();
  };
  if (edits) return html`<${NotesForm} job=${job} name=${name} onDone=${close} />`;
  return html`
    <div class="job-notes">
      <${Tags} of=${job.tags} />
      <button class="small" onClick=${() => setEdits(true)}>Edit<span class="hidden"> tags and notes of ${name}</span></button>
      ${job.notes && html`<p class="notes">${job.notes}</p>`}
    </div>
  `;
}

/** Tags, each a link to the trainings that have it. */
export function Tags({ of: tags }) {
  if (!tags.length) return null;
  return html`<span class="tags">
    ${tags.map(
      (tag) => html`<a key=${tag} class="tag" href=${`#/training?${new URLSearchParams({ tag })}`}>${tag}</a> `,
    )}
  </span>`;
}

/** Changes the tags and the notes of a job. `onDone` hears whether they were changed. */
function NotesForm({ job, name, onDone }) {
  const [tags, setTags] = useState(job.tags.join(", "));
  const [notes, setNotes] = useState(job.notes);
  const save = useAction(async () => {
    const list = tags.split(",").map((tag) => tag.trim()).filter(Boolean);
    await patch(at`train-jobs/${job.id}`, { tags: list, notes });
    onDone(true);
  });
  const errorOf = (field) => save.problem?.of?.(field);
  const isNamed = ["tags", "notes"].some(errorOf);
  return html`
    <form
      class="notes-form"
      aria-label=${`Tags and notes of ${name}`}
      onSubmit=${(event) => {
        event.preventDefault();
        save.run();
      }}
    >
      <${Input}
        label="Tags"
        hint="separated by commas"
        value=${tags}
        error=${errorOf("tags")}
        onChange=${setTags}
      />
      <${Field} label="Notes" error=${errorOf("notes")}>
        ${(attributes) => html`<textarea
          ...${attributes}
          rows="3"
          maxlength="2000"
          value=${notes}
          onInput=${(event) => setNotes(event.target.value)}
        ></textarea>`}
      <//>
      ${!isNamed && html`<${ProblemText} problem=${save.problem} />`}
      <div class="actions">
        <button class="small primary" disabled=${save.busy}>Save</button>
        <button class="small" type="button" onClick=${() => onDone(false)}>Cancel</button>
      </div>
    </form>
  `;
}
