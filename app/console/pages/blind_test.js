// A blind test of two models, or of a model and the real images that it learned from.

import { html, useState } from "../vendor/htm-preact.js";
import { save } from "../lib/files.js";
import { Bar, ConfirmButton, ProblemText, Select, countOf } from "../lib/parts.js";
import { useShortcuts } from "../lib/shortcuts.js";
import { REAL, useRounds } from "./rounds.js";
import { ClassSelect, pairFields, sharedClasses } from "./side_by_side.js";
import { count, csv, loadVotes, percent, preference, recognition, saveVotes } from "./tally.js";

const ENOUGH = 10; // rounds, after which the tally is shown

export function BlindTest({ models, query, keep }) {
  const [fields, setFields] = useState(() => ({ ...pairFields(models, query), real: query.real ?? "" }));
  const [started, setStarted] = useState(0);
  const [first, other] = [fields.model, fields.other].map((name) =>
    models.find((each) => each.name === name),
  );
  const isReal = Boolean(fields.real && first.dataset);
  const second = isReal ? undefined : other;
  const classes = isReal ? first.details.class_names : sharedClasses(first, other);
  const label = classes.includes(fields.class_label) ? fields.class_label : "";
  const isSame = !isReal && first === other;
  const change = (values) => {
    setStarted(0);
    setFields((old) => ({ ...old, ...values }));
  };
  const { model, other: against } = fields;
  keep({ model, other: isReal ? "" : against, real: isReal ? "yes" : "", class_label: label });
  const submit = (event) => {
    event.preventDefault();
    setStarted(started + 1);
  };
  const opponents = [
    ...(first.dataset ? [["", `real images of ${first.dataset}`]] : []),
    ...models.map(({ name }) => [name, name]),
  ];
  return html`
    <form class="card" aria-label="What to compare" onSubmit=${submit}>
      <div class="fields">
        <${Select}
          label="The model"
          value=${model}
          options=${models.map(({ name }) => name)}
          onChange=${(value) => change({ model: value })}
        />
        <${Select}
          label="Against"
          value=${isReal ? "" : against}
          options=${opponents}
          onChange=${(value) => change(value ? { other: value, real: "" } : { real: "yes" })}
        />
        <${ClassSelect}
          classes=${classes}
          label=${label}
          onChange=${(value) => change({ class_label: value })}
        />
      </div>
      ${isSame && html`<p class="note" role="status">Choose another model: two of one cannot be told apart.</p>`}
      ${!started && html`<button class="primary" disabled=${isSame}>Begin</button>`}
    </form>
    ${started > 0 && html`<${Test} key=${started} ...${{ first, second, label }} />`}
  `;
}

/** The name under which the votes on a pair are kept: by weights, so that others begin anew. */
function pairOf(first, second, label) {
  const ofModel = ({ name, digest }) => `${name}@${digest.slice(0, 12)}`;
  const theirs = second ? ofModel(second) : `${first.dataset}@${first.dataset_version}`;
  return JSON.stringify([...[ofModel(first), theirs].sort(), second ? "better" : "real", label]);
}

function Test({ first, second, label }) {
  const pair = pairOf(first, second, label);
  const { round, next, problem, retry } = useRounds(first, second, label);
  const [votes, setVotes] = useState(() => loadVotes(pair));
  const [ended, setEnded] = useState(false);
  const isShown = ended || votes.length >= ENOUGH;
  const keepVotes = (now) => {
    setVotes(now);
    saveVotes(pair, now);
  };
  const vote = (side) => {
    if (!round || ended) return;
    const { left, right } = round;
    const chosen = side ? round[side].name : "";
    const time = new Date().toISOString();
    keepVotes([...votes, { time, left: left.name, right: right.name, chosen }]);
    next();
  };
  useShortcuts("The blind test", [
    ["1", "chooses the left image", () => vote("left")],
    ["2", "chooses the right image", () => vote("right")],
    ["0", "cannot tell", () => vote()],
  ]);
  return html`
    <section class="card blind" aria-label="The test">
      <h2>${second ? "Which is better?" : "Which one is real?"}</h2>
      <${ProblemText} problem=${problem} />
      ${problem && html`<button onClick=${retry}>Try again</button>`}
      ${!round && !problem && html`<p role="status">Making the first images…</p>`}
      ${
        round &&
        !ended &&
        html`
        <div class="choices">
          ${["left", "right"].map(
            (side, i) => html`<button key=${side} onClick=${() => vote(side)}>
              <img src=${round[side].src} alt=${side === "left" ? "The left image" : "The right image"} />
              <span><kbd>${i + 1}</kbd> ${side === "left" ? "Left" : "Right"}</span>
            </button>`,
          )}
        </div>
        <div class="actions">
          <button onClick=${() => vote()}><kbd>0</kbd> Cannot tell</button>
          <button onClick=${() => setEnded(true)}>End the test</button>
        </div>
      `
      }
      <p role="status">${countOf(votes.length, "round")} ${votes.length ? "kept in this browser" : "so far"}${!isShown && `; the result is shown after ${ENOUGH}, or when you end the test`}.</p>
      ${ended && html`<button class="primary" onClick=${() => setEnded(false)}>Go on</button>`}
      ${isShown && html`<${Tally} ...${{ votes, first, second, reset: () => keepVotes([]) }} />`}
    </section>
  `;
}

function Tally({ votes, first, second, reset }) {
  const names = [first.name, second?.name ?? REAL];
  const sentence = second ? preference(votes, names) : recognition(votes, REAL);
  const text = second ? "was chosen" : "was taken for real";
  const download = () => save(new Blob([csv(votes)], { type: "text/csv" }), "blind-test.csv");
  const { undecided } = count(votes, first.name);
  return html`
    <div role="region" aria-label="Result">
      <p class="verdict">${sentence}</p>
      <ul class="tally">
        ${names.map((name) => {
          const { wins, decided, share, low, high } = count(votes, name);
          return html`<li>
            <strong>${name}</strong> ${text} in ${wins} of ${decided}${share !== undefined && `: ${percent(share)} (95% interval ${percent(low)} to ${percent(high)})`}
            <${Bar} label=${`Share of ${name}`} value=${share ?? 0} />
          </li>`;
        })}
      </ul>
      ${undecided > 0 && html`<p class="note">${countOf(undecided, "round")} without a decision ${undecided === 1 ? "is" : "are"} not counted.</p>`}
      <div class="actions">
        <button onClick=${download}>Download as CSV</button>
        <${ConfirmButton} question="Forget all votes on this pair?" yes="Forget them" onConfirm=${reset}>Reset<//>
      </div>
      <details>
        <summary>How it is computed</summary>
        <p>
          Of n decided rounds a share p chose this side. The interval is Wilson's: its centre is
          (p + z² / 2n) / (1 + z² / n), and it reaches z / (1 + z² / n) · √(p (1 − p) / n + z² / 4n²) to either
          side, with z = 1.96. Where one half lies inside it, the choices could still be chance. Looking at the
          result and then going on until it pleases makes it less certain than it says.
        </p>
      </details>
    </div>
  `;
}
