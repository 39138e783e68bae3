// Charts as one picture: a title, a legend and each chart below its heading.

import { colourIn } from "./chart.js";
import { blobOf } from "./files.js";

const EDGE = 24; // CSS pixels
const LINE = 24;

const colourOf = (name) => colourIn(document.body, name);

/**
 * Draws charts as a PNG, beside each other where the widest one leaves room, else below. Each of `charts` is {heading, plot}, a plot of uPlot;
 * `legend` has {text, colour, dash}, with the colours of the page's style sheet.
 */
export function posterOf(title, legend, charts) {
  const scale = devicePixelRatio;
  const style = getComputedStyle(document.documentElement);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const sized = charts.map(({ heading, plot: { ctx } }) => ({
    heading,
    drawn: ctx.canvas,
    width: ctx.canvas.width / scale,
    height: ctx.canvas.height / scale,
  }));
  const width = Math.max(480, Math.max(...sized.map((chart) => chart.width)) + 2 * EDGE);
  context.font = font(style, 14);
  const measure = ({ text }) => 36 + context.measureText(text).width;
  const rows = inRows(legend, measure, width - 2 * EDGE);
  const shelves = inRows(sized, (chart) => chart.width, width - 2 * EDGE);
  const tallest = (shelf) => Math.max(...shelf.map(({ item }) => item.height));
  const height =
    3 * EDGE +
    LINE * (1 + rows.length) +
    shelves.reduce((sum, shelf) => sum + LINE + tallest(shelf) + EDGE, 0);
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
    for (const { x, item } of row) {
      drawSwatch(context, item, EDGE + x, y);
      say(item.text, EDGE + x + 36, y, 14);
    }
  }
  y += EDGE;
  for (const shelf of shelves) {
    for (const { x, item } of shelf) {
      say(item.heading, EDGE + x, y + LINE / 2, 15, 600);
      context.drawImage(item.drawn, EDGE + x, y + LINE, item.width, item.height);
    }
    y += LINE + tallest(shelf) + EDGE;
  }
  return blobOf(canvas);
}

const font = (style, size, weight = 400) => `${weight} ${size}px ${style.fontFamily}`;

/** Lays items out from left to right in rows of this width, as [{x, item}]. */
function inRows(items, widthOf, width) {
  const rows = [[]];
  let x = 0;
  for (const item of items) {
    const takes = widthOf(item);
    if (x && x + takes > width) {
      rows.push([]);
      x = 0;
    }
    rows.at(-1).push({ x, item });
    x += takes + EDGE;
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
