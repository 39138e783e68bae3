// State that several pages share.

import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { Unreachable, connection, get } from "./api.js";
import { routeOf } from "./route.js";

export function useConnection() {
  const [, redraw] = useState({});
  useLayoutEffect(() => {
    const listener = () => redraw({});
    connection.listeners.add(listener);
    return () => connection.listeners.delete(listener);
  }, []);
  return connection;
}

/**
 * The answer of an address (or of a function of a signal): {data, problem, refresh}. The request is
 * repeated when the source changes, when a lost connection is restored, and every `every`
 * milliseconds while the page is visible.
 */
export function useAnswer(source, every = 0) {
  const [answer, setAnswer] = useState({});
  const [turn, setTurn] = useState(0);
  const { epoch } = useConnection();
  const key = typeof source === "function" ? source.key : source;
  useLayoutEffect(() => { // not after the page is painted: the answer is waited for
    if (!source) return setAnswer({});
    const abort = new AbortController();
    let timer;
    const load = async () => {
      try {
        if (!document.hidden || !timer) {
          const answers = typeof source === "function" ? source : (signal) => get(source, signal);
          const data = await answers(abort.signal);
          if (abort.signal.aborted) return; // not every source heeds the signal
          setAnswer({ data, key });
        }
      } catch (problem) {
        if (abort.signal.aborted) return;
        setAnswer((old) => ({ data: old.key === key ? old.data : undefined, key, problem }));
      }
      if (every && !abort.signal.aborted) timer = setTimeout(load, every);
    };
    load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [key, every, epoch, turn]);
  const refresh = useCallback(() => setTurn((n) => n + 1), []);
  const isCurrent = answer.key === key;
  return {
    data: isCurrent ? answer.data : undefined,
    problem: isCurrent && answer.problem,
    refresh,
  };
}

/** A function for useAnswer, identified by its key. */
export const keyed = (key, load) => Object.assign(load, { key });

const UNKNOWN = "The service did not answer. Look whether this was done before you try again.";

/**
 * {run, busy, problem}: an action, one at a time, and the problem of the last run, which the caller
 * shows. `run` returns whether the action succeeded.
 */
export function useAction(action) {
  const [state, setState] = useState({ busy: false });
  const run = async (...given) => {
    setState({ busy: true });
    try {
      await action(...given);
      setState({ busy: false });
      return true;
    } catch (problem) {
      setState({ busy: false, problem: problem instanceof Unreachable ? new Error(UNKNOWN) : problem });
      return false;
    }
  };
  return { run, ...state };
}

/**
 * Runs task(value, signal) for the newest value only, one at a time: a new value replaces the one
 * that waits. For sliders.
 */
export function useLatest(task) {
  const now = useRef({ busy: false }).current;
  now.task = task;
  useEffect(
    () => () => {
      now.waiting = undefined;
      now.abort?.abort();
    },
    [],
  );
  return useCallback(async (value) => {
    now.waiting = { value };
    if (now.busy) return;
    now.busy = true;
    while (now.waiting) {
      const { value: next } = now.waiting;
      now.waiting = undefined;
      now.abort = new AbortController();
      await now.task(next, now.abort.signal); // handles its problems
    }
    now.busy = false;
  }, []);
}

/** An object URL for a blob, revoked when another blob replaces it. */
export function useObjectUrl(blob) {
  const url = useMemo(() => blob && URL.createObjectURL(blob), [blob]);
  useEffect(() => () => url && URL.revokeObjectURL(url), [url]);
  return url;
}

// The page's address -------------------------------------------------------------------------------

/** The current address: `#/training/job_1?x=2` is {parts: ["training", "job_1"], query: {x: "2"}}. */
export function useRoute() {
  const [hash, setHash] = useState(location.hash);
  useLayoutEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return routeOf(hash);
}

export const go = (hash) => {
  location.hash = hash;
};

// Light and dark -----------------------------------------------------------------------------------

const THEME = "diffusion-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** ["light" | "dark", toggle]; the system's theme until one is chosen here. */
export function useTheme() {
  const [chosen, setChosen] = useState(localStorage.getItem(THEME));
  const [system, setSystem] = useState(dark.matches);
  useEffect(() => {
    const changed = () => setSystem(dark.matches);
    dark.addEventListener("change", changed);
    return () => dark.removeEventListener("change", changed);
  }, []);
  const theme = chosen ?? (system ? "dark" : "light");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    dispatchEvent(new Event("theme"));
  }, [theme]);
  const toggle = () => {
    const other = theme === "dark" ? "light" : "dark";
    localStorage.setItem(THEME, other);
    setChosen(other);
  };
  return [theme, toggle];
}
