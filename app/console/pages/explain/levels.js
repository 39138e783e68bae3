// The noise levels of a model: the service's tables for its own schedule.

import { at } from "../../lib/api.js";

/** The address of the tables of a model's schedule, as its details have it. */
export function tablesAddress({ name, ...numbers }) {
  return `${at`schedules/${name}`}?${new URLSearchParams(numbers)}`;
}

/** {alpha, sigma} at t, which may lie between two rows: ln(sigma / alpha) is then interpolated. */
export function levelAt({ alphas, sigmas, is_variance_preserving: keepsVariance }, t) {
  if (Number.isInteger(t)) return { alpha: alphas[t], sigma: sigmas[t] };
  const [low, share] = [Math.floor(t), t - Math.floor(t)];
  const [from, to] = [low, low + 1].map((row) => Math.log(sigmas[row] / alphas[row]));
  const ratio = Math.exp(from + share * (to - from));
  const isFlow = !keepsVariance && alphas.at(-1) !== 1; // alpha + sigma = 1
  const alpha = keepsVariance ? 1 / Math.hypot(1, ratio) : isFlow ? 1 / (1 + ratio) : 1;
  return { alpha, sigma: ratio * alpha };
}

/** The divisor by which x_t is shown: 1 unless the schedule raises the variance. */
export const displayScale = ({ alpha, sigma }) => Math.max(1, Math.hypot(alpha, sigma));
