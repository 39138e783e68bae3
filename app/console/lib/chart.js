// Curves drawn with uPlot.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import uPlot from "../vendor/uplot.js";
import { number } from "./parts.js";

const FEW = 20; // curves with fewer values also show points
export const MAX_CURVES = 8; // as many colours and patterns as there are
// In CSS pixels, so that colour is not all that tells curves apart.
export const DASHES = [[], [10, 4], [2, 4], [10, 4, 2, 4], [16, 5], [6, 3], [10, 3, 2, 3, 2, 3], [1, 2]];

/**
/**
 * x and lines[i].y have equal lengths; a line may have an `x` of its own instead. `mark` is an x to
 * mark, and `marks` others with their names, [[x, name], ...]; `says` describes the chart in words.
 *
 * A line's `colour` is 0..7, by default its place; a `dashed` one has the pattern of its colour, too.
 * A `faint` line has no entry in the legend. With `reads` the values under the pointer are shown, or
 * those that the arrow keys reach. `onPlot` gets the plot whenever it is made anew.
 */
export function Chart({
  x,
  lines,
  mark,
  marks,
  says,
  xLabel,
  logX,
  logY,
  height = 180,
  reads,
  hasLegend = true,
  onPlot,
}) {
  const place = useRef();
  const now = useRef({}).current;
  const [at, setAt] = useState();
  const labels = lines.map((line) => `${line.label} ${line.colour} ${line.faint}`).join();
  const data = aligned(x, lines);
  Object.assign(now, { data, mark, marks, lines });
  now.read = reads ? setAt : undefined;

  useEffect(() => {
    const make = () => {
      now.plot?.destroy();
      now.plot = new uPlot(
        options(place.current, lines, xLabel, logX, logY, height, now),
        now.data,
      );
      place.current.append(now.plot.root);
      onPlot?.(now.plot);
    };
    make();
    const resize = new ResizeObserver(() =>
      now.plot.setSize({ width: place.current.clientWidth, height }),
    );
    resize.observe(place.current);
    addEventListener("theme", make);
    return () => {
      removeEventListener("theme", make);
      resize.disconnect();
      now.plot.destroy();
      now.plot = undefined;
      onPlot?.(undefined);
    };
  }, [labels, logX, logY, height, xLabel]);

  const first = data.map((values) => `${values.length}:${values.at(0)}:${values.at(-1)}`).join();
  const key = lines.some((line) => line.x) ? `${first} ${sums(data)}` : first;
  useEffect(() => now.plot.setData(now.data), [key]);
  useEffect(() => now.plot.redraw(false), [mark, marks?.join()]);

  const move = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const last = data[0].length - 1;
    const to = at === undefined || at > last ? (by > 0 ? 0 : last) : at + by;
    const next = Math.min(last, Math.max(0, to));
    now.plot.setCursor({ left: now.plot.valToPos(data[0][next], "x"), top: 0 });
    setAt(next);
  };
  const shown = at !== undefined && at < data[0].length ? at : undefined;

  return html`
    <figure class="chart">
      ${
        hasLegend &&
        html`<figcaption>
          ${lines.map(
            (line, i) =>
              !line.faint &&
              html`<span class="key"><${Swatch} colour=${line.colour ?? i} dashed=${line.dashed} />${line.label}</span>`,
          )}
        </figcaption>`
      }
      <div
        ref=${place}
        role="img"
        aria-label=${says}
        data-points=${data[0].length}
        tabindex=${reads ? 0 : undefined}
        onKeyDown=${reads && move}
      ></div>
      ${
        reads &&
        html`<p class="reading" aria-live="polite">
          ${
            shown === undefined
              ? "Point at a curve to read it, or use the arrow keys."
              : html`<strong>${xLabel} ${number(data[0][shown], 4)}</strong>
                  ${lines.map((line, i) => reading(line, data[i + 1], shown, line.colour ?? i))}`
          }
        </p>`
      }
    </figure>
  `;
}

function reading(line, values, at, colour) {
  if (line.faint) return null;
  let place = at;
  while (place >= 0 && (values[place] === undefined || values[place] === null)) place -= 1;
  if (place < 0) return null;
  return html`<span class="key"><${Swatch} colour=${colour} dashed=${line.dashed} />${line.label}${" "}
    <b>${number(values[place], 4)}</b></span>`;
}

/** A piece of a curve, for a legend. */
export const Swatch = ({ colour, dashed }) =>
  html`<svg class=${`swatch swatch-${colour + 1}`} viewBox="0 0 28 6" aria-hidden="true">
    <path d="M0 3H28" stroke-dasharray=${dashed ? DASHES[colour].join(" ") : undefined} />
  </svg>`;

/** Returns [x, ...y] with an x that all lines share; where a line has no value it is undefined. */
function aligned(x, lines) {
  if (!lines.some((line) => line.x)) return [x, ...lines.map((line) => line.y)];
  return uPlot.join(lines.map((line) => [line.x, line.y]));
}

/** A number for each line that changes with any of its values. */
const sums = (data) =>
  data.map((values) => values.reduce((sum, value, i) => sum + (value ?? 0) * (1 + (i % 7)), 0)).join();

function options(place, lines, xLabel, logX, logY, height, now) {
  const style = getComputedStyle(place);
  const colour = (name) => colourIn(place, name);
  const axis = {
    stroke: style.color,
    font: `12px ${style.fontFamily}`,
    labelFont: `12px ${style.fontFamily}`,
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
  };
  const points = { show: false };
  return {
    width: place.clientWidth,
    height,
    padding: [8, 24, 0, 0],
    legend: { show: false },
    cursor: now.read ? { y: false, points, drag: { setScale: false } } : { show: false },
    scales: { x: { time: false, distr: logX ? 3 : 1 }, y: logY ? { distr: 3, range: around } : { distr: 1 } },
    axes: [
      { ...axis, ...(logX && powers), values: short, label: xLabel, labelSize: 18, size: 34 },
      { ...axis, ...(logY && powers), values: short, size: 56 },
    ],
    series: [
      {},
      ...lines.map((line, i) => ({
        label: line.label,
        stroke: colour(`--curve-${(line.colour ?? i) + 1}`),
        width: line.faint ? 1 : 2,
        alpha: line.faint ? 0.3 : 1,
        dash: line.dashed ? DASHES[line.colour ?? i] : undefined,
        points: {
          show: () => !line.faint && (line.points || line.y.length < FEW),
          fill: colour("--surface"),
        },
      })),
    ],
    hooks: {
      draw: [
        (plot) => now.marks?.forEach(([x]) => line(plot, x, style.color)),
        (plot) => point(plot, now.mark, colour("--accent")),
        (plot) => now.marks?.forEach((each, i) => name(plot, each, i, style, colour("--surface"))),
      ],
      setCursor: [({ cursor: { idx } }) => typeof idx === "number" && now.read?.(idx)],
    },
  };
}

/** Returns the current value of a variable of the style sheet, which canvas cannot resolve. */
export function colourIn(place, name) {
  const probe = place.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function point(plot, mark, colour) {
  if (mark === undefined) return;
  const { ctx, bbox } = plot;
  const at = plot.valToPos(mark, "x", true);
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.lineWidth = 2 * devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

/** Draws a dashed line at an x. */
function line(plot, x, colour) {
  const { ctx, bbox } = plot;
  const at = plot.valToPos(x, "x", true);
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

/** Writes the name of an x beside it; the i-th name stands i lines further down. */
function name(plot, [x, text], i, style, background) {
  const { ctx, bbox } = plot;
  const at = plot.valToPos(x, "x", true);
  const size = 12 * devicePixelRatio;
  ctx.save();
  ctx.font = `${size}px ${style.fontFamily}`;
  const fits = at + ctx.measureText(text).width + size < bbox.left + bbox.width;
  ctx.textAlign = fits ? "left" : "right";
  const place = [at + (fits ? size : -size) / 3, bbox.top + size * (1 + 1.2 * i)];
  ctx.strokeStyle = background; // so that no curve crosses the letters
  ctx.lineWidth = size / 3;
  ctx.strokeText(text, ...place);
  ctx.fillStyle = style.color;
  ctx.fillText(text, ...place);
  ctx.restore();
}
/** The range of a logarithmic axis: a little more than the values', not whole powers of ten. */
const around = (plot, low, high) => (low > 0 ? [low / 1.15, high * 1.15] : [low, high]);

/** Ticks of a logarithmic axis: powers of ten, and more if it spans fewer than two of them. */
const powers = {
  splits: (plot, axis, low, high) => {
    const [first, last] = [Math.ceil(Math.log10(low)), Math.floor(Math.log10(high))];
    const factors = high / low < 5 ? [1, 1.5, 2, 3, 4, 5, 7] : last - first < 1 ? [1, 2, 5] : [1];
    const stride = Math.max(1, Math.ceil((last - first) / 6));
    const ticks = [];
    for (let power = first - 1; power <= last; power += 1)
      for (const factor of factors)
        if ((power - first) % stride === 0) ticks.push(factor * 10 ** power);
    return ticks.filter((tick) => tick >= low && tick <= high);
  },
  filter: (plot, ticks) => ticks,
};

const short = (plot, ticks) =>
  ticks.map((tick) => {
    const size = Math.abs(tick);
    return size && (size < 1e-3 || size >= 1e5)
      ? tick.toExponential(0)
      : `${Number(tick.toPrecision(6))}`;
  });
