// The forward process: a picture, a slider, and curves of the remaining signal.

import { html, useEffect, useLayoutEffect, useState } from "../vendor/htm-preact.js";
import { useSettings } from "../lib/address.js";
import { send } from "../lib/api.js";
import { Chart } from "../lib/chart.js";
import { download, imageOf, scaled } from "../lib/files.js";
import { useAction, useAnswer, useLatest, useObjectUrl } from "../lib/hooks.js";
import { Properties, FileDrop, Input, Page, Range, ProblemText, Select, number } from "../lib/parts.js";

const T = 1000;
const SIDES = [32, 64, 128, 256];
const STRIP = [0, 50, 100, 200, 300, 500, 700, 1000];
const FRAMES = Array.from({ length: 26 }, (_, i) => (T / 25) * i);

export function Noise() {
  const [source, setSource] = useState();
  const [image, setImage] = useState();
  const [settings, set] = useSettings({ t: 150, side: 64, schedule: "linear", seed: "0" });
  const { schedule, seed } = settings;
  const t = Math.round(Math.min(T, Math.max(0, settings.t)));
  const side = SIDES.includes(settings.side) ? settings.side : 64;
  const [refused, setRefused] = useState();
  const [problems, setProblems] = useState({}); // of the two pictures, by method
  const tables = useAnswer(`schedules/${schedule}?num_train_timesteps=${T}`);
  const schedules = useAnswer("schedules");

  useLayoutEffect(() => {
    let current = true;
    const scale = async () => {
      try {
        const made = await scaled(source ?? example(side), side);
        if (current) setImage(made);
        setRefused(undefined);
      } catch {
        setRefused("This file is not an image that the browser can read.");
      }
    };
    scale();
    return () => {
      current = false;
    };
  }, [source, side]);

  const form = (times, method) => {
    const body = new FormData();
    body.append("image", image);
    for (const each of times) body.append("t", each);
    body.append("schedule", schedule);
    body.append("num_train_timesteps", T);
    body.append("seed", seed || "0");
    body.append("method", method);
    return body;
  };
  const take = useAction((times, accept, name) =>
    download("noise", name, { method: "POST", accept, body: form(times, "closed_form") }),
  );

  const refusal = problems.closed_form ?? problems.step_by_step; // of both, said once
  const ofSeed = refusal?.of?.("seed");
  const untaken = take.problem?.of?.("seed") ? undefined : take.problem; // which both are refused for
  const onProblem = (method, problem) => setProblems((old) => ({ ...old, [method]: problem }));

  return html`
    <${Page}
      title="What noise does"
      intro=${html`x<sub>t</sub> is the picture after t steps, each of which weakens it a little and adds a little noise. Drag the slider. <a href="#/explain">Noise, explained</a> goes on from here: what a model makes of it.`}
    >
      <div class="columns">
        <section class="card" aria-label="Picture">
          <${Range}
            label=${`t, of ${T} steps`}
            min="0"
            max=${T}
            value=${t}
            onChange=${(t) => set({ t })}
          />
          <div class="pictures three">
            <${Original} image=${image} />
            <${Noised}
              method="closed_form"
              title="In one jump"
              image=${image}
              t=${t}
              form=${form}
              of=${[schedule, seed]}
              onProblem=${onProblem}
            />
            <${Noised}
              method="step_by_step"
              title="Step by step"
              image=${image}
              t=${t}
              form=${form}
              of=${[schedule, seed]}
              onProblem=${onProblem}
            />
          </div>
          <p class="note">
            One jump computes x<sub>t</sub> directly, from the same noise for every t. Step by step takes all ${t} steps, with
            fresh noise at each. Both give the same distribution: the pictures differ, their statistics do not.
          </p>
          <div class="actions">
            <button
              disabled=${take.busy}
              onClick=${() => take.run(STRIP, "image/png", "noise.png")}
            >Download a strip</button>
            <button
              disabled=${take.busy}
              onClick=${() => take.run(FRAMES, "image/apng", "noise-animation.png")}
            >
              Download an animation
            </button>
          </div>
          <${ProblemText} problem=${(ofSeed ? undefined : refusal) || untaken} />
        </section>
        <section class="card" aria-label="Schedule">
          <${Curves} tables=${tables.data} t=${t} />
          <${ProblemText} problem=${tables.problem || schedules.problem} />
        </section>
        <section class="card wide settings" aria-label="Settings">
          <${FileDrop}
            label="Choose a picture"
            hint="or drop one here"
            accept="image/*"
            onFiles=${(files) => setSource(imageOf(files))}
          />
          <div>
            <${ProblemText} problem=${refused} />
            <${Select}
              label="Longest side, pixels"
              value=${side}
              options=${SIDES}
              onChange=${(value) => set({ side: Number(value) })}
            />
            <${Select}
              label="Schedule"
              value=${schedule}
              options=${(schedules.data?.schedules ?? [{ name: schedule }]).map((s) => s.name)}
              hint=${schedules.data?.schedules.find((s) => s.name === schedule)?.description}
              onChange=${(schedule) => set({ schedule })}
            />
            <${Input}
              label="Seed of the noise"
              type="number"
              min="0"
              value=${seed}
              error=${ofSeed}
              onChange=${(seed) => set({ seed })}
            />
          </div>
        </section>
      </div>
    <//>
  `;
}

function Original({ image }) {
  const url = useObjectUrl(image);
  return html`<figure><${Frame}>${
    url &&
    html`<img
      src=${url}
      alt="The picture without noise"
    />`
  }<//><figcaption>x<sub>0</sub></figcaption></figure>`;
}

/**
 * x_t, requested again while the slider moves; `of` lists the other inputs that change it.
 * `onProblem` gets the method with the problem of the last request, or undefined.
 */
function Noised({ method, title, image, t, form, of, onProblem }) {
  const [shown, setShown] = useState({});
  const update = useLatest(async ({ t, body }, signal) => {
    try {
      const response = await send("noise", { method: "POST", accept: "image/png", body, signal });
      setShown({ t, blob: await response.blob() });
      onProblem(method, undefined);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      setShown({});
      onProblem(method, problem);
    }
  });
  useEffect(() => image && update({ t, body: form([t], method) }), [image, t, ...of]);
  const url = useObjectUrl(shown.blob);
  return html`
    <figure>
      <${Frame}>
        ${
          url &&
          html`<img
            src=${url}
            data-t=${shown.t}
            data-method=${method}
            alt=${`The picture at t = ${shown.t}, ${title.toLowerCase()}`}
          />`
        }
      <//>
      <figcaption>${title}</figcaption>
    </figure>
  `;
}

const Frame = ({ children }) => html`<div class="frame">${children}</div>`;

function Curves({ tables, t }) {
  if (!tables) return null;
  const steps = tables.alphas.map((_, i) => i);
  const [alpha, sigma, snr] = [tables.alphas[t], tables.sigmas[t], tables.snr[t]];
  return html`
    <h2>Signal and noise</h2>
    <${Chart}
      x=${steps}
      mark=${t}
      xLabel="t"
      height=${200}
      lines=${[
        { label: "signal: alpha", y: tables.alphas },
        { label: "noise: sigma", y: tables.sigmas },
      ]}
      says=${`Signal falls and noise grows with t; at ${t} they are ${number(alpha)} and ${number(sigma)}.`}
    />
    <${Chart}
      x=${steps.slice(1)}
      mark=${Math.max(1, t)}
      xLabel="t"
      height=${160}
      logY
      lines=${[{ label: "signal to noise ratio", y: tables.snr.slice(1).map((value) => value || null) }]}
      says=${`The signal to noise ratio falls with t, on a logarithmic scale; at ${t} it is ${snr === null ? "infinite" : number(snr)}.`}
    />
    <${Properties}
      of=${[
        ["alpha", number(alpha)],
        ["sigma", number(sigma)],
        ["SNR", snr === null ? "infinite" : number(snr)],
      ]}
    />
    <p class="note">x<sub>t</sub> = ${number(alpha)} x<sub>0</sub> + ${number(sigma)} ε</p>
  `;
}

/** Draws an example picture: hills, a sun and a house. */
function example(side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const paint = canvas.getContext("2d");
  paint.scale(side / 64, side / 64);
  const sky = paint.createLinearGradient(0, 0, 0, 44);
  sky.addColorStop(0, "#3b6fd4");
  sky.addColorStop(1, "#ffd9a8");
  fill(paint, sky, (path) => path.rect(0, 0, 64, 64));
  fill(paint, "#fff3c4", (path) => path.arc(47, 17, 8, 0, 7));
  fill(paint, "#5a8f5a", (path) => path.ellipse(14, 58, 34, 22, 0, 0, 7));
  fill(paint, "#35663f", (path) => path.ellipse(52, 62, 34, 18, 0, 0, 7));
  fill(paint, "#f4efe6", (path) => path.rect(16, 30, 16, 14));
  fill(paint, "#b5432f", (path) => {
    path.moveTo(13, 31);
    path.lineTo(24, 20);
    path.lineTo(35, 31);
  });
  fill(paint, "#5b3a29", (path) => path.rect(22, 36, 5, 8));
  return canvas;
}

function fill(context, style, draw) {
  context.fillStyle = style;
  context.beginPath();
  draw(context);
  context.fill();
}
