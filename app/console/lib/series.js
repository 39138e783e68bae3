// The curves of several trainings: along which axis, smoothed, and as a table of comma-separated
// values. A run is {job, metrics, samples, scores}.

export const AXES = [
  ["step", "steps"],
  ["images", "images seen"],
  ["minutes", "minutes of training"],
];

/** Where a line of the metrics lies on an axis; undefined where that is not known. */
export function along(axis, line) {
  if (axis === "step") return line.step;
  if (axis === "images") return line.images_seen ?? undefined;
  return line.seconds === null || line.seconds === undefined ? undefined : line.seconds / 60;
}

/** {x, y} of the lines that have both, in the order of x. */
export function curveOf(lines, axis, valueOf) {
  const points = lines
    .map((line) => [along(axis, line), valueOf(line)])
    .filter(([x, y]) => x !== undefined && y !== null && y !== undefined)
    .sort(([a], [b]) => a - b);
  return { x: points.map(([x]) => x), y: points.map(([, y]) => y) };
}

/** The exponential moving average with this weight (0..1) on what was before; without its bias to 0. */
export function smoothed(values, weight) {
  let [sum, share] = [0, 0];
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return sum / share;
  });
}

/** The last of the lines at this step or before; without a step the last one. */
export function lastAt(lines, step) {
  const before = step === undefined ? lines : lines.filter((line) => line.step <= step);
  return before.at(-1);
}

/** The least held-out error of a run, as {score, step}; undefined where none was measured. */
export function bestOf(metrics) {
  const measured = metrics.evaluations.filter((each) => typeof each.score === "number");
  return measured.sort((a, b) => a.score - b.score)[0];
}

const OF_STEPS = ["loss", "learning_rate", "images_per_second"];

/** All curves, a value in each row. */
export function toCsv(runs) {
  const rows = [["job", "model", "step", "images", "seconds", "metric", "value"]];
  for (const { job, metrics } of runs) {
    const add = (line, metric, value) =>
      value !== null &&
      value !== undefined &&
      rows.push([job.id, job.model_name, line.step, line.images_seen, line.seconds, metric, value]);
    for (const line of metrics.steps) for (const name of OF_STEPS) add(line, name, line[name]);
    for (const line of metrics.evaluations) {
      add(line, "held_out_error", line.score);
      for (const { t, mse } of line.levels ?? []) add(line, `held_out_error/t=${t}`, mse);
    }
  }
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** A number as it is, a text in quotes (RFC 4180); one that a spreadsheet would compute gets a '. */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return `${value}`;
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return `"${text.replaceAll('"', '""')}"`;
}
