// Components that the steps of the explanation share.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { send } from "../../lib/api.js";
import { keyed, useAnswer } from "../../lib/hooks.js";
import { ProblemText } from "../../lib/parts.js";
import { draw } from "./pixels.js";

/**
 * A section with a number, which begins its requests when it comes into view. A component in it that
 * asks for something has one root: without it, the vendored Preact puts the
 * parts that come with the answer before those that were there.
 */
export function Step({ number, title, id, children }) {
  const [seen, ref] = useSeen();
  return html`
    <section class="card step" aria-labelledby=${id} ref=${ref}>
      <h2 id=${id}><span class="ordinal" aria-hidden="true">${number}</span>${title}</h2>
      ${children(seen)}
    </section>
  `;
}

/** [whether an element was in view or close to it, its ref]. */
function useSeen() {
  const ref = useRef();
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    const watch = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && setSeen(true),
      { rootMargin: "200px" },
    );
    watch.observe(ref.current);
    return () => watch.disconnect();
  }, []);
  return [seen, ref];
}

/** The answer of `load(signal)` for the key; nothing is asked before the step is seen. */
export const useSeenAnswer = (seen, key, load) => useAnswer(seen && key && keyed(key, load));

/** What an answer waits for, or why there is none. */
export function Waiting({ answer, text }) {
  if (answer.problem) return html`<${ProblemText} problem=${answer.problem} />`;
  return answer.data ? null : html`<p class="note" role="status">${text}</p>`;
}

/** POST /sample as JSON. */
export async function sampled(request, signal) {
  const answer = await send("sample", { json: request, accept: "application/json", signal });
  return answer.json();
}

/** A picture of numbers with its name; its values are divided by `scale` to be shown. */
export function Shown({ picture, scale = 1, says, onPick, children }) {
  const canvas = useRef();
  useLayoutEffect(() => picture && draw(canvas.current, picture, scale), [picture, scale]); // with its name
  const pick = (event) => {
    const { left, top, width, height } = canvas.current.getBoundingClientRect();
    const of = (at, size, count) => Math.min(count - 1, Math.max(0, Math.floor((at / size) * count)));
    const [, rows, columns] = picture.shape;
    onPick(of(event.clientX - left, width, columns), of(event.clientY - top, height, rows));
  };
  return html`
    <figure class="shown">
      ${
        picture
          ? html`<canvas ref=${canvas} role="img" aria-label=${says} onClick=${onPick && pick}></canvas>`
          : html`<div class="blank"></div>`
      }
      <figcaption>${children}</figcaption>
    </figure>
  `;
}

/** A formula with its numbers beside it; `says` names it for tests and screen readers. */
export const Formula = ({ says, symbols, children }) => html`
  <p class="formula" role="group" aria-label=${says}>
    <span class="symbols">${symbols}</span> <span class="numbers">${children}</span>
  </p>
`;

/** A number with a sign that a formula can hold: negative ones in brackets. */
export const signed = (text) => (text.startsWith("-") ? `(${minus(text)})` : text);

/** A number with the sign of formulas instead of a hyphen. */
export const minus = (text) => text.replace(/^-/, "−");
