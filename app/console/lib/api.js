// Requests to the service. Addresses are relative, so that the page also works behind a prefix.

/** A refusal by the service, with its text; `errors` name the invalid fields (RFC 9457). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.errors = body.errors ?? [];
  }

  /** The error of a field, such as `minutes` or `net/dropout`, or of an item in it; undefined if it has none. */
  of(field) {
    const isAt = ({ pointer, parameter }) =>
      parameter === field || `${pointer}/`.startsWith(`/${field}/`);
    return this.errors.find(isAt)?.detail;
  }
}

/** No answer: the service is stopped, or the network is down. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

/** An address whose parts are escaped: at`models/${name}`. */
export function at(strings, ...parts) {
  return String.raw({ raw: strings }, ...parts.map(encodeURIComponent));
}

/** Returns a successful response. Throws Problem, Unreachable, or AbortError after signal's abort. */
export async function send(address, { json, accept, headers, ...options } = {}) {
  const init = { ...options, headers: { ...headers } };
  if (accept) init.headers.Accept = accept;
  if (json) {
    init.method ??= "POST";
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(json);
  }
  const response = await reach(() => fetch(address, init));
  if (!response.ok) throw refusal(response.status, await response.json().catch(() => ({})));
  return response;
}

function refusal(status, body) {
  if (status === 401) connection.signOut();
  return new Problem(status, body);
}

export async function get(address, signal) {
  const response = await send(address, { signal, accept: "application/json" });
  return reach(() => response.json());
}

export async function post(address, json = {}) {
  return (await send(address, { json, accept: "application/json" })).json();
}

export async function patch(address, json) {
  return (await send(address, { json, method: "PATCH", accept: "application/json" })).json();
}

export const remove = (address) => send(address, { method: "DELETE" });

/** Fetches `pages` pages of a list one after the other, as {items, has_more}. */
export async function pagesOf(address, key, pages, signal, query = {}) {
  const items = [];
  for (let page = 1; ; page += 1) {
    const after = items.length ? { after: items.at(-1)[key] } : {};
    const asked = new URLSearchParams({ limit: 100, ...query, ...after });
    const answer = await get(`${address}?${asked}`, signal);
    items.push(...answer.items);
    if (!answer.has_more || page === pages) return { items, has_more: answer.has_more };
  }
}

export const all = async (address, key, signal) =>
  (await pagesOf(address, key, Infinity, signal)).items;

/** Sends a file and calls `sent` with the uploaded share, 0..1; fetch does not report it. */
export function upload(address, blob, sent, method = "PUT") {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, address);
    request.upload.onprogress = (event) => sent(event.loaded / (event.total || 1));
    request.onerror = () => {
      connection.lose();
      reject(new Unreachable());
    };
    request.onload = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // not the service's own answer; the status is enough
      }
      if (request.status < 300) resolve(body);
      else reject(refusal(request.status, body));
    };
    request.send(blob);
  });
}

/** Yields the server-sent events of a response to POST, as {type, data}. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reach(() => reader.read());
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = { type: "message", data: "" };
        for (const line of block.split("\n")) {
          const [name, ...text] = line.split(": ");
          if (name === "event") event.type = text.join(": ");
          if (name === "data") event.data += text.join(": ");
        }
        if (event.data) yield { type: event.type, data: JSON.parse(event.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// The connection ----------------------------------------------------------------------------------

const HEARTBEAT = 5000;
const RETRY = 1000;
const AWAY = 60_000; // milliseconds after which all that a page shows is asked for again

/**
 * `epoch` grows each time a lost connection is restored, somebody signs in, a deleted record comes
 * back or the visitor does, so that hooks repeat their requests. `signedOut`: the service wants a key.
 */
export const connection = {
  lost: false,
  signedOut: false,
  epoch: 0,
  listeners: new Set(),

  lose() {
    if (this.lost) return;
    this.lost = true;
    this.notify();
    this.retry();
  },

  async retry() {
    while (this.lost) {
      await sleep(RETRY);
      if (!(await alive())) continue;
      this.lost = false;
      this.renew();
    }
  },

  signOut() {
    this.signedOut = true;
    this.notify();
  },

  signIn() {
    this.signedOut = false;
    this.renew();
  },

  /** Has hooks repeat their requests. */
  renew() {
    this.epoch += 1;
    this.notify();
  },

  notify() {
    for (const listener of this.listeners) listener();
  },

  async check() {
    if (!this.lost && !(await alive())) this.lose();
  },

  async watch() {
    addEventListener("offline", () => this.check()); // the service may still be reachable, if it is on this machine
    let seen = Date.now();
    const look = async () => {
      if (document.hidden) return;
      const away = Date.now() - seen;
      seen = Date.now();
      await this.check();
      if (away > AWAY && !this.lost) this.renew(); // after a night in the background, or asleep
    };
    document.addEventListener("visibilitychange", look);
    for (;;) {
      await sleep(HEARTBEAT);
      await look();
    }
  },
};

async function alive() {
  try {
    return (await fetch("healthz", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

async function reach(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.lose();
    throw new Unreachable();
  }
}

export const sleep = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));
