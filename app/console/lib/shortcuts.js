// Keys that do something on a page, and the list of them under "?".

import { html, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Dialog } from "./parts.js";

const OFF = "diffusion-shortcuts-off"; // speech input may press keys by mistake (WCAG 2.1.4)
const ARROWS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" }; // may be held
const SOON = 1500; // milliseconds between the two keys of one shortcut

/** The lists of shortcuts, each as {title, keys: [[keys, does, run]], inDialog}; the last goes first. */
const lists = new Set();

/**
 * Puts shortcuts in force while the component is shown. Each is [keys, does, run]: `keys` as in
 * `event.key`, two of them with a space between, `does` what the list under "?" says. While a
 * dialog hides the page, only the shortcuts of dialogs (`inDialog`) are in force.
 */
export function useShortcuts(title, keys, { inDialog = false } = {}) {
  const list = useRef({}).current;
  Object.assign(list, { title, keys, inDialog }); // now, so that no key runs what was shown before
  useLayoutEffect(() => { // a key may be pressed as soon as the page is seen
    lists.add(list);
    return () => lists.delete(list);
  }, []);
}

/** Keys that belong to the control that has the focus. */
function isTyping({ target }) {
  return Boolean(target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]"));
}

let before; // the first key of two: {key, at}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
  if (event.key === "Shift" || localStorage.getItem(OFF)) return;
  if (event.repeat && !(event.key in ARROWS)) return;
  const both = before && event.timeStamp - before.at < SOON ? `${before.key} ${event.key}` : undefined;
  before = { key: event.key, at: event.timeStamp };
  const isHidden = Boolean(document.querySelector("dialog[open]"));
  for (const { keys, inDialog } of [...lists].reverse()) {
    if (isHidden !== inDialog) continue;
    const found = keys.find(([each]) => each === both) ?? keys.find(([each]) => each === event.key);
    if (!found) continue;
    event.preventDefault();
    before = undefined;
    return found[2]();
  }
}

addEventListener("keydown", pressed);

/** The list of the shortcuts that are in force on the page. */
export function Shortcuts({ onClose }) {
  const [shown] = useState([...lists]);
  const [off, setOff] = useState(Boolean(localStorage.getItem(OFF)));
  const turn = ({ target }) => {
    if (target.checked) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "1");
    setOff(!target.checked);
  };
  return html`
    <${Dialog} title="Keyboard shortcuts" onClose=${onClose}>
      <label class="check">
        <input type="checkbox" checked=${!off} onChange=${turn} /> Use these keys
      </label>
      ${shown.map(
        ({ title, keys }) => html`
          <h3>${title}</h3>
          <dl class="shortcuts">
            ${keys.map(([each, does]) => html`<div><dt>${each.split(" ").map(key)}</dt><dd>${does}</dd></div>`)}
          </dl>
        `,
      )}
      <p class="note">
        <kbd>Tab</kbd> reaches every control, <kbd>Enter</kbd> and <kbd>Space</kbd> press it, <kbd>Esc</kbd> closes a dialog.
      </p>
    <//>
  `;
}

const key = (name) => html`<kbd>${ARROWS[name] ?? name}</kbd> `;
