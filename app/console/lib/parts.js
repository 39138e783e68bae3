// Components of the pages.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Unreachable } from "./api.js";
import { useDrops } from "./drops.js";
import { useAction } from "./hooks.js";
import { entitle } from "./title.js";

/** A page with its heading, which gets the focus so that a screen reader announces the page. */
export function Page({ title, intro, actions, children }) {
  const heading = useRef();
  useEffect(() => {
    entitle({ page: title });
    heading.current.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [title]);
  return html`
    <header class="page-head">
      <h1 tabindex="-1" ref=${heading}>${title}</h1>
      ${actions && html`<div class="actions">${actions}</div>`}
      ${intro && html`<p class="intro">${intro}</p>`}
    </header>
    ${children}
  `;
}

/** The text of a problem. A lost connection is only shown once, at the top of the page. */
export function ProblemText({ problem, ...rest }) {
  if (!problem || problem instanceof Unreachable) return null;
  return html`<p class="problem" role="alert" ...${rest}>${problem.message ?? problem}</p>`;
}

let count = 0;

/** A control with label, hint and error; children is a function of the control's attributes. */
export function Field({ label, hint, error, children }) {
  const [id] = useState(() => `field-${(count += 1)}`);
  const about = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const attributes = { id, "aria-describedby": about || undefined, "aria-invalid": Boolean(error) };
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      ${children(attributes)}
      ${hint && html`<small id=${`${id}-hint`}>${hint}</small>`}
      ${error && html`<small class="error" id=${`${id}-error`} role="alert">${error}</small>`}
    </div>
  `;
}

/** A select; each of `options` is [value, text] or a value. */
export function Select({ label, hint, error, value, options, onChange, ...rest }) {
  return html`
    <${Field} label=${label} hint=${hint} error=${error}>
      ${(attributes) => html`
        <select
          ...${attributes}
          ...${rest}
          value=${value}
          onChange=${(event) => onChange(event.target.value)}
        >
          ${options.map((option) => {
            const [of, text] = Array.isArray(option) ? option : [option, option];
            return html`<option value=${of} selected=${of === value}>${text}</option>`;
          })}
        </select>
      `}
    <//>
  `;
}

export function Input({ label, hint, error, value, onChange, ...rest }) {
  return html`
    <${Field} label=${label} hint=${hint} error=${error}>
      ${(attributes) => html`
        <input
          ...${attributes}
          ...${rest}
          value=${value}
          onInput=${(event) => onChange(event.target.value)}
        />
      `}
    <//>
  `;
}

export function Range({ label, hint, value, onChange, shown, ...rest }) {
  return html`
    <${Field} label=${label} hint=${hint}>
      ${(attributes) => html`
        <div class="range">
          <input
            type="range"
            ...${attributes}
            ...${rest}
            value=${value}
            onInput=${(event) => onChange(Number(event.target.value))}
          />
          <output for=${attributes.id}>${shown ?? value}</output>
        </div>
      `}
    <//>
  `;
}

/** A button that asks for confirmation before an action. */
export function ConfirmButton({ children, question, yes, onConfirm, disabled }) {
  const dialog = useRef();
  const action = useAction(onConfirm);
  return html`
    <button class="danger" disabled=${disabled} onClick=${() => dialog.current.showModal()}>
      ${children}
    </button>
    <dialog ref=${dialog} aria-label=${question} class="question">
      <p>${question}</p>
      <${ProblemText} problem=${action.problem} />
      <div class="actions">
        <button onClick=${() => dialog.current.close()}>No</button>
        <button
          class="danger"
          disabled=${action.busy}
          onClick=${async () => (await action.run()) && dialog.current?.close()}
        >
          ${yes}
        </button>
      </div>
    </dialog>
  `;
}

/**
 * A target for dropped files, with buttons to choose them. onFiles gets a source for files.js. The
 * first one of a page also gets files that are dropped elsewhere, or pasted.
 */
export function FileDrop({ label, hint, accept, multiple, folders, onFiles, children }) {
  useDrops(onFiles);
  const [over, setOver] = useState(false);
  const input = useRef();
  const folder = useRef();
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    onFiles(event.dataTransfer);
  };
  const chosen = (event) => {
    if (event.target.files.length) onFiles(event.target);
    event.target.value = "";
  };
  return html`
    <div
      class=${`drop ${over ? "over" : ""}`}
      onDragOver=${(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave=${() => setOver(false)}
      onDrop=${drop}
    >
      ${children}
      <div class="actions">
        <button type="button" onClick=${() => input.current.click()}>${label}</button>
        ${
          folders &&
          html`<button
            type="button"
            onClick=${() => folder.current.click()}
          >Choose a folder</button>`
        }
      </div>
      <small>${hint}</small>
      <input
        ref=${input}
        type="file"
        hidden
        accept=${accept}
        multiple=${multiple}
        onChange=${chosen}
        aria-label=${label}
      />
      ${
        folders &&
        html`<input
          ref=${folder}
          type="file"
          hidden
          webkitdirectory
          onChange=${chosen}
          aria-label="Choose a folder"
        />`
      }
    </div>
  `;
}

export function Bar({ label, value }) {
  return html`
    <div class="bar">
      <progress aria-label=${label} max="1" value=${value}></progress>
      <span>${Math.round(100 * value)}%</span>
    </div>
  `;
}

/** A list of names and values; rows without a value are left out. */
export function Properties({ of }) {
  const rows = of.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return html`
    <dl class="facts">
      ${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
  `;
}

/** A block of code with a button to copy it. */
export function Code({ label, text }) {
  const [copied, setCopied] = useState(false);
  const copy = useAction(async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  });
  return html`
    <figure class="code">
      <figcaption>
        ${label}
        ${
          navigator.clipboard &&
          html`<button class="small" onClick=${copy.run}>
          ${copied ? "Copied" : "Copy"}<span class="hidden"> as ${label}</span>
        </button>`
        }
      </figcaption>
      <${ProblemText} problem=${copy.problem} />
      <pre tabindex="0" aria-label=${label}>${text}</pre>
    </figure>
  `;
}

/** A dialog that is open as long as it is rendered. */
export function Dialog({ title, onClose, children }) {
  return html`
    <dialog ref=${open} aria-label=${title} onClose=${onClose}>
      <header class="dialog-head">
        <h2>${title}</h2>
        <button class="small" onClick=${(event) => event.target.closest("dialog").close()}>Close</button>
      </header>
      ${children}
    </dialog>
  `;
}

/** Opens a dialog before what is in it measures its room. */
const open = (dialog) => dialog?.showModal();

export const Status = ({ of }) => html`<span class=${`status ${of}`}>${of}</span>`;

// Text ---------------------------------------------------------------------------------------------

export const number = (value, digits = 3) =>
  value === null || value === undefined
    ? ""
    : Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3)
      ? value.toExponential(1)
      : Number(value.toPrecision(digits)).toLocaleString("en");

export const countOf = (n, one, many = `${one}s`) =>
  `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

export function bytes(n) {
  for (const unit of ["bytes", "kB", "MB"]) {
    if (n < 1000) return `${unit === "bytes" ? n : n.toFixed(1)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} GB`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

export const when = (time) =>
  new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** Parses an input's text: undefined if empty, else a number or the text. */
export const given = (text) =>
  text === "" || text === undefined ? undefined : isNaN(text) ? text : Number(text);
