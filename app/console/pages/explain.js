// Noise, explained: one picture through noise and back, with a model of one's choice.

import { html, useEffect, useMemo, useState } from "../vendor/htm-preact.js";
import { keep, useSettings } from "../lib/address.js";
import { all, at, get, send } from "../lib/api.js";
import { imageOf, pngOf } from "../lib/files.js";
import { keyed, useAnswer } from "../lib/hooks.js";
import { normal } from "../lib/normal.js";
import { FileDrop, Input, Page, ProblemText, Select, given } from "../lib/parts.js";
import { Back } from "./explain/back.js";
import { Dissolve } from "./explain/dissolve.js";
import { Guesses } from "./explain/guesses.js";
import { Guidance } from "./explain/guidance.js";
import { tablesAddress } from "./explain/levels.js";
import { Mending } from "./explain/mending.js";
import { sampled } from "./explain/parts.js";
import { pictureOf } from "./explain/pixels.js";

const EXAMPLE = "emoji"; // the model that comes with the service
const MAX_SEED = 2 ** 32;
const DEFAULTS = {
  ...{ model: "", class_label: "", picture: "made", column: "", row: "" },
  ...{ t: 300, step: 1, at: 2, share: 1, eta: 1, g: 3, seed: 1 },
};
const WHOLE = ["t", "step", "at", "seed", "column", "row"];

export function Explain() {
  const models = useAnswer(keyed("models", (signal) => all("models", "name", signal)));
  const samplers = useAnswer("samplers");
  const usable = models.data?.filter(({ damage }) => !damage);
  return html`
    <${Page}
      title="Noise, explained"
      intro="One picture goes through noise and back. Move the sliders; every number stands beside its formula."
    >
      <${ProblemText} problem=${models.problem || samplers.problem} />
      ${
        usable?.length === 0 &&
        html`<p class="card">There is no model yet to explain this with. <a href="#/training">Train one</a> or <a href="#/models">upload one</a>; until then, <a href="#/noise">dissolve a picture</a>.</p>`
      }
      ${
        usable?.length > 0 &&
        samplers.data &&
        html`<${Walk} models=${usable} samplers=${samplers.data.samplers} />`
      }
    <//>
  `;
}

/** The settings, with the usual value for each number that cannot be; a pixel may be undefined. */
function possible(settings) {
  const found = Object.entries(settings).map(([name, value]) => {
    const isText = typeof DEFAULTS[name] === "string" && !WHOLE.includes(name);
    if (isText) return [name, value];
    const number = given(value);
    const isPossible = WHOLE.includes(name) ? Number.isInteger(number) : Number.isFinite(number);
    return [name, isPossible && number >= 0 ? number : given(DEFAULTS[name])];
  });
  return Object.fromEntries(found);
}

function Walk({ models, samplers }) {
  const [asked, set] = useSettings(DEFAULTS);
  const settings = possible(asked);
  const [own, setOwn] = useState();
  const fallback = models.find(({ name }) => name === EXAMPLE) ?? models[0];
  const model = models.find(({ name }) => name === settings.model) ?? fallback;
  const { details } = model;
  const labels = labelsOf(details, settings.class_label);
  const tables = useAnswer(tablesAddress(details.schedule));
  const picture = usePicture({ model, settings, own, labels });
  const size = details.channels * details.image_size[0] * details.image_size[1];
  const noise = useMemo(() => normal(BigInt(settings.seed), 1, 0, size), [settings.seed, size]);
  const sampler = samplers.find((each) =>
    details.consistency ? each.for_distilled : each.takes_eta && each.takes_invert,
  );
  useEffect(() => keep({ model: model.name }), [model.name]); // a link means this model everywhere
  const shared = { model, settings, set, labels, tables: tables.data, picture: picture.data, noise };
  const ownSampler = { sampler: sampler?.name, takesEta: Boolean(sampler?.takes_eta) };
  const toLevel = (t) => {
    set({ t });
    document.getElementById("dissolve").scrollIntoView();
  };
  return html`
    <${Choice} ...${{ models, model, settings, set, setOwn, own, picture }} />
    <${ProblemText} problem=${tables.problem || picture.problem} />
    <${Dissolve} ...${shared} />
    <${Guesses} ...${shared} onLevel=${toLevel} />
    <${Back} ...${shared} ...${ownSampler} />
    <${Mending} ...${shared} ...${ownSampler} />
    <${Guidance}
      ...${shared}
      models=${models}
      addressOf=${(name) => `#/explain?${new URLSearchParams({ model: name })}`}
    />
    <section class="card step" aria-labelledby="own-images">
      <h2 id="own-images"><span class="ordinal" aria-hidden="true">6</span>Now your own images</h2>
      <p>
        A model learns all this from nothing but images: it sees them noised, guesses, and is corrected, many thousand times. Some dozens
        of your own images and some minutes are enough to see it happen.
      </p>
      <a class="button primary" href="#/datasets">Upload your own images</a>
    </section>
  `;
}

/** The class for a request: none for "any", where the model has that. */
function labelsOf({ class_names: names = [], has_null_class: hasNull }, chosen) {
  const label = names.includes(chosen) ? chosen : hasNull === false ? names[0] : undefined;
  return label === undefined ? {} : { class_label: label, guidance_scale: 1 };
}

/** The picture: made by the model, one from its dataset, or the visitor's own. */
function usePicture({ model, settings, own, labels }) {
  const { picture: from, seed } = settings;
  const kind = from === "own" && own ? "own" : from === "dataset" && model.dataset ? from : "made";
  const key = ["picture", model.name, kind, seed, labels.class_label, kind === "own" && own.id].join(" ");
  return useAnswer(
    keyed(key, async (signal) => {
      const load = { own: () => own.file, dataset: () => fromDataset(model, seed, labels, signal) };
      const made = async () =>
        pngOf((await sampled({ model: model.name, seed, ...labels }, signal)).images[0]);
      return { ...(await pictureOf(await (load[kind] ?? made)(), model.details)), key };
    }),
  );
}

async function fromDataset({ dataset }, seed, { class_label: label }, signal) {
  const query = new URLSearchParams({ limit: 100, ...(label && { class: label }) });
  const { items } = await get(`${at`datasets/${dataset}/images`}?${query}`, signal);
  if (!items.length) throw new Error(`The dataset ${dataset} has no images of this class.`);
  const { id } = items[seed % items.length];
  return (await send(at`datasets/${dataset}/images/${id}/file`, { signal })).blob();
}

function Choice({ models, model, settings, set, setOwn, own, picture }) {
  const { class_names: names = [], has_null_class: hasNull } = model.details;
  const sources = [
    ["made", "made by the model"],
    ...(model.dataset ? [["dataset", `one of its dataset, ${model.dataset}`]] : []),
    ...(own ? [["own", "your own"]] : []),
  ];
  const take = (files) => {
    setOwn({ file: imageOf(files), id: Date.now() });
    set({ picture: "own" });
  };
  return html`
    <section class="card" aria-label="Model and picture">
      <div class="fields choice">
        <${Select}
          label="Model"
          value=${model.name}
          options=${models.map(({ name }) => name)}
          onChange=${(name) => set({ model: name, column: "", row: "" })}
        />
        ${
          names.length > 0 &&
          html`<${Select}
            label="Class of the picture"
            value=${names.includes(settings.class_label) ? settings.class_label : ""}
            options=${hasNull === false ? names : [["", "any"], ...names]}
            onChange=${(class_label) => set({ class_label })}
          />`
        }
        <${Select}
          label="Picture"
          value=${sources.some(([name]) => name === settings.picture) ? settings.picture : "made"}
          options=${sources}
          onChange=${(value) => set({ picture: value })}
        />
        <${Input}
          label="Seed"
          type="number"
          min="0"
          hint="of the picture and of all noise"
          value=${settings.seed}
          onChange=${(text) => Number.isInteger(given(text)) && given(text) >= 0 && set({ seed: Math.min(MAX_SEED, given(text)) })}
        />
      </div>
      <div class="actions">
        <button onClick=${() => set({ seed: Math.floor(Math.random() * MAX_SEED) })}>Another picture</button>
      </div>
      <details>
        <summary>Take a picture of your own</summary>
        <${FileDrop} label="Choose a picture" hint="or drop one here; it is cropped to the size of the model's images" accept="image/*" onFiles=${take} />
      </details>
      ${!picture.data && !picture.problem && html`<p class="note" role="status">The model makes the picture.</p>`}
    </section>
  `;
}
