// Try a model: a few images, made while one watches, and the same request as code.

import { html, useRef, useState } from "../vendor/htm-preact.js";
import { useSettings } from "../lib/address.js";
import { base64 } from "../lib/files.js";
import { useBatches } from "../lib/making.js";
import { Code, Input, ProblemText, Select, given } from "../lib/parts.js";
import { KeptNote, inWords, sampleAddress, useKeepChoice, useKept } from "../lib/pictures.js";
import { curl, javascript, onnxJavascript, onnxPython, python } from "../lib/request_code.js";

const MAX_SEED = 2 ** 32;

export function TryIt({ model, needsKey }) {
  const { class_names: names = [], has_null_class: mayBeAny } = model.details;
  const made = useBatches();
  const [batch] = made.batches;
  const [keeps] = useKeepChoice();
  const kept = useKept(made.batches, keeps);
  const [settings, change] = useSettings({ class_label: "", num_images: "4", seed: "0" });
  const { num_images: count, seed } = settings;
  const label = firstLabel(settings.class_label, names, mayBeAny);
  const request = {
    model: model.name,
    num_images: given(count),
    class_label: label || undefined,
    seed: given(seed),
  };
  const make = (event) => {
    event.preventDefault();
    made.run(request, { title: model.name });
  };
  const others = () => {
    const other = Math.floor(Math.random() * MAX_SEED);
    change({ seed: `${other}` });
    made.run({ ...request, seed: other }, { title: model.name });
  };
  const refusal = batch?.problem;
  const error = (field) => refusal?.of?.(field);
  const isNamed = ["num_images", "class_label", "seed"].some(error);
  const isMaking = batch && !batch.images.length && !batch.problem;
  return html`
    <section class="card" aria-label="Try it">
      <h2>Try it</h2>
      <form class="line" onSubmit=${make}>
        ${
          names.length > 0 &&
          html`<${Select}
            label="Class"
            value=${label}
            options=${mayBeAny === false ? names : [["", "any"], ...names]}
            error=${error("class_label")}
            onChange=${(value) => change({ class_label: value })}
          />`
        }
        <${Input}
          label="How many"
          type="number"
          min="1"
          max="64"
          required
          value=${count}
          error=${error("num_images")}
          onChange=${(value) => change({ num_images: value })}
        />
        <${Input}
          label="Seed"
          type="number"
          min="0"
          required
          value=${seed}
          error=${error("seed")}
          onChange=${(value) => change({ seed: value })}
        />
        <button class="primary" disabled=${isMaking}>Make images</button>
      </form>
      ${!isNamed && html`<${ProblemText} problem=${refusal} />`}
      <${Made} batch=${batch} count=${given(count)} />
      <${KeptNote} kept=${batch && kept[batch.id]} />
      <div class="actions">
        ${
          batch?.images.length > 0 &&
          html`<button onClick=${others}>Make others</button>`
        }
        ${isMaking && html`<button onClick=${() => made.stop(batch.id)}>Stop</button>`}
        <a href=${sampleAddress(batch?.request ?? request)}>More settings and tools</a>
      </div>
    </section>
    <section class="card" aria-label="The same request as code">
      <h2>The same request as code</h2>
      <${Languages} request=${request} needsKey=${needsKey} />
    </section>
  `;
}

const firstLabel = (given, names, mayBeAny) =>
  names.includes(given) ? given : mayBeAny === false ? names[0] : "";

/** The images of a batch as far as they are, or empty places before the first. */
function Made({ batch, count }) {
  const places = batch?.problem || !batch ? Math.min(count || 1, 16) : batch.count;
  const shown = (i) => batch?.images[i] ?? batch?.previews[i]?.findLast(Boolean);
  return html`
    <p class="note" role="status">${stateOf(batch)}</p>
    <div class="made" aria-busy=${Boolean(batch) && !batch.images.length && !batch.problem}>
      ${Array.from({ length: places }, (_, i) =>
        shown(i)
          ? html`<img src=${base64(shown(i))} alt=${`Image ${i + 1}`} />`
          : html`<div class="blank"></div>`,
      )}
    </div>
  `;
}

function stateOf(batch) {
  if (!batch || batch.problem) return "Press the button: images appear here, out of noise.";
  const { images, used, step, steps } = batch;
  if (!steps) return "waiting for its turn";
  if (!images.length) return `step ${step} of ${steps}`;
  return `${inWords(used)}: the same seed makes the same images.`;
}

// The request in each language ---------------------------------------------------------------------

const LANGUAGES = [
  {
    name: "curl",
    blocks: (request, needsKey) => [["curl", curl(request, needsKey)]],
    note: "Writes the images side by side into one file, images.png. curl 7.82 or newer.",
  },
  {
    name: "Python",
    blocks: (request, needsKey) => [["Python", python(request, needsKey)]],
    note: html`Writes a file for each image. The package is in the service's repository: <code>pip install ./client</code>.`,
  },
  {
    name: "JavaScript",
    blocks: (request, needsKey) => [["JavaScript", javascript(request, needsKey)]],
    note: html`For Node 18 or newer, as a file such as images.mjs. In a page, give <code>data:image/png;base64,</code> and an image to the src of an img.`,
  },
  {
    name: "ONNX",
    blocks: (request, needsKey) => [
      ["Python with ONNX", onnxPython(request, needsKey)],
      ["JavaScript with ONNX", onnxJavascript(request)],
    ],
    note: html`The same images without the service, to one grey level of its float32. Both programs are in its repository: run the first in its folder;
      the second is the script of a page in docs/portable, beside the unpacked download. The README.md in the download explains how to write one in any language.`,
  },
];

function Languages({ request, needsKey }) {
  const [chosen, setChosen] = useState(0);
  const tabs = useRef();
  const move = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = (chosen + by + LANGUAGES.length) % LANGUAGES.length;
    setChosen(next);
    tabs.current.children[next].focus();
  };
  const { name, blocks, note } = LANGUAGES[chosen];
  return html`
    <div class="tabs" role="tablist" aria-label="Language" ref=${tabs} onKeyDown=${move}>
      ${LANGUAGES.map(
        (language, i) => html`<button
          role="tab"
          id=${`tab-${i}`}
          aria-selected=${i === chosen}
          aria-controls="tab-panel"
          tabindex=${i === chosen ? 0 : -1}
          onClick=${() => setChosen(i)}
        >${language.name}</button>`,
      )}
    </div>
    <div role="tabpanel" id="tab-panel" aria-labelledby=${`tab-${chosen}`}>
      ${blocks(request, needsKey).map(
        ([label, text]) => html`<${Code} key=${label} label=${label} text=${text} />`,
      )}
      <p class="note">${note}</p>
    </div>
  `;
}
