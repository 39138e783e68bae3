// The gallery: what was sampled and kept, searched, starred, tagged and looked at.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";
import { get, pagesOf, patch } from "../lib/api.js";
import { useAction, useAnswer, useConnection } from "../lib/hooks.js";
import { discard } from "../lib/notices.js";
import { Input, Page, ProblemText, Select, countOf } from "../lib/parts.js";
import { SettingsDrop } from "../lib/pictures.js";
import { Picture, titleOf } from "./picture.js";

const PAGE = 100; // pictures
const SEEN_AT_ONCE = 80; // whose thumbnails come with the first page
const NARROW = matchMedia("(max-width: 40rem)");
const [SIDE, NARROW_SIDE, GAP] = [128, 96, 10]; // pixels of thumbnails and between them, as in style.css
const [AROUND, FAR] = [150, 600]; // pixels above and below the window that have thumbnails, and once it rests
const RESTS = 120; // milliseconds without scrolling
const ROWS = 3; // that come and go together
const DAY = /^\d{4}-\d\d-\d\d$/;

/** `query` has the filters, and in `picture` the id of the one that is open. */
export function Gallery({ query: { picture: id, ...query } }) {
  const { model, class: className, tag, starred, from, to, notes } = query;
  const list = usePictures({
    ...(model && { model }),
    ...(className && { class: className }),
    ...(tag && { tag }),
    ...(starred && { starred }),
    ...(DAY.test(from) && { since: midnight(from) }),
    ...(DAY.test(to) && { until: midnight(to, 1) }),
    ...(notes && { text: notes }),
  });
  const facets = useAnswer("pictures/facets" + (model ? `?${new URLSearchParams({ model })}` : ""));
  const [picked, setPicked] = useState(new Set());
  const isFiltered = Object.keys(query).length > 0;
  const address = (changes) => {
    const now = Object.entries({ ...query, ...changes }).filter(([, value]) => value);
    return `#/gallery${now.length ? `?${new URLSearchParams(now)}` : ""}`;
  };
  const filter = (changes) => location.replace(address(changes));
  const changed = () => facets.refresh();
  const drop = (ids) => {
    list.drop(ids);
    setPicked((old) => new Set([...old].filter((each) => !ids.includes(each))));
    changed();
  };
  const { num_pictures: count, max_pictures: most } = facets.data ?? {};
  return html`
    <${Page}
      title="Gallery"
      intro=${`What you make on the sample page is kept here with its settings${
        most ? `, up to ${countOf(most, "picture")}: after that the oldest without a star make room` : ""
      }. Drop a picture made here onto the page, or paste it, and its settings are back.`}
      actions=${html`<${SettingsDrop} />`}
    >
      <${Filters} query=${query} facets=${facets.data} filter=${filter} />
      <${ProblemText} problem=${facets.problem || list.problem} />
      <p class="note" role="status">${summary(list, count, isFiltered)}</p>
      ${picked.size > 0 && html`<${Edits} ...${{ picked, setPicked, list, facets, changed, drop }} />`}
      <${Grid} ...${{ list, id, link: address, picked, setPicked, changed }} />
      ${list.isEmpty && (isFiltered ? html`<p><button onClick=${() => location.replace("#/gallery")}>Clear the filters</button></p>` : html`<p class="empty">Images that you make are kept here. <a href="#/sample">Make some</a>.</p>`)}
      ${id && html`<${Picture} key="picture" ...${{ id, list, address, tags: facets.data?.tags ?? [], changed, drop }} />`}
    <//>
  `;
}

function summary(list, count, isFiltered) {
  const { length } = list.items;
  if (!list.isLoaded) return list.problem ? "" : "Loading…";
  if (list.isEmpty) return isFiltered ? "No pictures match." : "";
  if (isFiltered) return list.hasMore ? `The first ${countOf(length, "picture")} are shown.` : `${countOf(length, "picture")}.`;
  return count === undefined ? "" : `${countOf(count, "picture")}.`;
}

/** The first moment of a day here, or of a later one. */
function midnight(day, later = 0) {
  const date = new Date(`${day}T00:00`);
  date.setDate(date.getDate() + later);
  return date.toISOString();
}

// The list -----------------------------------------------------------------------------------------

/** The pictures that fulfil a query; `more` loads the next page. */
function usePictures(query) {
  const { epoch } = useConnection();
  const [, redraw] = useState({});
  const now = useRef({ items: [] }).current;
  const key = JSON.stringify(query);
  const set = (changes) => {
    Object.assign(now, changes);
    redraw({});
  };
  useLayoutEffect(() => {
    const pages = now.key === key ? Math.max(1, Math.ceil(now.items.length / PAGE)) : 1;
    const abort = new AbortController();
    Object.assign(now, { key, abort, loading: undefined });
    pagesOf("pictures", "id", pages, abort.signal, { ...query, embed: SEEN_AT_ONCE }).then(
      ({ items, has_more }) => set({ items, hasMore: has_more, isLoaded: true, problem: undefined }),
      (problem) => problem.name !== "AbortError" && set({ problem }),
    );
    return () => abort.abort();
  }, [key, epoch]);

  const more = () => {
    if (!now.hasMore || !now.items.length) return Promise.resolve();
    const { signal } = now.abort;
    const params = new URLSearchParams({ limit: PAGE, ...query, after: now.items.at(-1).id });
    now.loading ??= get(`pictures?${params}`, signal)
      .then(
        ({ items, has_more }) =>
          signal.aborted || set({ items: [...now.items, ...items], hasMore: has_more, problem: undefined }),
        (problem) => problem.name !== "AbortError" && set({ problem, hasMore: false }),
      )
      .finally(() => (now.loading = undefined));
    return now.loading;
  };
  const update = (changed) => {
    const by = new Map(changed.map((item) => [item.id, item]));
    set({ items: now.items.map((old) => by.get(old.id) ?? old) });
  };
  const drop = (ids) => set({ items: now.items.filter(({ id }) => !ids.includes(id)) });
  const { items, hasMore, isLoaded, problem } = now;
  return { items, hasMore, isLoaded, problem, more, update, drop, isEmpty: isLoaded && !items.length };
}

// What is searched for ------------------------------------------------------------------------------

function Filters({ query, facets, filter }) {
  const [notes, setNotes] = useState(query.notes ?? "");
  const written = useRef(notes); // into the address
  useEffect(() => {
    if (notes === (query.notes ?? "")) return;
    const timer = setTimeout(() => {
      written.current = notes;
      filter({ notes });
    }, 300);
    return () => clearTimeout(timer);
  }, [notes]);
  useEffect(() => {
    const given = query.notes ?? "";
    if (given !== written.current) setNotes(given); // somebody has followed a link
    written.current = given;
  }, [query.notes]);
  const options = (any, found = [], chosen) => [
    ["", any],
    ...found.map(({ name, num_pictures }) => [name, `${name} (${num_pictures.toLocaleString("en")})`]),
    ...(chosen && !found.some(({ name }) => name === chosen) ? [chosen] : []),
  ];
  const choice = (label, name, found) => html`<${Select}
    label=${label}
    value=${query[name] ?? ""}
    options=${options("all", found, query[name])}
    onChange=${(value) => filter({ [name]: value })}
  />`;
  const day = (label, name) => html`<${Input}
    label=${label}
    type="date"
    value=${query[name] ?? ""}
    onChange=${(value) => filter({ [name]: value })}
  />`;
  return html`
    <form class="card filters" aria-label="Search" onSubmit=${(event) => event.preventDefault()}>
      ${choice("Model", "model", facets?.models)}
      ${choice("Class", "class", facets?.classes)}
      ${choice("Tag", "tag", facets?.tags)}
      ${day("From", "from")}
      ${day("To", "to")}
      <${Input} label="In the notes" type="search" value=${notes} onChange=${setNotes} />
      <label class="check">
        <input
          type="checkbox"
          checked=${Boolean(query.starred)}
          onChange=${(event) => filter({ starred: event.target.checked ? "true" : "" })}
        />
        Only with a star
      </label>
    </form>
  `;
}

// The thumbnails -----------------------------------------------------------------------------------

/** The thumbnails. Of thousands only the rows near the window are there. */
function Grid({ list, id, link, picked, setPicked, changed }) {
  const box = useRef();
  const [view, setView] = useState({ step: SIDE + GAP, columns: 1, from: 0, to: 1 }); // rows
  const last = useRef(); // picture that was picked
  const { items, hasMore, more } = list;
  const star = useAction(async (picture) => {
    list.update([await patch(`pictures/${picture.id}`, { starred: !picture.starred })]);
    changed();
  });
  const pick = (id, on, isRange) => {
    const ids = items.map((item) => item.id);
    const ends = [ids.indexOf(id), ids.indexOf(last.current)].sort((a, b) => a - b);
    const all = isRange && ends[0] >= 0 ? ids.slice(ends[0], ends[1] + 1) : [id];
    last.current = id;
    setPicked((old) => {
      const now = new Set(old);
      for (const each of all) if (on) now.add(each);
        else now.delete(each);
      return now;
    });
  };
  useLayoutEffect(() => {
    let timer;
    const rows = (margin) => {
      const { top, width } = box.current.getBoundingClientRect();
      const step = (NARROW.matches ? NARROW_SIDE : SIDE) + GAP; // from one row to the next
      const columns = Math.max(1, Math.floor((width + GAP) / step));
      const from = ROWS * Math.max(0, Math.floor((-top - margin) / step / ROWS));
      const to = ROWS * Math.max(1, Math.ceil((innerHeight - top + margin) / step / ROWS));
      return { step, columns, from, to };
    };
    const look = () => {
      const near = rows(AROUND);
      setView((old) => (covers(old, near) ? old : near));
      clearTimeout(timer);
      timer = setTimeout(() => setView((old) => (covers(old, rows(FAR)) ? old : rows(FAR))), RESTS);
    };
    look();
    const observer = new ResizeObserver(look);
    observer.observe(box.current);
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      clearTimeout(timer);
      observer.disconnect();
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, []);
  const { step, columns, from, to } = view;
  const isNearEnd = hasMore && to * columns + PAGE / 4 > items.length;
  useEffect(() => {
    if (isNearEnd) more();
  }, [isNearEnd, items.length]);
  const place = id ? items.findIndex((item) => item.id === id) : -1;
  useEffect(() => {
    if (place < 0) return; // else it is behind the dialog, where the focus returns to it
    const top = box.current.getBoundingClientRect().top + step * Math.floor(place / columns);
    if (top < 0 || top + step > innerHeight) scrollBy(0, top - innerHeight / 2);
  }, [place, columns, step]);

  const shot = useShots({ count: hasMore ? -1 : items.length, picked, link, pick, star: star.run });
  const rows = Math.ceil(items.length / columns);
  const first = Math.min(from, rows);
  const space = `padding: ${first * step}px 0 ${Math.max(0, rows - to) * step}px`;
  return html`
    <${ProblemText} problem=${star.problem} />
    <div ref=${box}>
      <ul class=${picked.size ? "shots picking" : "shots"} aria-label="Pictures" style=${space}>
        ${items.slice(first * columns, to * columns).map((picture, i) => shot(picture, first * columns + i + 1))}
      </ul>
    </div>
    ${hasMore && html`<p class="note">Loading more…</p>`}
  `;
}

/**
 * A function of a picture and its number to its element. An element is made anew only where
 * something in it has changed, so that scrolling costs what comes into view.
 */
function useShots({ count, picked, link, pick, star }) {
  const now = useRef({}).current;
  Object.assign(now, { pick, star, before: now.made ?? new Map(), made: new Map() });
  return (picture, number) => {
    const address = link({ picture: picture.id });
    const isPicked = picked.has(picture.id);
    const key = [number, count, isPicked, address].join();
    const known = now.before.get(picture.id);
    const made =
      known?.picture === picture && known.key === key
        ? known
        : {
            picture,
            key,
            element: html`<${Shot}
              key=${picture.id}
              pick=${(...how) => now.pick(...how)}
              star=${(...how) => now.star(...how)}
              ...${{ picture, number, count, isPicked, address }}
            />`,
          };
    now.made.set(picture.id, made);
    return made.element;
  };
}

/** Whether the rows of one view are among those of another. */
const covers = (view, rows) =>
  view.step === rows.step && view.columns === rows.columns && view.from <= rows.from && view.to >= rows.to;

function Shot({ picture, number, count, isPicked, address, pick, star }) {
  const { id, links, starred } = picture;
  const title = titleOf(picture);
  return html`
    <li aria-posinset=${number} aria-setsize=${count}>
      <a href=${address} id=${`picture-${id}`} draggable=${false} title=${title}><img
        src=${links.thumbnail}
        alt=${`${number}: ${title}`}
        width="128"
        height="128"
        loading="lazy"
        decoding="async"
        draggable=${false}
      /></a>
      <input
        type="checkbox"
        aria-label=${`Select picture ${number}`}
        checked=${isPicked}
        onClick=${(event) => pick(id, event.target.checked, event.shiftKey)}
      />
      <button
        class="star"
        aria-label=${`Star picture ${number}`}
        aria-pressed=${starred}
        onClick=${() => star(picture)}
      >★</button>
    </li>
  `;
}

// Several at once ----------------------------------------------------------------------------------

/** What can be done with the picked pictures. */
function Edits({ picked, setPicked, list, facets, changed, drop }) {
  const [tag, setTag] = useState("");
  const ids = [...picked];
  const each = async (request) => {
    for (let i = 0; i < ids.length; i += PAGE) await request(ids.slice(i, i + PAGE));
    changed();
  };
  const change = useAction((changes) =>
    each(async (some) => list.update(await patch("pictures", { ids: some, ...changes }))),
  );
  const remove = useAction(() =>
    each(async (some) => {
      const query = new URLSearchParams(some.map((id) => ["id", id]));
      const text = `${countOf(some.length, "picture is", "pictures are")} deleted.`;
      await discard("pictures", some[0], text, `pictures?${query}`);
      drop(some);
    }),
  );
  const busy = change.busy || remove.busy;
  const withTag = (name) => () => change.run({ [name]: [tag] });
  return html`
    <form
      class="card edits picked"
      aria-label="Selected pictures"
      onSubmit=${(event) => {
        event.preventDefault();
        withTag("add_tags")();
      }}
    >
      <p role="status">${countOf(ids.length, "picture is", "pictures are")} selected.</p>
      <div class="actions">
        <button type="button" disabled=${busy} onClick=${() => change.run({ starred: true })}>Star</button>
        <button type="button" disabled=${busy} onClick=${() => change.run({ starred: false })}>Take the star off</button>
        <button type="button" class="danger" disabled=${busy} onClick=${() => remove.run()}>Delete</button>
        <button type="button" onClick=${() => setPicked(new Set(list.items.map(({ id }) => id)))}>Select all shown</button>
        <button type="button" onClick=${() => setPicked(new Set())}>Select none</button>
      </div>
      <div class="actions">
        <input
          aria-label="Tag"
          placeholder="a tag"
          list="gallery-tags"
          maxlength="40"
          required
          value=${tag}
          onInput=${(event) => setTag(event.target.value)}
        />
        <datalist id="gallery-tags">${facets.data?.tags.map(({ name }) => html`<option value=${name} />`)}</datalist>
        <button disabled=${busy}>Add the tag</button>
        <button type="button" disabled=${busy || !tag.trim()} onClick=${withTag("remove_tags")}>Take it off</button>
      </div>
      <${ProblemText} problem=${change.problem || remove.problem} />
    </form>
  `;
}
