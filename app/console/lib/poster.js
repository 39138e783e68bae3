// Charts as one picture: a title, a legend and each chart below its heading.

import { colourIn } from "./chart.js";
import { blobOf } from "./files.js";

const EDGE = 24; // CSS pixels
const LINE = 24;

const colourOf = (name) => colourIn(document.body, name);

/**
 * Draws charts below each other, as a PNG. Each of `charts` is {heading, plot}, a plot of uPlot;
 * `legend` has {text, colour, dash}, with the colours of the page's style sheet.
 */
export function posterOf(title, legend, charts) {
  const scale = devicePixelRatio;
  const style = getComputedStyle(document.documentElement);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const widest = Math.max(...charts.map(({ plot }) => plot.ctx.canvas.width)) / scale;
  const width = Math.max(480, widest + 2 * EDGE);
  context.font = font(style, 14);
  const rows = legendRows(context, legend, width - 2 * EDGE);
  const height =
    3 * EDGE +
    LINE * (1 + rows.length) +
    charts.reduce((sum, { plot }) => sum + LINE + plot.ctx.canvas.height / scale + EDGE, 0);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  context.scale(scale, scale);
  context.fillStyle = colourOf("--surface");
  context.fillRect(0, 0, width, height);
  context.textBaseline = "middle";
  const say = (text, x, y, size, weight = 400) => {
    context.font = font(style, size, weight);
    context.fillStyle = colourOf("--text");
    context.fillText(text, x, y);
  };
  let y = EDGE + LINE / 2;
  say(title, EDGE, y, 18, 700);
  for (const row of rows) {
    y += LINE;
    for (const { x, entry } of row) {
      drawSwatch(context, entry, EDGE + x, y);
      say(entry.text, EDGE + x + 36, y, 14);
    }
  }
  y += EDGE;
  for (const { heading, plot } of charts) {
    const { canvas: drawn } = plot.ctx;
    say(heading, EDGE, y + LINE / 2, 15, 600);
    y += LINE;
    context.drawImage(drawn, EDGE, y, drawn.width / scale, drawn.height / scale);
    y += drawn.height / scale + EDGE;
  }
  return blobOf(canvas);
}

const font = (style, size, weight = 400) => `${weight} ${size}px ${style.fontFamily}`;

function legendRows(context, legend, width) {
  const rows = [[]];
  let x = 0;
  for (const entry of legend) {
    const takes = 36 + context.measureText(entry.text).width + 24;
    if (x && x + takes > width) {
      rows.push([]);
      x = 0;
    }
    rows.at(-1).push({ x, entry });
    x += takes;
  }
  return rows;
}

function drawSwatch(context, { colour, dash }, x, y) {
  context.save();
  context.strokeStyle = colourOf(`--curve-${colour + 1}`);
  context.lineWidth = 3;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + 28, y);
  context.stroke();
  context.restore();
}
