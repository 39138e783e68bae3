// One picture of the gallery, enlarged: with its settings, a star, notes and tags.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";
import { at, patch, send } from "../lib/api.js";
import { blobOf } from "../lib/files.js";
import { useAction, useAnswer } from "../lib/hooks.js";
import { discard, report } from "../lib/notices.js";
import { Dialog, Field, Input, ProblemText, Properties, bytes, when } from "../lib/parts.js";
import { aboutStart, addressOf } from "../lib/pictures.js";
import { useShortcuts } from "../lib/shortcuts.js";

const MAX_NOTES = 2000; // characters
const VIEWS = { x_t: "x_t, what the network saw", x0_hat: "the clean image as predicted" };

/** What a picture is, in some words. */
export const titleOf = ({ model, class_name, seed }) =>
  `${model}${class_name === null ? "" : `: ${class_name}`}, seed ${seed}`;

/**
 * The picture `id` in a dialog. `list` is that of the gallery, through which the arrow keys lead;
 * `address` is a function of what changes in the address of the gallery.
 */
export function Picture({ id, list, address, tags, changed, drop }) {
  const answer = useAnswer(at`pictures/${id}`);
  const place = list.items.findIndex((item) => item.id === id);
  const picture = answer.data ?? list.items[place];
  const isListed = place >= 0;
  // Ids are in the order of the list, the newest first; a link may lead to one that is not loaded.
  const isBeyond = list.isLoaded && !isListed && list.hasMore && list.items.at(-1)?.id > id;
  useEffect(() => {
    if (isBeyond) list.more();
  }, [isBeyond, list.items.length]);

  const show = (item) => item && location.replace(address({ picture: item.id }));
  const close = () => {
    location.replace(address({}));
    requestAnimationFrame(() => document.getElementById(`picture-${id}`)?.focus());
  };
  const previous = isListed ? list.items[place - 1] : list.items.findLast((item) => item.id > id);
  const next = isListed ? list.items[place + 1] : list.items.find((item) => item.id < id);
  const step = useRef({}).current;
  step.back = () => show(previous);
  step.on = async () => {
    if (next || !isListed || !list.hasMore) return show(next);
    await list.more();
    step.wanted = id; // what follows is there when the list is drawn again
    step.redraw?.({});
  };
  [, step.redraw] = useState({});
  useEffect(() => {
    if (step.wanted === id && next) show(next);
    step.wanted = undefined;
  });
  useEffect(() => {
    for (const { links } of [previous, next].filter(Boolean)) new Image().src = links.file;
  }, [previous?.id, next?.id]);

  const star = useAction(async () => {
    list.update([await patch(at`pictures/${id}`, { starred: !picture.starred })]);
    answer.refresh();
    changed();
  });
  const remove = useAction(async () => {
    await discard("pictures", id, "The picture is deleted.");
    drop([id]);
    close();
  });
  step.star = () => picture && !star.busy && star.run();
  const keys = [ // of the picture that is shown when a key is pressed
    ["ArrowLeft", "shows the previous picture", () => step.back()],
    ["ArrowRight", "shows the next picture", () => step.on()],
    ["s", "gives it a star, or takes it off", () => step.star()],
  ];
  useShortcuts("The enlarged picture", keys, { inDialog: true });

  const count = `${list.items.length.toLocaleString("en")}${list.hasMore ? "+" : ""}`;
  return html`
    <${Dialog} title=${picture ? titleOf(picture) : "Picture"} onClose=${close}>
      <${ProblemText} problem=${answer.problem} />
      ${
        picture &&
        html`<div class="viewer">
          <div>
            <${Enlarged} picture=${picture} />
            <div class="actions steps">
              <button disabled=${!previous} onClick=${step.back}>← Previous</button>
              <span class="note">${isListed && `${(place + 1).toLocaleString("en")} of ${count}`}</span>
              <button disabled=${!next && !(isListed && list.hasMore)} onClick=${step.on}>Next →</button>
            </div>
          </div>
          <section aria-label="About the picture">
            <div class="actions">
              ${
                answer.data &&
                html`<a class="button primary" href=${addressOf(answer.data.settings)}>Use its settings</a>`
              }
              <button aria-pressed=${picture.starred} class="toggle" disabled=${star.busy} onClick=${star.run} title="Key s"><span aria-hidden="true">★ </span>Star</button>
              <${CopyImage} picture=${picture} />
              <a class="button" href=${picture.links.file} download>Download</a>
              <button class="danger" disabled=${remove.busy} onClick=${remove.run}>Delete</button>
            </div>
            <${ProblemText} problem=${star.problem || remove.problem} />
            <${About} key=${id} picture=${picture} tags=${tags} onSaved=${(saved) => {
              list.update([saved]);
              changed();
            }} />
            ${answer.data && html`<${Settings} of=${answer.data} />`}
          </section>
        </div>`
      }
    <//>
  `;
}

/** The picture with sharp pixels: by a whole number where the window has the room. */
function Enlarged({ picture }) {
  const { width, height, links } = picture;
  const stage = useRef();
  const [scale, setScale] = useState(1);
  useLayoutEffect(() => {
    const fit = () => {
      const room = Math.min(stage.current.clientWidth / width, stage.current.clientHeight / height);
      setScale(room >= 1 ? Math.floor(room) : room);
    };
    const observer = new ResizeObserver(fit);
    observer.observe(stage.current);
    fit();
    return () => observer.disconnect();
  }, [width, height]);
  return html`
    <div class="stage" ref=${stage}>
      <img
        src=${links.file}
        alt=${titleOf(picture)}
        width=${Math.floor(scale * width)}
        height=${Math.floor(scale * height)}
      />
    </div>
  `;
}

/** Copies the picture, with a link to it: browsers leave out what its file carries. */
function CopyImage({ picture }) {
  const [copied, setCopied] = useState(false);
  if (!navigator.clipboard?.write || !globalThis.ClipboardItem) return null;
  const copy = async () => {
    const link = new URL(`#/gallery?picture=${picture.id}`, location.href.split("#")[0]).href;
    try {
      await navigator.clipboard.write([
        new ClipboardItem({
          "image/png": asPng(picture),
          "text/plain": new Blob([link], { type: "text/plain" }),
        }),
      ]);
      setCopied(true);
      setTimeout(() => setCopied(false), 2000);
    } catch (problem) {
      report(problem);
    }
  };
  return html`<button onClick=${copy}>${copied ? "Copied" : "Copy image"}</button>`;
}

async function asPng({ links, media_type }) {
  const file = await (await send(links.file)).blob();
  if (media_type === "image/png") return file;
  const bitmap = await createImageBitmap(file);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return blobOf(canvas);
}

/** Notes and tags; what was not saved is saved when the next picture is shown. */
function About({ picture, tags, onSaved }) {
  const [saved, setSaved] = useState({ notes: picture.notes, tags: picture.tags.join(", ") });
  const [now, setNow] = useState(saved);
  const isChanged = now.notes !== saved.notes || now.tags !== saved.tags;
  const write = () => {
    const words = now.tags.split(",").map((tag) => tag.trim()).filter(Boolean);
    return patch(at`pictures/${picture.id}`, { notes: now.notes, tags: words });
  };
  const save = useAction(async () => {
    const answer = await write();
    const shown = { notes: answer.notes, tags: answer.tags.join(", ") };
    setSaved(shown);
    setNow(shown);
    onSaved(answer);
  });
  const last = useRef({}).current;
  Object.assign(last, { isChanged, write, onSaved });
  useEffect(
    () => () => {
      if (last.isChanged) last.write().then(last.onSaved, report);
    },
    [],
  );
  const set = (name) => (value) => setNow((old) => ({ ...old, [name]: value }));
  const error = (field) => save.problem?.of?.(field);
  return html`
    <form
      onSubmit=${(event) => {
        event.preventDefault();
        save.run();
      }}
    >
      <${Field} label="Notes" error=${error("notes")}>
        ${(attributes) => html`<textarea
          ...${attributes}
          rows="2"
          maxlength=${MAX_NOTES}
          value=${now.notes}
          onInput=${(event) => set("notes")(event.target.value)}
        />`}
      <//>
      <${Input}
        label="Tags"
        hint="separated by commas"
        list="tags-of-pictures"
        value=${now.tags}
        error=${error("tags")}
        onChange=${set("tags")}
      />
      <datalist id="tags-of-pictures">${tags.map(({ name }) => html`<option value=${name} />`)}</datalist>
      <button disabled=${!isChanged || save.busy}>Save</button>
      ${save.problem && !error("notes") && !error("tags") && html`<${ProblemText} problem=${save.problem} />`}
    </form>
  `;
}

/** Choices that have no row of their own, by their names in a request. */
const OTHERS = ["spacing", "eta", "strength", "invert", "seed_to", "precision", "deterministic"];

function Settings({ of }) {
  const { settings } = of;
  const { request, recipe, image, step, view } = settings;
  const { class_label: label, guidance_interval: interval, disturb } = request;
  const classes = Array.isArray(label) ? label.join(", ") : typeof label === "number" ? `number ${label}` : label;
  return html`
    <h3>How it was made</h3>
    ${settings.warning && html`<p class="warning">${settings.warning}.</p>`}
    ${settings.not_in_file.length > 0 && html`<p class="warning">${aboutStart(settings)}</p>`}
    ${of.damage && html`<${ProblemText} problem=${of.damage} />`}
    <${Properties}
      of=${[
        ["Model", request.model],
        ["Class", classes],
        ["Sampler", request.sampler],
        ["Steps", request.num_inference_steps],
        ["Guidance", label === undefined ? undefined : recipe.request.guidance_scale],
        ["Seed", `${request.seed}`],
        ["Image", image === null ? `all ${request.num_images}` : `${image + 1} of ${request.num_images}`],
        ["On the way", step === null ? undefined : `after step ${step + 1}: ${VIEWS[view]}`],
        ["Guidance from, to", interval?.join(", ")],
        ["Disturbed", disturb && `before step ${disturb.at + 1}, strength ${disturb.strength}`],
        ...OTHERS.map((name) => [name.replaceAll("_", " "), request[name] === undefined ? undefined : `${request[name]}`]),
        ["Dataset", recipe.dataset && `${recipe.dataset}${recipe.dataset_version ? `, version ${recipe.dataset_version}` : ""}`],
        ["Computed by", recipe.computed_by],
        ["Size", `${of.width} × ${of.height} pixels, ${bytes(of.num_bytes)}`],
        ["Kept", when(of.created_at)],
      ]}
    />
  `;
}
