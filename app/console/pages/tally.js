// The votes of a blind test: kept in the browser for each pair, counted, and judged.

import { countOf } from "../lib/parts.js";

const KEY = "diffusion-blind-test ";
const Z = 1.96; // standard deviations: 95%

/** The votes on a pair, {time, left, right, chosen}; `chosen` is a name, or "" for no decision. */
export function loadVotes(pair) {
  try {
    const found = JSON.parse(localStorage.getItem(KEY + pair));
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

export function saveVotes(pair, votes) {
  if (votes.length) localStorage.setItem(KEY + pair, JSON.stringify(votes));
  else localStorage.removeItem(KEY + pair);
}

/** {wins, decided, undecided, share, low, high}: how often `name` was chosen, with a 95% interval. */
export function count(votes, name) {
  const decided = votes.filter(({ chosen }) => chosen).length;
  const wins = votes.filter(({ chosen }) => chosen === name).length;
  return { wins, decided, undecided: votes.length - decided, ...wilson(wins, decided) };
}

/** Wilson's interval of a share (Wilson 1927). */
function wilson(wins, n) {
  if (!n) return { share: undefined, low: 0, high: 1 };
  const share = wins / n;
  const centre = (share + Z ** 2 / (2 * n)) / (1 + Z ** 2 / n);
  const half = (Z / (1 + Z ** 2 / n)) * Math.sqrt((share * (1 - share)) / n + Z ** 2 / (4 * n ** 2));
  return { share, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/** What the tally of two models says. */
export function preference(votes, [a, b]) {
  const tallies = [a, b].map((name) => ({ name, ...count(votes, name) }));
  const best = tallies[1].wins > tallies[0].wins ? tallies[1] : tallies[0];
  if (!best.decided) return "Nothing is decided yet.";
  if (2 * best.wins === best.decided)
    return `Both were preferred in ${best.wins} of ${countOf(best.decided, "round")}: no difference was seen.`;
  return `${best.name} was preferred in ${best.wins} of ${countOf(best.decided, "round")}; ${judged(best)}`;
}

/** What the tally of guesses says, in which `real` is the right choice. */
export function recognition(votes, real) {
  const tally = count(votes, real);
  if (!tally.decided) return "Nothing is decided yet.";
  return `You recognised the real image in ${tally.wins} of ${countOf(tally.decided, "round")}; ${judged(tally)}`;
}

const judged = ({ low, high }) =>
  low > 0.5 || high < 0.5 ? "that is unlikely to be chance." : "that could still be chance.";

export const percent = (share) => (share === undefined ? "" : `${Math.round(100 * share)}%`);

/** The votes as a table for other programs. */
export function csv(votes) {
  const quoted = (text) => `"${`${text}`.replaceAll('"', '""')}"`;
  const rows = votes.map(({ time, left, right, chosen }) => [time, left, right, chosen].map(quoted));
  return [["time", "left", "right", "chosen"], ...rows].map((row) => `${row.join(",")}\r\n`).join("");
}
