// Step 5: guidance exaggerates what a class changes.

import { html } from "../../vendor/htm-preact.js";
import { base64 } from "../../lib/files.js";
import { Range, Select, number } from "../../lib/parts.js";
import { Formula, Step, Waiting, sampled, useSeenAnswer } from "./parts.js";
import { meanSquare, valuesOf } from "./pixels.js";

const SCALES = [0, 1, 2, 4, 8];

export function Guidance({ model, models, settings, set, addressOf }) {
  const { class_names: names = [], has_null_class: hasNull } = model.details;
  const others = models.filter(
    ({ details }) => details.class_names?.length && details.has_null_class !== false,
  );
  return html`
    <${Step} number="5" title="What guidance does" id="guidance">
      ${(seen) =>
        names.length && hasNull !== false
          ? html`<${Guided} ...${{ seen, model, names, settings, set }} />`
          : html`
            <p>${names.length ? `${model.name} always needs a class: it cannot say what it would do without one, and guidance needs both.` : `${model.name} has no classes, and guidance exaggerates what a class changes.`}</p>
            ${
              others.length > 0
                ? html`<p>Models that can be guided: ${others.map(({ name }, i) => html`${i > 0 && ", "}<a href=${addressOf(name)}>${name}</a>`)}.</p>`
                : html`<p>No model here can be guided. One that learns from folders of images, one for each class, can: <a href="#/training">train one</a>.</p>`
            }
          `}
    <//>
  `;
}

function Guided({ seen, model, names, settings, set }) {
  const label = names.includes(settings.class_label) ? settings.class_label : names[0];
  const { g, seed } = settings;
  const shape = [model.details.channels, ...model.details.image_size];
  const row = useSeenAnswer(seen, `guided ${[model.name, label, seed]}`, (signal) =>
    Promise.all(SCALES.map((scale) => imageOf(model.name, label, seed, scale, signal))),
  );
  const own = useSeenAnswer(seen, `guided ${[model.name, label, seed, g]}`, (signal) =>
    imageOf(model.name, label, seed, g, signal),
  );
  const measured = useSeenAnswer(
    row.data && own.data,
    `measured ${[model.name, label, seed, g]}`,
    () => distances([...(row.data ?? []), own.data], shape),
  );
  return html`
    <div>
      <p>
        At each step the model guesses twice: once told the class, and once not. Guidance goes from the second guess towards the first, and
        with g above 1 beyond it. All pictures here begin with the same noise.
      </p>
      <div class="fields">
        <${Select} label="Class" value=${label} options=${names} onChange=${(value) => set({ class_label: value })} />
        <${Range} label="g of your own" min="0" max="10" step="0.5" value=${g} onChange=${(value) => set({ g: value })} />
      </div>
      <${Formula} says="Guidance" symbols=${html`ε̂ = ε<sub>u</sub> + g (ε<sub>c</sub> − ε<sub>u</sub>)`}>= ε<sub>u</sub> + ${number(g)} (ε<sub>c</sub> − ε<sub>u</sub>)<//>
      <p class="note">ε<sub>c</sub>: the noise as the model sees it when told the class; ε<sub>u</sub>: when not told. g = 0 ignores the class, g = 1 is the plain model.</p>
      <${Waiting} answer=${{ data: row.data && own.data, problem: row.problem || own.problem }} text="The model makes a picture for each g." />
      ${
        row.data &&
        own.data &&
        html`<div class="pictures row-of-six">
          ${[...row.data, own.data].map(
            (image, i) => html`<figure>
              <div class="frame"><img src=${base64(image)} alt=${`g = ${SCALES[i] ?? g}${i < SCALES.length ? "" : ", your own"}`} /></div>
              <figcaption>g = ${SCALES[i] ?? g}${i === SCALES.length && " (yours)"}<br />${measured.data && `d = ${number(measured.data[i])}`}</figcaption>
            </figure>`,
          )}
        </div>`
      }
      <${Formula} says="The distance from the unguided picture" symbols=${html`d = √ mean of (x<sub>0</sub> at g − x<sub>0</sub> at g = 1)²`}>${measured.data && `= ${number(measured.data.at(-1))} at g = ${number(g)}`}<//>
      <p>
        A larger g makes the class clearer and the pictures more alike, with stronger colours; too large a g drives the values to their
        bounds. 1.5 to 4 is usual.
      </p>
    </div>
  `;
}

async function imageOf(model, label, seed, scale, signal) {
  const request = { model, class_label: label, seed, guidance_scale: scale };
  return (await sampled(request, signal)).images[0];
}

async function distances(images, shape) {
  const values = await Promise.all(images.map((image) => valuesOf(image, shape)));
  const plain = values[SCALES.indexOf(1)];
  return values.map((each) => Math.sqrt(meanSquare(each, plain)));
}
