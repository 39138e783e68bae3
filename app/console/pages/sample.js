// New images: request them, watch them appear, and work with them.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { all, send } from "../lib/api.js";
import { keyed, useAction, useAnswer } from "../lib/hooks.js";
import { useBatches } from "../lib/making.js";
import { Input, Page, Range, ProblemText, Select, given } from "../lib/parts.js";
import { SettingsDrop, alsoIn, sampleAddress, useKeepChoice, useKept } from "../lib/pictures.js";
import { Batch } from "./batch.js";
import { Orders, useOrders } from "./orders.js";

const MAX_IMAGES = 64; // of one answer, as the service has it by default; more become an order
const FOLDED = ["sampler", "num_inference_steps", "seed"]; // fields that are folded away
const SETTLES = 300; // milliseconds after the last change of the form, until it is in the address

export function Sample({ query }) {
  const models = useAnswer(keyed("models", (signal) => all("models", "name", signal)));
  const made = useBatches();
  const orders = useOrders();
  const empty = models.data && !models.data.length;
  const [keeps, setKeeps] = useKeepChoice();
  const kept = useKept(made.batches, keeps);
  const form = useForm(query);
  return html`
    <${Page}
      title="New images"
      actions=${html`<${SettingsDrop} />`}
      intro="Images start as noise. At every step the model predicts the clean image and moves x a small part of the way towards it."
    >
      <${ProblemText} problem=${models.problem} />
      ${empty && html`<p class="card">There is no model yet. <a href="#/training">Train one</a>, or <a href="#/models">upload one</a>.</p>`}
      ${
        models.data?.length > 0 &&
        html`<${RequestForm}
          key=${form.key}
          models=${models.data}
          query=${query}
          onChange=${form.write}
          made=${made}
          keeps=${keeps}
          setKeeps=${setKeeps}
          onOrdered=${orders.refresh}
        />`
      }
      <div class="gallery">
        ${made.batches.map(
          (batch) =>
            html`<${Batch}
              key=${batch.id}
              batch=${batch}
              kept=${kept[batch.id]}
              run=${made.run}
              stop=${made.stop}
              remove=${made.remove}
            />`,
        )}
      </div>
      <${Orders} orders=${orders} />
    <//>
  `;
}

/**
 * The form's settings in the page's address: {key, write}. Another `key` is another form, filled in
 * anew: somebody has followed a link, or dropped a picture. `write` puts what the form has now into
 * the address.
 */
function useForm(query) {
  const text = JSON.stringify(query);
  const now = useRef({ key: 0, text }).current;
  if (text !== now.text) {
    if (location.hash !== now.written) {
      now.key += 1;
      now.written = undefined;
    }
    now.text = text;
  }
  const write = (address) => {
    now.written = address;
    location.replace(address);
  };
  return { key: now.key, write };
}

/** The form for a request; `query` of the address fills it in. */
function RequestForm({ models, query, onChange, made, keeps, setKeeps, onOrdered }) {
  const samplers = useAnswer("samplers");
  const isKnownModel = models.some((m) => m.name === query.model);
  const [model, setModel] = useState(isKnownModel ? query.model : models[0].name);
  const [fields, setFields] = useState({
    num_images: query.num_images ?? "8",
    class_label: query.class,
    sampler: query.sampler,
    num_inference_steps: query.steps,
    guidance_scale: query.guidance === undefined ? undefined : Number(query.guidance),
    seed: query.seed,
  });
  const [also, setAlso] = useState(alsoIn(query));
  const { details } = models.find((each) => each.name === model);
  const set = (name) => (value) => setFields((old) => ({ ...old, [name]: value }));
  const names = details.class_names;
  const mayBeAny = details.has_null_class !== false;
  const label = names.includes(fields.class_label) || mayBeAny ? fields.class_label : names[0];
  const isKnown = names.includes(label);
  const own = also.invert ? 1 : (details.sampling?.guidance_scale ?? 1); // as POST /sample takes it
  const guidance = fields.guidance_scale ?? own;
  const known = samplers.data?.samplers.filter(
    (s) => s.for_distilled === Boolean(details.consistency),
  );
  const usual = known?.find((s) => s.is_default);
  const chosen = known?.find((s) => s.name === fields.sampler);
  const ofForm = made.batches.find((batch) => batch.isForm);
  const order = useAction(async (request) => {
    await send("sample", {
      json: request,
      accept: "application/json",
      headers: { Prefer: "respond-async" },
    });
    onOrdered();
  });
  const isOrder = given(fields.num_images) > MAX_IMAGES;
  const refusal = isOrder ? order.problem : ofForm?.problem;
  const error = (field) => refusal?.of?.(field);
  const isFolded = FOLDED.some(error);
  const [isSet] = useState(["sampler", "steps", "guidance", "seed"].some((name) => name in query));
  const isNamed = isFolded || ["num_images", "class_label"].some(error);

  const address = sampleAddress({
    ...also,
    ...fields,
    model,
    class_label: isKnown ? label : also.class_label,
    num_images: fields.num_images === "8" ? undefined : fields.num_images,
  });
  const first = useRef(address);
  useEffect(() => {
    if (address === first.current) return; // nothing was chosen yet
    first.current = undefined;
    const timer = setTimeout(() => address !== location.hash && onChange(address), SETTLES);
    return () => clearTimeout(timer);
  }, [address]);

  const submit = (event) => {
    event.preventDefault();
    const request = {
      ...also,
      model,
      num_images: given(fields.num_images),
      class_label: isKnown ? label : also.class_label,
      guidance_scale: isKnown && mayBeAny ? fields.guidance_scale : undefined,
      sampler: chosen?.name,
      num_inference_steps: given(fields.num_inference_steps),
      seed: given(fields.seed),
    };
    if (isOrder) return order.run(request);
    return made.run(request, {
      title: isKnown ? `${model}: ${label}` : model,
      isForm: true,
    });
  };

  return html`
    <form class="card" aria-label="What to make" onSubmit=${submit}>
      <div class="line">
        <${Select}
          label="Model"
          value=${model}
          options=${models.map((m) => m.name)}
          onChange=${setModel}
        />
        ${
          names.length > 0 &&
          html`<${Select}
            label="Class"
            value=${isKnown ? label : ""}
            options=${mayBeAny ? [["", "any"], ...names] : names}
            error=${error("class_label")}
            onChange=${set("class_label")}
          />`
        }
        <${Input}
          label="How many"
          type="number"
          min="1"
          required
          hint=${isOrder && `more than ${MAX_IMAGES} become an order, which a worker makes`}
          value=${fields.num_images}
          error=${error("num_images")}
          onChange=${set("num_images")}
        />
        <button class="primary" disabled=${order.busy}>${isOrder ? "Order images" : "Make images"}</button>
      </div>
      <label class="check">
        <input type="checkbox" checked=${keeps} onChange=${(event) => setKeeps(event.target.checked)} />
        Keep in the gallery
      </label>
      ${query.model && !isKnownModel && html`<p class="warning">There is no model ${query.model} here; the form has another one.</p>`}
      ${
        Object.keys(also).length > 0 &&
        html`<p class="warning">
          also set: ${Object.entries(also).map(([name, value]) => `${name.replaceAll("_", " ")} ${shown(value)}`).join("; ")} ${" "}
          <button type="button" class="small" onClick=${() => setAlso({})}>Leave these out</button>
        </p>`
      }
      <${ProblemText} problem=${samplers.problem} />
      ${isOrder && !isNamed && html`<${ProblemText} problem=${order.problem} />`}
      <details open=${isFolded || isSet}>
        <summary>Sampler, steps, guidance, seed</summary>
        <div class="fields">
          <${Select}
            label="Sampler"
            value=${chosen?.name ?? ""}
            hint=${chosen?.good_for}
            error=${error("sampler")}
            options=${[["", `${usual?.name ?? ""} (chosen)`], ...(known ?? []).map((s) => s.name)]}
            onChange=${set("sampler")}
          />
          <${Input}
            label="Steps"
            type="number"
            min="1"
            placeholder=${usual?.num_inference_steps}
            hint="more steps take longer and are more accurate"
            value=${fields.num_inference_steps ?? ""}
            error=${error("num_inference_steps")}
            onChange=${set("num_inference_steps")}
          />
          ${
            isKnown &&
            mayBeAny &&
            html`<${Range}
              label="Guidance"
              min="0"
              max="5"
              step="0.1"
              hint="strengthens the effect of the class; 1 is off"
              value=${guidance}
              onChange=${set("guidance_scale")}
            />`
          }
          <${Input}
            label="Seed"
            type="number"
            min="0"
            placeholder="random"
            hint="the same seed makes the same images"
            value=${fields.seed ?? ""}
            error=${error("seed")}
            onChange=${set("seed")}
          />
        </div>
      </details>
    </form>
  `;
}

const shown = (value) => (typeof value === "object" ? JSON.stringify(value) : value);
