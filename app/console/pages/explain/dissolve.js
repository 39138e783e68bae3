// Step 1: a picture becomes noise, and what of it is lost where.

import { html, useMemo } from "../../vendor/htm-preact.js";
import { Chart } from "../../lib/chart.js";
import { Input, Range, given, number } from "../../lib/parts.js";
import { bandsOf, lostAt } from "./bands.js";
import { displayScale, levelAt } from "./levels.js";
import { Formula, Shown, Step, minus, signed } from "./parts.js";
import { combined } from "./pixels.js";

export function Dissolve({ picture, noise, tables, settings, set }) {
  return html`
    <${Step} number="1" title="A picture becomes noise" id="dissolve">
      ${() =>
        picture && tables && html`<${Dissolved} ...${{ picture, noise, tables, settings, set }} />`}
    <//>
  `;
}

function Dissolved({ picture, noise, tables, settings, set }) {
  const T = tables.num_train_timesteps;
  const t = Math.min(T, settings.t);
  const level = levelAt(tables, t);
  const { alpha, sigma } = level;
  const x_t = useMemo(
    () => ({ ...picture, values: combined(alpha, picture.values, sigma, noise) }),
    [picture, noise, alpha, sigma],
  );
  const bands = useMemo(() => bandsOf(picture), [picture]);
  const eps = { ...picture, values: noise };
  const pick = (column, row) => set({ column, row });
  return html`
    <div>
      <p>
        The model learned to undo noise, so we begin by adding some. Each pixel is a number from −1 (black) to 1 (white),
        called x<sub>0</sub>. We draw a random number ε for each, and mix the two: ${tables.num_train_timesteps.toLocaleString("en")} levels t,
        from the clean picture to pure noise.
      </p>
      <${Range} label="Noise level t" min="0" max=${T} value=${t} shown=${`${t} of ${T}`} onChange=${(value) => set({ t: value })} />
      <div class="pictures three">
        <${Shown} picture=${picture} says="The picture without noise" onPick=${pick}>x<sub>0</sub>, the picture<//>
        <${Shown} picture=${eps} says="The noise" scale=${2} onPick=${pick}>ε, the noise<//>
        <${Shown} picture=${x_t} scale=${displayScale(level)} says=${`The picture at t = ${t}`} onPick=${pick}>x<sub>t</sub> at t = ${t}<//>
      </div>
      ${displayScale(level) > 1.001 && html`<p class="note">This schedule lets the noise grow beyond the picture's range. x<sub>t</sub> is shown divided by ${number(displayScale(level))} = √(α² + σ²).</p>`}
      <${Formula} says="The mixture" symbols=${html`x<sub>t</sub> = α x<sub>0</sub> + σ ε`}>= ${number(alpha)} x<sub>0</sub> + ${number(sigma)} ε<//>
      <${OnePixel} ...${{ picture, noise, level, settings, set }} />
      <${Formula} says="The signal to noise ratio" symbols=${html`SNR = α² / σ²`}>${
        sigma === 0
          ? html`= ${number(alpha)}² / 0²: infinite, there is no noise`
          : html`= ${number(alpha)}² / ${number(sigma)}² = ${number((alpha / sigma) ** 2)}`
      }<//>
      <h3>What is lost where</h3>
      <p>
        A picture is a sum of waves: long ones for its shapes, short ones for its fine detail. Real pictures have much less power in short
        waves, but noise is equally strong in all. So noise drowns the fine detail first. P is the power of the picture in a band of
        waves, measured in this very picture; the band is lost where the noise in it, σ², becomes stronger than α² P.
      </p>
      <${Losses} ...${{ bands, tables, t, level }} />
    </div>
  `;
}

/** The mixture in one pixel, with its numbers. */
function OnePixel({ picture: { values, shape }, noise, level: { alpha, sigma }, settings, set }) {
  const [channels, height, width] = shape;
  const column = Math.min(width - 1, settings.column ?? Math.floor(width / 2));
  const row = Math.min(height - 1, settings.row ?? Math.floor(height / 2));
  const place = row * width + column;
  const [x0, eps] = [values[place], noise[place]];
  const shown = (value) => signed(number(value));
  const coordinate = (name, value, count) => html`<${Input}
    label=${`Pixel: ${name}`}
    type="number"
    min="0"
    max=${count - 1}
    value=${value}
    onChange=${(text) => Number.isInteger(given(text)) && given(text) >= 0 && set({ [name]: given(text) })}
  />`;
  return html`
    <div class="one-pixel">
      ${coordinate("column", column, width)} ${coordinate("row", row, height)}
      <${Formula}
        says="The mixture in one pixel"
        symbols=${channels === 3 ? "its red:" : "this pixel:"}
      >${number(alpha)} · ${shown(x0)} + ${number(sigma)} · ${shown(eps)} = ${minus(number(alpha * x0 + sigma * eps))}<//>
    </div>
    <p class="note">Choose a pixel here, or click on a picture.</p>
  `;
}

/** When each band of waves is lost: a curve with marks, and a table. */
function Losses({ bands, tables, t, level: { alpha, sigma } }) {
  const T = tables.num_train_timesteps;
  const rows = bands.map((band) => ({ ...band, t: lostAt(band, tables) }));
  const marks = rows.filter((row) => row.t <= T).map((row) => [row.t, row.name]);
  const share = (power) => (sigma ? (alpha ** 2 * power) / (alpha ** 2 * power + sigma ** 2) : 1);
  return html`
    <${Chart}
      x=${tables.snr.slice(1).map((_, i) => i + 1)}
      mark=${Math.max(1, t)}
      marks=${marks}
      xLabel="t"
      height=${220}
      logY
      lines=${[{ label: "SNR = α² / σ², on a logarithmic scale", y: tables.snr.slice(1).map((value) => value || null) }]}
      says=${`The signal to noise ratio falls with t. ${marks.map(([at, name]) => `The ${name} are lost at ${at}`).join("; ")}.`}
    />
    <div class="scroll" tabindex="0" role="region" aria-label="What is lost where">
      <table class="losses">
        <thead>
          <tr><th scope="col">What</th><th scope="col">P</th><th scope="col">lost where SNR = 1 / P</th><th scope="col">from t =</th>
            <th scope="col">at t = ${t}: α² P / (α² P + σ²)</th></tr>
        </thead>
        <tbody>
          ${rows.map(
            (row) => html`<tr class=${row.t <= t ? "lost-band" : ""}>
              <th scope="row">${row.name}<br /><small>${row.about}</small></th>
              <td>${number(row.power)}</td>
              <td>${row.power ? number(1 / row.power) : "it has none"}</td>
              <td>${row.t <= T ? row.t : "never"}</td>
              <td>${(100 * share(row.power)).toFixed(0)}% picture${row.t <= t ? ", lost" : ""}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  `;
}
