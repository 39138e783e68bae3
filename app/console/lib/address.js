// The settings of a page in its address, so that a link brings them back.

/**
 * Writes the settings behind the # without a new entry in the history: {a: 1, b: undefined} on
 * `models/x` is #/models/x?a=1. Nothing is redrawn.
 */
export function remember(path, settings) {
  const given = Object.entries(settings).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(given);
  history.replaceState(history.state, "", `#/${path}${given.length ? `?${query}` : ""}`);
}
