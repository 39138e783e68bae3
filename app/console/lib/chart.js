// Curves drawn with uPlot.

import { html, useEffect, useRef } from "../vendor/htm-preact.js";
import uPlot from "../vendor/uplot.js";

const FEW = 20; // curves with fewer values also show points
const COLOURS = ["--curve-1", "--curve-2", "--curve-3"];

/**
 * x and lines[i].y have equal lengths; `mark` is an x to mark, and `marks` others with their names,
 * [[x, name], ...]; `says` describes the chart in words.
 */
export function Chart({ x, lines, mark, marks, says, xLabel, logX, logY, height = 180 }) {
  const place = useRef();
  const now = useRef({}).current;
  const labels = lines.map((line) => line.label).join();
  now.data = [x, ...lines.map((line) => line.y)];
  now.mark = mark;
  now.marks = marks;

  useEffect(() => {
    const make = () => {
      now.plot?.destroy();
      now.plot = new uPlot(
        options(place.current, lines, xLabel, logX, logY, height, now),
        now.data,
      );
      place.current.append(now.plot.root);
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
    };
  }, [labels, logX, logY, height]);

  const first = now.data
    .map((values) => `${values.length}:${values.at(0)}:${values.at(-1)}`)
    .join();
  useEffect(() => now.plot.setData(now.data), [first]);
  useEffect(() => now.plot.redraw(false), [mark, marks?.join()]);

  return html`
    <figure class="chart">
      <figcaption>
        ${lines.map(
          (line, i) =>
            html`<span class="key"><i class=${`swatch swatch-${i + 1}`}></i>${line.label}</span>`,
        )}
      </figcaption>
      <div ref=${place} role="img" aria-label=${says} data-points=${x.length}></div>
    </figure>
  `;
}

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
  return {
    width: place.clientWidth,
    height,
    padding: [8, 24, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false, distr: logX ? 3 : 1 }, y: { distr: logY ? 3 : 1 } },
    axes: [
      { ...axis, ...(logX && powers), values: short, label: xLabel, labelSize: 18, size: 34 },
      { ...axis, ...(logY && powers), values: short, size: 56 },
    ],
    series: [
      {},
      ...lines.map((line, i) => ({
        label: line.label,
        stroke: colour(COLOURS[i]),
        width: 2,
        points: { show: (plot) => line.points || plot.data[0].length < FEW },
      })),
    ],
    hooks: {
      draw: [
        (plot) => now.marks?.forEach(([x]) => line(plot, x, style.color)),
        (plot) => point(plot, now.mark, colour("--accent")),
        (plot) => now.marks?.forEach((each, i) => name(plot, each, i, style, colour("--surface"))),
      ],
    },
  };
}

/** Returns the current value of a variable of the style sheet, which canvas cannot resolve. */
function colourIn(place, name) {
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

/** Ticks of a logarithmic axis: powers of ten, and more if it spans fewer than two of them. */
const powers = {
  splits: (plot, axis, low, high) => {
    const [first, last] = [Math.ceil(Math.log10(low)), Math.floor(Math.log10(high))];
    const factors = last - first < 1 ? [1, 2, 5] : [1];
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
