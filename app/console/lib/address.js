// Settings of a page that its address holds, so that a link, a reload and "back" restore them.

import { useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";

const SETTLED = 200; // milliseconds without a change; browsers refuse to change the address too often

const partsOf = (hash) => hash.replace(/^#/, "").split("?");

/** The settings in the current address: {t: "150"}. */
export const settingsNow = () => Object.fromEntries(new URLSearchParams(partsOf(location.hash)[1]));

/** Returns the current address with other settings; those that are undefined or "" are left out. */
function withSettings(changes) {
  const [path, query] = partsOf(location.hash);
  const settings = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined || value === "") settings.delete(name);
    else settings.set(name, value);
  }
  return `#${path}${settings.size ? `?${settings}` : ""}`;
}

const waiting = { path: undefined, changes: {}, timer: undefined };

/** Writes settings, such as {t: 150}, into the address once they rest, without a new entry in the history. */
export function keep(changes) {
  const [path] = partsOf(location.hash);
  if (waiting.path !== path) waiting.changes = {};
  waiting.path = path;
  Object.assign(waiting.changes, changes);
  clearTimeout(waiting.timer);
  waiting.timer = setTimeout(() => {
    // The visitor may have gone to another page meanwhile.
    if (partsOf(location.hash)[0] === waiting.path)
      history.replaceState(history.state, "", withSettings(waiting.changes));
    waiting.changes = {};
  }, SETTLED);
}

/**
 * As useState, for a number or a text that the address holds under `name`; `fallback`, which the
 * address leaves out, also tells which of the two it is.
 */
export function useSetting(name, fallback) {
  const [settings, change] = useSettings({ [name]: fallback });
  return [settings[name], (value) => change({ [name]: value })];
}

/** As useSetting, for several: [{name: value}, change({name: value})]. */
export function useSettings(fallbacks) {
  const rest = useRef(fallbacks).current;
  const read = () => {
    const now = settingsNow();
    const all = Object.entries(rest).map(([name, fallback]) => [name, valueOf(now[name], fallback)]);
    return Object.fromEntries(all);
  };
  const [settings, setSettings] = useState(read);
  useLayoutEffect(() => {
    const follow = () => setSettings(read());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const change = (changes) => {
    setSettings((old) => ({ ...old, ...changes }));
    const isUsual = ([name, value]) => value === rest[name];
    keep(Object.fromEntries(Object.entries(changes).map((each) => (isUsual(each) ? [each[0]] : each))));
  };
  return [settings, change];
}

function valueOf(text, fallback) {
  if (text === undefined) return fallback;
  if (typeof fallback !== "number") return text;
  return text !== "" && isFinite(text) ? Number(text) : fallback;
}
