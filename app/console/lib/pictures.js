// Pictures that carry their settings: kept in the gallery, and read when they are dropped or pasted.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { at, get, send } from "./api.js";
import { useDrops } from "./drops.js";
import { pngOf } from "./files.js";
import { go } from "./hooks.js";
import { report, say } from "./notices.js";

const AT_ONCE = 64; // files of one request
const MAX_CHARACTERS = 24e6; // of their base64, to stay below the service's bound of 32 MiB
const LINK = /#\/gallery\?(?:[^\s#]*&)?picture=([0-9a-f]{17})\b/;

// Keeping ------------------------------------------------------------------------------------------

/** Keeps PNG files, given in base64; returns their records. */
async function keep(images) {
  const items = [];
  for (let next = 0; next < images.length; ) {
    const form = new FormData();
    let characters = 0;
    for (let count = 0; count < AT_ONCE && next < images.length; count += 1, next += 1) {
      characters += images[next].length;
      if (count && characters > MAX_CHARACTERS) break;
      form.append("image", pngOf(images[next]), `${next}.png`);
    }
    const answer = await send("pictures", { method: "POST", body: form, accept: "application/json" });
    items.push(...(await answer.json()).items);
  }
  return items;
}

const CHOICE = "diffusion-keep-pictures";
let saidThatItFails = false;

/** [whether new images are kept, a function to change that]; the choice is remembered. */
export function useKeepChoice() {
  const [on, setOn] = useState(localStorage.getItem(CHOICE) !== "no");
  const choose = (value) => {
    localStorage.setItem(CHOICE, value ? "yes" : "no");
    setOn(value);
  };
  return [on, choose];
}

/**
 * Keeps the images of each batch once it is done, if `on`. Returns by the ids of batches what became
 * of them: {items} or {problem}. A failure is reported once, and noted at every batch.
 */
export function useKept(batches, on) {
  const [kept, setKept] = useState({});
  const seen = useRef(new Set()).current;
  useEffect(() => {
    for (const { id, images } of batches) {
      if (!images.length || seen.has(id)) continue;
      seen.add(id);
      if (on) keepBatch(id, images);
    }
  }, [batches]);
  const keepBatch = async (id, images) => {
    const set = (result) => setKept((old) => ({ ...old, [id]: result }));
    try {
      set({ items: await keep(images) });
    } catch (problem) {
      set({ problem });
      if (!saidThatItFails) report(new Error(`The images are not kept in the gallery: ${problem.message}`));
      saidThatItFails = true;
    }
  };
  return kept;
}

/** Says below a batch what became of its images; `kept` is an item of useKept, or undefined. */
export function KeptNote({ kept }) {
  if (!kept) return null;
  if (kept.problem) return html`<p class="note">Not kept in the gallery: ${kept.problem.message}</p>`;
  return html`<p class="note">Kept in <a href="#/gallery">the gallery</a>.</p>`;
}

// Settings -----------------------------------------------------------------------------------------

// Fields of a request by their names in the address of the sample page; the rest is JSON in `also`.
const NAMES = {
  model: "model",
  class_label: "class",
  num_images: "num_images",
  sampler: "sampler",
  num_inference_steps: "steps",
  guidance_scale: "guidance",
  seed: "seed",
};
const OF_FILES = ["strength", "fit", "range", "frames", "invert"]; // make sense with an init_image only
const OF_ANSWER = ["trajectory"];

/** The settings that were `used` for images, as a line of text. */
export function inWords({ sampler, num_inference_steps: steps, guidance_scale: guidance, seed }) {
  return [sampler, `${steps} steps`, ...(guidance === 1 ? [] : [`guidance ${guidance}`]), `seed ${seed}`].join(", ");
}

/** The address of the sample page with a request filled in. */
export function sampleAddress(request) {
  const query = new URLSearchParams();
  const also = {};
  for (const [name, value] of Object.entries(request)) {
    if (value === undefined || value === "" || OF_ANSWER.includes(name)) continue;
    const isPlain = name in NAMES && (name !== "class_label" || typeof value === "string");
    if (isPlain) query.set(NAMES[name], value);
    else also[name] = value;
  }
  if (Object.keys(also).length) query.set("also", JSON.stringify(also));
  return `#/sample${query.size ? `?${query}` : ""}`;
}

/** What the form has no field for, in the `also` of its address; empty where that is malformed. */
export function alsoIn(query) {
  try {
    const found = JSON.parse(query.also ?? "{}");
    return typeof found === "object" && found && !Array.isArray(found) ? found : {};
  } catch {
    return {};
  }
}

/** The address with the settings of a picture, as the service reads them from its file. */
export function addressOf({ request, not_in_file }) {
  if (!not_in_file.length) return sampleAddress(request);
  const rest = Object.entries(request).filter(([name]) => !OF_FILES.includes(name));
  return sampleAddress(Object.fromEntries(rest));
}

/** What a picture began with that its file does not hold, in a sentence; "" where that is nothing. */
export function aboutStart({ not_in_file }) {
  if (!not_in_file.length) return "";
  const both = not_in_file.length > 1;
  const what = both ? "a start image and a mask" : not_in_file[0] === "mask" ? "a mask" : "a start image";
  return `It was made with ${what}, which the file does not hold: only the other settings come back.`;
}

function fillIn(settings, name) {
  go(addressOf(settings));
  const warning = settings.warning && `But ${settings.warning}.`;
  say([`The settings of ${name} are filled in.`, aboutStart(settings), warning].filter(Boolean).join(" "));
}

async function readFile(file) {
  try {
    const answer = await send("pictures/recipe", {
      method: "POST",
      body: file,
      headers: { "Content-Type": "application/octet-stream" },
      accept: "application/json",
    });
    fillIn(await answer.json(), file.name || "the picture");
  } catch (problem) {
    if (problem.status !== 422) return report(problem);
    const name = file.name || "The picture";
    report(new Error(`${name} does not bring its settings along: ${problem.errors[0]?.detail ?? problem.message}`));
  }
}

async function readLink(id) {
  try {
    fillIn((await get(at`pictures/${id}`)).settings, "the picture");
  } catch (problem) {
    report(problem);
  }
}

/**
 * Takes a picture that is dropped anywhere on the page, pasted, or chosen by its button, and fills
 * its settings in on the sample page.
 */
export function SettingsDrop() {
  const input = useRef();
  useDrops(({ files: [file] }) => file && readFile(file));
  useEffect(() => {
    const paste = (event) => {
      const { files } = event.clipboardData;
      const [, id] = LINK.exec(event.clipboardData.getData("text/plain")) ?? [];
      if (!id || files.length || event.target.matches?.("input, textarea")) return;
      event.preventDefault();
      readLink(id); // browsers leave the recipe out of a picture that they copy
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  const chosen = (event) => {
    if (event.target.files.length) readFile(event.target.files[0]);
    event.target.value = "";
  };
  return html`
    <button
      type="button"
      title="A picture made here carries its settings. You can also drop it anywhere on this page, or paste it."
      onClick=${() => input.current.click()}
    >
      Settings from a picture
    </button>
    <input
      ref=${input}
      type="file"
      hidden
      accept="image/png,image/webp,image/jpeg"
      onChange=${chosen}
      aria-label="Settings from a picture"
    />
    <div class="dropping" aria-hidden="true"><p>Drop the picture, and its settings are back</p></div>
  `;
}
